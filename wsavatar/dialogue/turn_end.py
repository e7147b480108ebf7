"""The silence that ends a turn, by what was said so far (``semantic_vad``). Pure."""

from __future__ import annotations

import re
from typing import Literal

__all__ = ["Eagerness", "silence_ms"]

Eagerness = Literal["low", "medium", "high", "auto"]

_FACTORS: dict[Eagerness, float] = {"low": 2.0, "medium": 1.0, "auto": 1.0, "high": 0.5}
_FINISHED, _OPEN = 0.6, 3.0
"""Of the configured silence."""
_OPEN_ENDS = frozenset(
    "a an and as at because but by for from if in into is like my of on or our so than that the "
    "their then this to um uh er with when where which who your i we "
    "und oder aber weil dass der die das ein eine mit für von zu äh ähm wenn "
    "et ou mais parce que le la les un une de du avec pour euh si "
    "y o pero porque el la los las un una de con para que eh si".split()
)
"""Words after which a sentence goes on."""
_LAST_WORD = re.compile(r"([^\W\d_]+)\W*$")


def silence_ms(text: str, eagerness: Eagerness, default_ms: int) -> int:
    """Milliseconds of silence that end a turn which reads like this so far."""
    written = text.rstrip()
    last = _LAST_WORD.search(written)
    factor = 1.0
    if written.endswith(("...", "…", ",", "-", "–", ":", "，", "、")):
        factor = _OPEN
    elif last is not None and last[1].lower() in _OPEN_ENDS:
        factor = _OPEN
    elif written.endswith((".", "?", "!", "。", "？", "！", "؟")):
        factor = _FINISHED
    return max(round(default_ms * factor * _FACTORS[eagerness]), 100)
