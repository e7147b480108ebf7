"""Text without what no voice can say, cleaned as it grows. Knows nothing of sentences."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["PARAGRAPH", "Cleaner", "has_words", "whole"]

PARAGRAPH = "\n\n"
"""What stands between paragraphs, list items and verses in cleaned text."""

_WRAPPED_CHARS = 60
"""A line this long is taken to be wrapped: its sentence goes on in the next."""

_LIST_MARKS = frozenset("-*+•‣◦–—#>")

# Invisible, and part of the word or the emoji around them: the joiners, and the tags of flags.
_JOINERS = frozenset("\u200c\u200d") | {chr(c) for c in range(0xE0020, 0xE0080)}

# Controls, and what no font has: they may stand between two words.
_BLANK = frozenset({"Cc", "Cs", "Cn", "Co"})


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit of any script.

    Symbols alone ("...", "🙂", "%") are not words: some voices name them, in some languages, and
    others are silent or refuse the request.
    """
    return any(unicodedata.category(c)[0] in "LN" for c in text)


def whole(text: str) -> str:
    """Without halves of characters (lone surrogates), which no message can carry."""
    return _HALVES.sub("", text)


_HALVES = re.compile("[\ud800-\udfff]")


class Cleaner:
    """Cleans a text that comes in pieces; how it is cut into pieces makes no difference.

    White space becomes one blank, or `PARAGRAPH` where lines are apart and not merely wrapped.
    Zero-width joiners stay (emoji, Persian, Indic scripts); soft hyphens, bidi marks and other
    invisible characters go, without a blank in their place.
    """

    def __init__(self) -> None:
        self._blank = False  # white space that waits for what follows it,
        self._lines = 0  # and the line breaks in it
        self._line_chars = 0
        self._begun = False

    def push(self, piece: str) -> str:
        out: list[str] = []
        for c in piece:
            category = unicodedata.category(c)
            if c.isspace() or category in _BLANK:
                self._blank = True
                self._lines += 2 if c == "\u2029" else c in "\n\u2028"
            elif category != "Cf" or c in _JOINERS:
                out.append(self._gap(c) + c)
                self._line_chars += 1
        return "".join(out)

    def _gap(self, following: str) -> str:
        """What stands for the white space before a character."""
        blank, lines, begun = self._blank, self._lines, self._begun
        self._blank, self._lines, self._begun = False, 0, True
        if not blank or not begun:
            return ""
        if not lines:
            self._line_chars += 1
            return " "
        wrapped = self._line_chars >= _WRAPPED_CHARS or following.islower()
        self._line_chars = 0
        return PARAGRAPH if lines > 1 or following in _LIST_MARKS or not wrapped else " "
