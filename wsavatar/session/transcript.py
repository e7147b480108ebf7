"""The text of one response, with the audio position of each piece.

Pure. It gives the text that was heard up to a position of the audio. Between the marks, words are
assumed to be spoken at a constant rate.
"""

from __future__ import annotations

import re

__all__ = ["MAX_CHARS", "Transcript"]

MAX_CHARS = 200_000

_WORD = re.compile(r"\S+\s*")


class Transcript:
    """A growing transcript: `add` a text, then `spoken` for its audio."""

    def __init__(self) -> None:
        self._pieces: list[tuple[float, str]] = []  # (start in seconds, text)
        self._length = 0
        self._seconds = 0.0

    @property
    def text(self) -> str:
        return "".join(text for _, text in self._pieces)

    @property
    def seconds(self) -> float:
        """Audio sent so far."""
        return self._seconds

    def add(self, text: str) -> str:
        """Add the words of the following audio; returns the part that is kept."""
        text = text[: MAX_CHARS - self._length]
        if text:
            self._pieces.append((self._seconds, text))
            self._length += len(text)
        return text

    def spoken(self, seconds: float) -> None:
        """Count audio that was sent."""
        self._seconds += seconds

    def until(self, position_s: float) -> str:
        """The text up to a position: whole pieces, then the words of the piece being spoken."""
        heard = []
        starts = [start for start, _ in self._pieces]
        ends = [*starts[1:], self._seconds]
        for (start, text), end in zip(self._pieces, ends, strict=False):
            if end <= start or position_s <= start:
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
