"""The text of one response, with the audio position of each piece.

Pure. It gives the text that was heard up to a position of the audio: by the times of its words
where the voice says them, else by the words' lengths between the pieces' ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from wsavatar.dialogue.base import Word

__all__ = ["MAX_CHARS", "Transcript"]

MAX_CHARS = 200_000
MAX_TIMED_WORDS = 50_000
"""As many as the text may have. More are ignored."""

_SECONDS_PER_CHAR = 0.065
"""As voices speak European languages; an ideograph takes three times as long."""

_IDEOGRAPH = r"\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]\s*|[^\s{_IDEOGRAPH}]+\s*")
"""A word with the blanks behind it; where a script has no blanks, one character."""
_SLOW = re.compile(rf"[{_IDEOGRAPH}]")
_LOOK_AHEAD = 8
"""Words of the text that a voice may leave out, or say otherwise ("Dr."), before the next match."""


@dataclass(slots=True)
class _Piece:
    """A text and where its audio starts."""

    start_s: float
    parts: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Transcript:
    """Grows as the response is spoken: `add` a text, then `spoken` for its audio.

    Audio is *spoken* as it is queued for the client and *sent* as the socket takes it.
    """

    def __init__(self) -> None:
        self._pieces: list[_Piece] = []
        self._length = 0
        self._words: list[Word] = []  # with exact times, in order
        self._seconds = 0.0
        self._sent_s = 0.0
        self._finished = False

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self._pieces)

    @property
    def sent_s(self) -> float:
        """Seconds of audio sent so far."""
        return self._sent_s

    def add(self, text: str) -> str:
        """The words of the audio that follows; returns the part that is kept.

        An empty text ends the one before it: the audio that follows has no words.
        """
        text = text[: MAX_CHARS - self._length]
        if not text and not self._pieces:
            return text
        if not self._pieces or self._pieces[-1].start_s != self._seconds:
            self._pieces.append(_Piece(self._seconds))
        self._pieces[-1].parts.append(text)
        self._length += len(text)
        return text

    def timed(self, words: Sequence[Word]) -> None:
        """When words are heard. Estimated times are not better than those that are known here."""
        exact = [word for word in words if not word.estimated]
        self._words += exact[: MAX_TIMED_WORDS - len(self._words)]

    def spoken(self, seconds: float) -> None:
        """So much more audio was queued: of the last text, until the next is added."""
        self._seconds += seconds

    def sent(self, seconds: float) -> None:
        """So much more audio was sent."""
        self._sent_s += seconds

    def finish(self) -> None:
        """No more audio will come."""
        self._finished = True

    def _end_s(self) -> float:
        """Where the last text ends: while its audio still comes, a guess by its length."""
        if self._finished or not self._pieces:
            return self._seconds
        piece = self._pieces[-1]
        text = piece.text
        ideographs = len(_SLOW.findall(text))
        guess_s = (len(text) + 2 * ideographs) * _SECONDS_PER_CHAR
        known_s = self._words[-1].start_s + self._words[-1].duration_s if self._words else 0.0
        return max(self._seconds, piece.start_s + guess_s, known_s)

    def until(self, position_s: float) -> str:
        """The text up to a position: whole pieces, then the words of the piece being spoken."""
        heard = []
        starts = [piece.start_s for piece in self._pieces]
        ends = [*starts[1:], self._end_s()]
        for piece, end_s in zip(self._pieces, ends, strict=False):
            if self._seconds <= piece.start_s or position_s <= piece.start_s:
                continue  # no sound of it yet, or not reached
            if position_s >= end_s:
                heard.append(piece.text)
            else:
                heard.append(self._heard_of(piece.start_s, piece.text, end_s, position_s))
        return "".join(heard).rstrip()

    def _heard_of(self, start_s: float, text: str, end_s: float, position_s: float) -> str:
        """The words of a piece that are heard to their end."""
        times = _times(text, [word for word in self._words if start_s <= word.start_s < end_s])
        if not times:
            return _words(text, (position_s - start_s) / (end_s - start_s))
        heard = [end for until_s, end in times if until_s <= position_s]
        return text[: max(heard, default=0)]


def _words(text: str, share: float) -> str:
    """The complete words within the first ``share`` of the text."""
    limit = share * len(text.rstrip())
    words = [
        match for match in _WORD.finditer(text) if len(match[0].rstrip()) + match.start() <= limit
    ]
    return text[: words[-1].end()] if words else ""


def _times(text: str, words: Sequence[Word]) -> list[tuple[float, int]]:
    """For each word that is found in the text, when it ends and how far the text goes then.

    A voice may say a word otherwise than it is written: what is not found is passed over, and heard
    with the next one that is.
    """
    written = [(_bare(match[0]), match.end()) for match in _WORD.finditer(text)]
    found, place = [], 0
    for word in words:
        said = [bare for bare in map(_bare, _WORD.findall(word.text)) if bare]
        for at in range(place, min(place + _LOOK_AHEAD, len(written))):
            if said and [bare for bare, _ in written[at : at + len(said)]] == said:
                place = at + len(said)
                found.append((word.start_s + word.duration_s, written[place - 1][1]))
                break
    return found


def _bare(word: str) -> str:
    """A word without punctuation and case, as two may be compared."""
    return "".join(filter(str.isalnum, word)).casefold()
