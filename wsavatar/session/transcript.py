"""The text of one response, with the audio position of each piece.

Pure. It gives the text that was heard up to a position of the audio. Between the marks, words are
assumed to be spoken at a constant rate.
"""

from __future__ import annotations

import re

__all__ = ["MAX_CHARS", "Transcript"]

MAX_CHARS = 200_000

_SECONDS_PER_CHAR = 0.065
"""As voices speak European languages; an ideograph takes three times as long."""

_IDEOGRAPH = r"\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_IDEOGRAPH}]\s*|[^\s{_IDEOGRAPH}]+\s*")
"""A word with the blanks behind it; where a script has no blanks, one character."""
_SLOW = re.compile(rf"[{_IDEOGRAPH}]")


class Transcript:
    """Grows as the response is spoken: `add` a text, then `spoken` for its audio.

    Audio is *spoken* as it is queued for the client and *sent* as the socket takes it.
    """

    def __init__(self) -> None:
        self._pieces: list[tuple[float, str]] = []  # (start in seconds, text)
        self._length = 0
        self._seconds = 0.0
        self._sent_s = 0.0
        self._finished = False

    @property
    def text(self) -> str:
        return "".join(text for _, text in self._pieces)

    @property
    def sent_s(self) -> float:
        """Seconds of audio sent so far."""
        return self._sent_s

    def add(self, text: str) -> str:
        """The words of the audio that follows; returns the part that is kept.

        An empty text ends the one before it: the audio that follows has no words.
        """
        text = text[: MAX_CHARS - self._length]
        if text or self._pieces:
            self._pieces.append((self._seconds, text))
            self._length += len(text)
        return text

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
        start, text = self._pieces[-1]
        ideographs = len(_SLOW.findall(text))
        guess_s = (len(text) + 2 * ideographs) * _SECONDS_PER_CHAR
        return max(self._seconds, start + guess_s)

    def until(self, position_s: float) -> str:
        """The text up to a position: whole pieces, then the words of the piece being spoken."""
        heard = []
        starts = [start for start, _ in self._pieces]
        ends = [*starts[1:], self._end_s()]
        for (start, text), end in zip(self._pieces, ends, strict=False):
            if self._seconds <= start or position_s <= start:
                continue  # no sound of it yet, or not reached
            if position_s >= end:
                heard.append(text)
            else:
                heard.append(_words(text, (position_s - start) / (end - start)))
        return "".join(heard).rstrip()


def _words(text: str, share: float) -> str:
    """The complete words within the first ``share`` of the text."""
    limit = share * len(text.rstrip())
    words = [
        match for match in _WORD.finditer(text) if len(match[0].rstrip()) + match.start() <= limit
    ]
    return text[: words[-1].end()] if words else ""
