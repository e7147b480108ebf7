"""When the words of a phrase are said: as the engine tells, else by their lengths. Pure."""

from __future__ import annotations

import re

from wsavatar.dialogue.base import Word

__all__ = ["Pace", "WordClock", "word_spans"]

_SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
_SYLLABIC = rf"\u2e80-\u9fff\uf900-\uff60{_SPACELESS}"
_MARKS = r"\u0300-\u036f\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1-\u0ebc\u0ec8-\u0ecd" + (
    r"\u102b-\u103e\u17b4-\u17d3\ufe00-\ufe0f"
)
_WORD = re.compile(rf"[{_SYLLABIC}][{_MARKS}]*|[^\s{_SYLLABIC}]+")
"""What stands between blanks; where a script has none, one character with its marks."""

_COMMA = re.compile(r"[,;:.!?…、，。！？؟،।]\W*$")

Words = tuple[Word, ...]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end. Every word has a letter or digit; marks that stand
    alone are none."""
    return [
        found.span() for found in _WORD.finditer(text) if any(c.isalnum() for c in found.group())
    ]


def _weight(word: str) -> float:
    """How long a word takes to say, in letters: a digit is a word of its own, an ideograph a
    syllable, and there is a pause after a comma."""
    letters = 0.0
    for c in word:
        if c.isdigit():
            letters += 4
        elif "\u2e80" <= c <= "\u9fff" or "\uac00" <= c <= "\ud7af":
            letters += 3
        elif c.isalpha():
            letters += 1
    return letters + 1 + (3 if _COMMA.search(word) else 0)


class Pace:
    """How long a voice takes for a letter, in seconds, as heard in its phrases so far."""

    def __init__(self) -> None:
        self.s_per_letter = 0.06
        """At first, as voices speak European languages: 15 letters and blanks a second."""

    def heard(self, letters: float, seconds: float) -> None:
        """A phrase of so many letters took so long."""
        if letters >= 10:
            measured = min(max(seconds / letters, 0.02), 0.3)
            self.s_per_letter += 0.5 * (measured - self.s_per_letter)


class WordClock:
    """The words of one phrase with their times, in seconds from its first sample.

    A word that the engine has timed (`told`) is exact. Those that it passes over (a number is one
    word here and many there) are put between their neighbours by their lengths, and are estimated;
    so are all words of an engine that tells none (`sounded`), at a ``pace``.
    """

    def __init__(self, text: str, pace: Pace | None = None) -> None:
        self._spans = word_spans(text)
        self._words = [text[start:end] for start, end in self._spans]
        self._weights = [_weight(word) for word in self._words]
        self._pace = pace
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

    def sounded(self, seconds: float) -> Words:
        """So much of the phrase is there. Words at a pace that lie in it."""
        if self._pace is None:
            return ()
        index, end_s = self._given, self._start_s
        while index < len(self._words):
            after_s = end_s + self._weights[index] * self._pace.s_per_letter
            if after_s > seconds:
                break
            index, end_s = index + 1, after_s
        words = self._give(index, end_s)
        self._start_s = end_s
        return words

    def finish(self, seconds: float) -> Words:
        """The phrase is over, and is so long; the rest of its words."""
        if self._pace is not None:
            self._pace.heard(sum(self._weights), seconds)
        return self._give(len(self._words), max(seconds, self._start_s))

    def _give(self, until: int, end_s: float) -> Words:
        """The words before this one, which begins at ``end_s``."""
        weights = self._weights[self._given : until]
        s_per_letter = (end_s - self._start_s) / sum(weights) if weights else 0.0
        words, start_s = [], self._start_s
        for index, weight in enumerate(weights, self._given):
            next_s = start_s + weight * s_per_letter
            exact = self._exact and index == self._given
            last_s = min(self._end_s, next_s) if exact and self._end_s else next_s
            words.append(Word(self._words[index], start_s, last_s - start_s, not exact))
            start_s = next_s
        self._given = max(self._given, until)
        self._exact = False
        return tuple(words)
