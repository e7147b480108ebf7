"""Puts streamed calls of functions in order, each with an id and a name. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from wsavatar.protocol.events import new_id

from .base import CallDelta

__all__ = ["MAX_CALLS", "Calls"]

MAX_CALLS = 32
"""Of one answer; more are left out."""
_MAX_ARGUMENTS = 1_000_000


@dataclass(slots=True)
class _Call:
    call_id: str = ""
    name: str = ""
    held: list[str] = field(default_factory=list)  # arguments that were not given yet
    size: int = 0


class Calls:
    """The calls of one answer, whose pieces may come interleaved.

    Pieces of the first call are given as they come; those of the next when it is complete.
    """

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self.any = False

    def push(self, pieces: Iterable[Any]) -> Iterator[CallDelta]:
        """Pieces as the ``openai`` package has them: ``index``, ``id``, ``function``."""
        for number, piece in enumerate(pieces):
            index = piece.index if isinstance(piece.index, int) else number
            if index not in self._calls and len(self._calls) >= MAX_CALLS:
                continue
            call = self._calls.setdefault(index, _Call())
            call.call_id = call.call_id or piece.id or ""
            if piece.function is None:
                continue
            call.name = call.name or piece.function.name or ""
            arguments = (piece.function.arguments or "")[: _MAX_ARGUMENTS - call.size]
            call.size += len(arguments)
            call.held.append(arguments)
            if call is next(iter(self._calls.values())):
                yield from self._given(call)

    def flush(self) -> Iterator[CallDelta]:
        """The answer is over: what is left, call by call."""
        for call in self._calls.values():
            yield from self._given(call)

    def _given(self, call: _Call) -> Iterator[CallDelta]:
        if not call.name or not call.held:
            return
        call.call_id = call.call_id or new_id("call")
        arguments, call.held = "".join(call.held), []
        self.any = True
        yield CallDelta(call.call_id, call.name, arguments)
