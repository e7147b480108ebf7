"""The silence that ends a turn, by what was said so far (``semantic_vad``). Pure.

A turn reads as *finished*, *open* (more will come), or neither. Its last words and punctuation
decide; in languages without an entry in `turn_words`, the punctuation alone. Recognisers write a
full stop behind everything, so that it closes nothing behind a word like "and".
"""

from __future__ import annotations

import re
from typing import Literal

from .turn_words import CJK_FINISHED, CJK_OPEN, CJK_WHOLE, LANGUAGES, EndWords

__all__ = ["Eagerness", "Reading", "reading", "silence_ms"]

Eagerness = Literal["low", "medium", "high", "auto"]
Reading = Literal["finished", "open", "unknown"]

_FINISHED_MS: dict[Eagerness, int] = {"high": 200, "auto": 300, "medium": 300, "low": 600}
_OPEN_MS: dict[Eagerness, int] = {"high": 1500, "auto": 2500, "medium": 2500, "low": 4000}
_UNKNOWN: dict[Eagerness, float] = {"high": 0.8, "auto": 1.0, "medium": 1.0, "low": 2.0}
"""Of the configured silence."""

_GOES_ON = ("...", "…", ",", ";", ":", "-", "–", "—", "，", "、", "；", "：")
_QUESTION = ("?", "？", "؟")
_STOP = (".", "!", "。", "！", "।", "۔")
_CLOSING = " \t\n\"'”’»）)"
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]+")


def silence_ms(text: str, eagerness: Eagerness, default_ms: int, language: str = "") -> int:
    """Milliseconds of silence that end a turn which reads like this so far.

    Never more than the configured silence for one that is finished, never less for one that is
    open. ``text`` empty: it is not known. ``language`` as "en"; empty: by the text.
    """
    read = reading(text, language)
    if read == "finished":
        return min(_FINISHED_MS[eagerness], default_ms)
    if read == "open":
        return max(_OPEN_MS[eagerness], default_ms)
    return round(default_ms * _UNKNOWN[eagerness])


def reading(text: str, language: str = "") -> Reading:
    """Whether a text reads as finished."""
    written = text.rstrip(_CLOSING)
    words = _WORD.findall(written.casefold().replace("’", "'"))
    if not words:
        return "unknown"
    if written.endswith(_GOES_ON):
        return "open"
    asks, stops = written.endswith(_QUESTION), written.endswith(_STOP)
    if _CJK.search(words[-1]):
        return _cjk("".join(_CJK.findall(written)), ends=asks or stops)
    table = LANGUAGES.get(language.casefold()[:2]) or _table_of(words)
    if asks:
        return "finished"
    if " ".join(words) in table.whole or _ends_with(words, table.last):
        return "finished"
    if _ends_with(words, table.open) or (len(words) == 1 and words[0] in table.openings):
        return "open"
    if words[-1].isdigit():
        return "unknown"  # a number may be said in parts
    if words[-1] in table.seldom:
        return "unknown" if stops else "open"
    return "finished" if stops else "unknown"


def _cjk(text: str, *, ends: bool) -> Reading:
    """Of Chinese and Japanese, where words are not separated."""
    if text in CJK_WHOLE:
        return "finished"
    if text.endswith(CJK_FINISHED):
        return "finished"
    if text.endswith(CJK_OPEN):
        return "unknown" if ends else "open"
    return "finished" if ends else "unknown"


def _table_of(words: list[str]) -> EndWords:
    """The language of which the text has most words; English in doubt."""

    def known(table: EndWords) -> tuple[int, int]:
        ends = " ".join(words) in table.whole or _ends_with(words, table.last)
        return ends, sum(word in table.open or word in table.seldom for word in words)

    return max(LANGUAGES.values(), key=known)


def _ends_with(words: list[str], endings: frozenset[str]) -> bool:
    return any(" ".join(words[-count:]) in endings for count in (1, 2, 3))
