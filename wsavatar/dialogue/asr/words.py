"""Words of texts that are read again and again: which of them no longer change. Pure."""

from __future__ import annotations

import re

__all__ = ["Agreement", "continuation"]

_IDEOGRAPH = r"\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]|[^\s{_IDEOGRAPH}]+")
"""A word with its punctuation; where a script has no blanks, one character."""
_LETTERS = re.compile(r"\w(?:.*\w)?", re.DOTALL)


class Agreement:
    """LocalAgreement-2 of Liu, Spanakis and Niehues (Interspeech 2020): words that two successive
    readings have in common, from the beginning on, are final.

    Case and punctuation do not count, since they change with the words that follow: `stable` ends
    with a letter, and the mark behind it comes with the next word.
    """

    def __init__(self) -> None:
        self.stable = ""
        self._before: list[str] = []
        self._agreed = 0

    def add(self, text: str) -> str:
        """The newest reading of all that was said; returns the stable beginning."""
        words = _words(text)
        keys = [key for key, _ in words]
        common = _common(keys, self._before)
        if common > self._agreed:
            start = words[self._agreed - 1][1] if self._agreed else 0
            self.stable += text[start : words[common - 1][1]]
            self._agreed = common
        self._before = keys
        return self.stable


def continuation(sent: str, text: str) -> str:
    """What ``text`` has after the words of ``sent``; empty if it does not begin with them."""
    sent_words, words = _words(sent), _words(text)
    count = len(sent_words)
    if _common([key for key, _ in sent_words], [key for key, _ in words]) < count:
        return ""
    rest = text[words[count - 1][1] if count else 0 :]
    # ``sent`` may end with marks that follow its last word.
    marks = sent[sent_words[-1][1] if count else 0 :]
    return rest.removeprefix(marks)


def _common(one: list[str], other: list[str]) -> int:
    same = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        same += 1
    return same


def _words(text: str) -> list[tuple[str, int]]:
    """Each word without case and marks, and where its last letter ends in the text."""
    found = []
    for word in _WORD.finditer(text):
        letters = _LETTERS.search(word[0])
        if letters is not None:
            found.append((letters[0].casefold(), word.start() + letters.end()))
    return found
