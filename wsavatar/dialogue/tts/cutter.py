"""A text that grows, cut into phrases while it does. Pure."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from .clean import PARAGRAPH, Cleaner, has_words, whole
from .markdown import Markdown, Piece
from .sentences import Strength, cuts

__all__ = ["MAX_PHRASE_CHARS", "Phrase", "PhraseCutter"]

MAX_PHRASE_CHARS = 200

_LOOK_AHEAD = 40
"""How far behind the longest phrase its end may still be decided."""


_LEAST = (20, 60, 100)
"""The length from which on the first, the second, a later phrase ends at the next sentence end; the
first, so that speech begins early, at the next clause end. In letters; an ideograph, which takes
longer to say, counts as three."""


@dataclass(frozen=True, slots=True)
class Phrase:
    """A piece of a text, as it is shown.

    It ends with a blank, or a line break at a paragraph's end, where the text does; so phrases put
    together are the text without its Markdown. ``silent``: it is not said, as a line of code and
    what has no words.
    """

    text: str
    silent: bool = False


class PhraseCutter:
    """Phrases of a text that comes in pieces: of whole sentences, at most `MAX_PHRASE_CHARS` long.

    How the text is cut into pieces makes no difference. Every letter and digit is in one phrase, in
    order, and every phrase that is said has one. A sentence that is too long is cut at a
    clause, else at a space, else between characters. The blank at a phrase's end is beyond its
    length.
    """

    def __init__(self) -> None:
        self._markdown = Markdown()
        self._cleaner = Cleaner()
        self._text = ""  # cleaned, and not cut yet
        self._count = 0

    def push(self, delta: str) -> list[Phrase]:
        """More of the text; the phrases that end in it."""
        return self._read(self._markdown.push(delta))

    def flush(self) -> list[Phrase]:
        """The text is over: the rest of its phrases. The next push begins a new text."""
        phrases = self._read(self._markdown.flush()) + self._take(final=True)
        self._cleaner, self._text, self._count = Cleaner(), "", 0
        return phrases

    def _read(self, pieces: list[Piece]) -> list[Phrase]:
        phrases: list[Phrase] = []
        for piece in pieces:
            if piece.code:
                for phrase in self._take(final=True):  # the text before it is over
                    phrases.append(Phrase(phrase.text.rstrip() + "\n"))
                self._cleaner = Cleaner()
                phrases.append(Phrase(whole(piece.text), silent=True))
            else:
                self._text += self._cleaner.push(piece.text)
                phrases += self._take(final=False)
        return phrases

    def _take(self, final: bool) -> list[Phrase]:
        phrases = []
        while end := self._end(final):
            text = self._text[:end].replace(PARAGRAPH, " ")
            rest = self._text[end:].lstrip()
            gap = self._text[end : len(self._text) - len(rest)]
            self._text = rest
            text += "\n" if PARAGRAPH in gap else gap[:1]
            if has_words(text):
                phrases.append(Phrase(text))
                self._count += 1
            elif not rest:
                phrases.append(Phrase(text, silent=True))
        return phrases

    def _end(self, final: bool) -> int:
        """Where the next phrase ends in the text; 0: not decided yet, or nothing is left.

        Decided from a window of fixed length, so that it does not matter how much more is there.
        """
        window = self._text[: MAX_PHRASE_CHARS + _LOOK_AHEAD]
        final = final and len(window) == len(self._text)
        full = len(window) == MAX_PHRASE_CHARS + _LOOK_AHEAD
        least = _LEAST[min(self._count, 2)]
        best = Strength.WEAK, 0  # the last of the strongest
        for cut in cuts(window, final=final):
            if cut.at > MAX_PHRASE_CHARS:
                break
            if cut.strength >= Strength.SENTENCE or cut.at >= MAX_PHRASE_CHARS // 3:
                best = max(best, (cut.strength, cut.at))
            if self._suffices(cut.strength, window[: cut.at], least):
                return cut.at
        if final and len(window) <= MAX_PHRASE_CHARS:
            return len(window)
        if not full and not final:
            return 0
        return best[1] or _forced(window)

    def _suffices(self, strength: Strength, phrase: str, least: int) -> bool:
        if strength == Strength.PARAGRAPH:
            return has_words(phrase)
        if strength < (Strength.SENTENCE if self._count else Strength.CLAUSE):
            return False
        return len(phrase) >= least or _weight(phrase) >= least


def _weight(phrase: str) -> int:
    return sum(3 if unicodedata.east_asian_width(c) in "WF" else 1 for c in phrase)


def _forced(window: str) -> int:
    """Where to cut what has no mark: at a space, else between characters."""
    space = window.rfind(" ", MAX_PHRASE_CHARS // 3, MAX_PHRASE_CHARS + 1)
    if space > 0:
        return space
    end = MAX_PHRASE_CHARS
    while end > MAX_PHRASE_CHARS // 2 and _joined(window[end - 1], window[end]):
        end -= 1
    return end


def _joined(before: str, after: str) -> bool:
    """Whether two characters are parts of one: combining marks, emoji sequences."""
    return (
        unicodedata.category(after)[0] == "M"
        or before == "\u200d"
        or after in "\u200c\u200d"
        or "\U0001f3fb" <= after <= "\U0001f3ff"
    )
