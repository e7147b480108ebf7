"""When the words of a phrase are said: as the engine tells, else by their lengths. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wsavatar.dialogue.base import Word

__all__ = ["WordClock", "estimated", "word_spans"]

_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
_SYLLABIC = rf"\u2e80-\u9fff\uf900-\uff60{_SPACELESS}"
_MARKS = r"\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ebc\u0ec8-\u0ecd" + (
    r"\u102b-\u103e\u17b4-\u17d3\ufe00-\ufe0f"
)
_WORD = re.compile(rf"[{_SYLLABIC}][{_MARKS}]*|[^\s{_SYLLABIC}]+")
"""What stands between blanks; where a script has none, one character with its marks."""

Words = tuple[Word, ...]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end. Every word has a letter or digit; marks that stand
    alone are none."""
    return [
        found.span() for found in _WORD.finditer(text) if any(c.isalnum() for c in found.group())
    ]


def _letters(word: str) -> float:
    """How long a word takes to say, in letters: a digit is a word of its own, an ideograph a
    syllable; and the blank behind it."""
    letters = 1.0
    for c in word:
        if c.isdigit():
            letters += 4
        elif "\u2e80" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7af":
            letters += 3
        elif c.isalpha():
            letters += 1
    return letters


class WordClock:
    """The words of one phrase with their times, in seconds from its first sample, as the engine
    tells them.

    Words that it passes over (a number is one word here and many there) are put between their
    neighbours by their lengths, and are estimated.
    """

    def __init__(self, text: str) -> None:
        self._spans = word_spans(text)
        self._words = [text[start:end] for start, end in self._spans]
        self._given = 0  # words that were given out
        self._exact = False  # whether the first of the others was timed,
        self._start_s = 0.0  # when it begins,
        self._end_s = 0.0  # and ends; 0: not known

    def told(self, at: int, start_s: float, duration_s: float = 0.0) -> Words:
        """The engine says when the word at this index begins; the words before it."""
        index = next((n for n, (_, end) in enumerate(self._spans) if end > at), None)
        if index is None or index < self._given:
            return ()
        if self._exact and index == self._given:  # more of the same word
            self._end_s = max(self._end_s, start_s + duration_s) if duration_s else 0.0
            return ()
        start_s = max(start_s, self._start_s)
        words = self._give(index, start_s)
        self._exact, self._start_s = True, start_s
        self._end_s = start_s + duration_s if duration_s else 0.0
        return words

    def finish(self, seconds: float) -> Words:
        """The phrase is over, and is so long; the rest of its words."""
        return self._give(len(self._words), max(seconds, self._start_s))

    def _give(self, until: int, end_s: float) -> Words:
        """The words before this one, which begins at ``end_s``."""
        words = spread(self._words[self._given : until], self._start_s, end_s)
        if words and self._exact:
            last_s = min(self._end_s or end_s, words[0].start_s + words[0].duration_s)
            words[0] = Word(words[0].text, self._start_s, last_s - self._start_s, False)
        self._given = max(self._given, until)
        self._exact = False
        return tuple(words)


def spread(words: Sequence[str], start_s: float, end_s: float) -> list[Word]:
    """Words between two times, by their lengths."""
    letters = [_letters(word) for word in words]
    s_per_letter = (end_s - start_s) / sum(letters) if letters else 0.0
    spread = []
    for word, length in zip(words, letters, strict=True):
        spread.append(Word(word, start_s, length * s_per_letter, True))
        start_s += length * s_per_letter
    return spread


# -- without the engine's help --------------------------------------------------------------------

_STOP = re.compile(r"[.!?…。！？؟।]\W*$")
_COMMA = re.compile(r"[,;:、，，،–—]\W*$")
_STOP_LETTERS, _COMMA_LETTERS = 6, 3
_BLOCK_S = 0.01
_MIN_PAUSE_S = 0.12
_QUIET = 10 ** (-35 / 20)
"""Of the loudest block."""


def estimated(text: str, samples: NDArray[np.float32], rate: int) -> Words:
    """The words of a phrase in its sound: by their lengths, and where a pause in it belongs to a
    mark in the text."""
    words = [text[start:end] for start, end in word_spans(text)]
    if not words:
        return ()
    pauses = [  # in letters
        _STOP_LETTERS if _STOP.search(word) else _COMMA_LETTERS if _COMMA.search(word) else 0
        for word in words[:-1]
    ]
    seconds = len(samples) / rate
    s_per_letter = seconds / (sum(map(_letters, words)) + sum(pauses))
    given: list[Word] = []
    start_s = 0.0
    for pause_s, after_s in _pauses(samples, rate):
        first, at_s, best = len(given), start_s, (float("inf"), 0)
        for index in range(first, len(words) - 1):
            at_s += _letters(words[index]) * s_per_letter
            if pauses[index]:
                best = min(best, (abs(at_s - pause_s), index + 1))
            at_s += pauses[index] * s_per_letter
        if best[0] < 0.25 + 0.35 * (pause_s - start_s):
            given += spread(words[first : best[1]], start_s, pause_s)
            start_s = after_s
    return (*given, *spread(words[len(given) :], start_s, seconds))


def _pauses(samples: NDArray[np.float32], rate: int) -> list[tuple[float, float]]:
    """Where silence of at least `_MIN_PAUSE_S` begins and ends, in seconds; not at the ends."""
    size = int(rate * _BLOCK_S)
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    levels = np.sqrt(np.mean(blocks**2, axis=1))
    loud = np.flatnonzero(levels > _QUIET * levels.max(initial=0))
    return [
        (float(before + 1) * _BLOCK_S, float(after) * _BLOCK_S)
        for before, after in pairwise(loud)
        if (after - before - 1) * _BLOCK_S >= _MIN_PAUSE_S
    ]
