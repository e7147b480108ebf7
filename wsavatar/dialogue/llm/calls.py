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
        self._calls: list[_Call] = []
        self._places: dict[int, int] = {}  # of the newest call with this index
        self.any = False

    def push(self, pieces: Iterable[Any]) -> Iterator[CallDelta]:
        """Pieces as the ``openai`` package has them: ``index``, ``id``, ``function``."""
        for number, piece in enumerate(pieces):
            index = piece.index if isinstance(piece.index, int) else number
            call = self._call(index, piece.id or "")
            if call is None:
                continue
            call.call_id = call.call_id or piece.id or ""
            if piece.function is None:
                continue
            call.name = call.name or piece.function.name or ""
            arguments = (piece.function.arguments or "")[: _MAX_ARGUMENTS - call.size]
            call.size += len(arguments)
            call.held.append(arguments)
            if call is self._calls[0]:
                yield from self._given(call)

    def _call(self, index: int, call_id: str) -> _Call | None:
        """The call that a piece is of. Some servers give every call the index 0, and another id."""
        known = self._calls[self._places[index]] if index in self._places else None
        if known is not None and (not call_id or not known.call_id or call_id == known.call_id):
            return known
        if len(self._calls) >= MAX_CALLS:
            return None
        self._places[index] = len(self._calls)
        self._calls.append(_Call())
        return self._calls[-1]

    def flush(self) -> Iterator[CallDelta]:
        """The answer is over: what is left, call by call."""
        for call in self._calls:
            yield from self._given(call)

    def _given(self, call: _Call) -> Iterator[CallDelta]:
        if not call.name or not call.held:
            return
        call.call_id = call.call_id or new_id("call")
        arguments, call.held = "".join(call.held), []
        self.any = True
        yield CallDelta(call.call_id, call.name, arguments)
