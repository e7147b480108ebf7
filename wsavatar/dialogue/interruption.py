"""Whether speech over the avatar says something, and where an answer that was interrupted goes on.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .base import Samples, Word

__all__ = ["resume_at", "says_something"]

_SIGNS = frozenset(
    "ah ahem aha ahan äh ähm öh eh ehm em er erm euh ha hä heh hein hm hmhm huh hum m mh mhm mhmh "
    "mhuh oh ooh uff uh uhm uhuh um wow hé bah ben bof yeah yea yep yup okay ok okey kay right "
    "sure really cool nice exactly true indeed alright you gotcha "
    "ja jo jep jaja genau stimmt klar echt ach achso aso naja ok "
    "ouais oui voilà mouais exact "
    "si sí ya claro vale dale ajá eso "
    "sì già certo infatti esatto "
    "sim né pois é tá certo isso "
    "嗯 啊 哦 噢 呃 唔 对 好 是 是的 好的 对的 行 "
    "はい うん ええ へえ ああ あー えっと えー ほう ふーん ふん そう そうです そうですね "
    "なるほど ね "
    "네 응 음 어 예 да ага угу ну так tak hoor ano jo aha".split()
)
"""Sounds and words with which people listen. "Yes" to a question is said where the avatar does not
speak; "no", "stop", "wait" and "what" are none of them. "You" is what Whisper reads into noise."""
_PHRASES = frozenset(
    {
        *("i see", "got it", "go on", "all right", "oh yeah", "oh wow", "of course", "i know"),
        *("that's right", "that's true", "makes sense", "fair enough", "thanks for watching"),
        *("ach so", "alles klar", "na klar", "d'accord", "je vois", "bien sûr", "ah bon"),
        *("de acuerdo", "por supuesto", "ya veo", "va bene", "ho capito", "tá bom", "pois é"),
    }
)
_MOST = 3
"""More of them in a row are an answer."""
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*|\d+")
_ASIDE = re.compile(r"\([^)]*\)|\[[^\]]*\]|\*[^*]*\*|♪[^♪]*♪?")
"""What recognition writes for a sound: "(coughs)", "[music]", "*laughs*"."""
_REPEATED = re.compile(r"(.+?)\1+")
"""As in "hmmm" and "はいはい"."""

_BACK_S = 0.6
_LONGEST_WORD_S = 1.5
_NOT_BELOW_S = 0.05
_PAUSE_S = 0.08
"""Shorter silence is in the middle of words: before a "t" or a "k"."""
_STEP_S = 0.01


def says_something(text: str) -> bool:
    """Whether a text has a word that is more than a sign of listening."""
    said = " ".join(_WORD.findall(_ASIDE.sub(" ", text.casefold().replace("’", "'"))))
    for phrase in _PHRASES:
        said = re.sub(rf"\b{phrase}\b", "ok", said)
    words = [word.replace("-", "") for word in said.split()]
    return len(words) > _MOST or not all(map(_is_sign, words))


def _is_sign(word: str) -> bool:
    return word in _SIGNS or _REPEATED.sub(r"\1", word) in _SIGNS


def resume_at(
    audio: Sequence[Samples],
    rate: int,
    start_s: float,
    heard_s: float,
    words: Sequence[Word] = (),
) -> float:
    """Where to go on, in seconds: where a word begins in the last 0.6 s that were heard, behind the
    quietest 80 ms; or the beginning of one that is longer.

    ``audio``: float32 mono of the answer from ``start_s`` on. Where the times of its words are not
    known, the middle of the quietest 80 ms.
    """
    whole = np.concatenate([np.empty(0, np.float32), *audio])
    end_s = min(heard_s, start_s + len(whole) / rate)
    begin_s = max(end_s - _BACK_S, start_s)
    earlier = [
        word.start_s
        for word in words
        if not word.estimated and start_s <= word.start_s <= end_s - _NOT_BELOW_S
    ]
    begins = [at for at in earlier if at >= begin_s] or earlier[-1:]  # the last one may be long
    if begins and end_s - begins[0] <= _LONGEST_WORD_S:
        places = [(at - _PAUSE_S, at) for at in begins]
    else:
        steps = max(0, int((end_s - begin_s - _PAUSE_S) / _STEP_S) + 1)
        starts = [begin_s + step * _STEP_S for step in range(steps)]
        places = [(at, at + _PAUSE_S / 2) for at in starts]
    if not places:
        return max(end_s, start_s)

    def loudness(pause_s: float) -> float:
        first = max(round((pause_s - start_s) * rate), 0)
        pause = whole[first : first + max(round(_PAUSE_S * rate), 1)]
        return float(np.mean(pause**2)) if len(pause) else 0.0

    return min(reversed(places), key=lambda place: loudness(place[0]))[1]
