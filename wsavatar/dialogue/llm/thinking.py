"""Leaves out what a model thinks before it answers, where it writes that into its answer. Pure."""

from __future__ import annotations

__all__ = ["Thinking"]

_OPEN, _CLOSE = "<think>", "</think>"


class Thinking:
    """A text that comes in pieces, without ``<think>…</think>`` at its beginning."""

    def __init__(self) -> None:
        self._held = ""
        self._thinks = False
        self._decided = False

    def push(self, delta: str) -> str:
        """More of the text; returns what is to be said of it."""
        if self._decided:
            return delta
        self._held += delta
        if not self._thinks:
            begun = self._held.lstrip()
            if begun.startswith(_OPEN):
                self._thinks = True
            elif _OPEN.startswith(begun[: len(_OPEN)]) and len(begun) < len(_OPEN):
                return ""  # it may still become the mark
            else:
                return self._decide(self._held)
        _, mark, answer = self._held.partition(_CLOSE)
        if mark:
            return self._decide(answer.lstrip())
        self._held = _OPEN + self._held[-len(_CLOSE) :]
        return ""

    def flush(self) -> str:
        """The text is over."""
        return "" if self._decided or self._thinks else self._decide(self._held)

    def _decide(self, text: str) -> str:
        self._decided, self._held = True, ""
        return text
