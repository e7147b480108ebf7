"""Whether speech over the avatar says something, and where an answer that was interrupted goes on.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .base import Samples

__all__ = ["resume_at", "says_something"]

_FILLERS = frozenset(
    "ah ahem aha äh ähm eh ehm em er erm euh ha hä hm hmm hmmm huh mhm mhmm mm mmm mmh mmhm mmhmm "
    "oh ooh uh uhh uhhuh uhuh um umm hum hein hé bah ben bof pff ouais ok okay okey yeah yep yup "
    "ja jo jep sí si ya claro vale sim né è già right sure "
    "嗯 啊 哦 呃 はい うん ええ へえ ああ えっと 네 응 음 어 да ага угу ну".split()
)
"""Sounds and words with which people listen. "no", "stop" and "wait" are none of them."""
_MOST = 2
"""More of them in a row are an answer."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+")
_ASIDE = re.compile(r"\([^)]*\)|\[[^\]]*\]|\*[^*]*\*")
"""What recognition writes for a sound: "(coughs)", "[music]", "*laughs*"."""

_BACK_S = 0.6
_WINDOW_S = 0.02


def says_something(text: str) -> bool:
    """Whether a text has a word that is more than a sign of listening."""
    words = [word.lower().replace("-", "") for word in _WORD.findall(_ASIDE.sub(" ", text))]
    return len(words) > _MOST or any(word not in _FILLERS for word in words)


def resume_at(audio: Sequence[Samples], rate: int, start_s: float, heard_s: float) -> float:
    """The quietest place of an answer, at most 0.6 s before what was heard, in seconds.

    ``audio``: float32 mono of the answer from ``start_s`` on.
    """
    whole = np.concatenate([np.empty(0, np.float32), *audio])
    window = int(rate * _WINDOW_S)
    end = min(max(round((heard_s - start_s) * rate), 0), len(whole))
    begin = max(end - round(_BACK_S * rate), 0)
    count = (end - begin) // window
    if count == 0:
        return max(heard_s, start_s)
    blocks = whole[end - count * window : end].reshape(count, window)
    levels = np.sqrt(np.mean(blocks**2, axis=1))
    quietest = count - 1 - int(np.argmin(levels[::-1]))  # the last one
    return start_s + (end - (count - quietest) * window) / rate
