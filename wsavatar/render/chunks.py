"""Which chunks to give up whole where a device cannot make all it is asked for.

Before the first of a chunk's frames can be made, the features of its audio must be computed: some
windows, fewer where the chunk before it was made, since neighbours share some. The cost is the same
for one frame of the chunk as for all of them. So an overload may not be spread over all chunks:
with enough sessions, features alone would fill the device. Pure policy, like the scheduler that
asks it: no clock, no threads, no model.

The rule:

* A chunk is *worth its features* where so many of its frames are made that a device which worked
  like this all the time would show at least `EFFICIENCY` of the frames that it shows of whole
  chunks. How many that is follows from what features and frames take: most of them where features
  are dear, few where they are cheap, none where they cost nothing.
* Whenever it is asked, it plays through all chunks that wait, the first to end first, each with
  its features and as many frames as make it worth them. Where one cannot be done by its end, one
  whose features were not begun is given up with all its frames, until the rest fits. The scheduler
  then thins out the frames of what is left, evenly. So a light overload costs every session some
  frames here and there, and a heavy one stills each session's mouth for a second or more at a time.
* *Streams take turns.* The chunk given up is one of the stream that has had most of its speech
  made, not counting `TURN_S` of it where the chunk before was made too: what goes on shares
  features.
* A chunk that has lost most of its frames already goes before others, and one that opens a stream
  goes last.

Chunks due at infinity (finished videos) are never given up, and not counted.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["EFFICIENCY", "TURN_S", "ChunkChoice", "ChunkCost", "WaitingChunk"]

EFFICIENCY = 0.97
"""Share of the frames that whole chunks one after another would give."""
TURN_S = 0.5
"""How much more than others a stream may have had and go on with what it made last."""
PRESENT_S = 1.0
"""A stream none of whose chunks ended later than so long ago has left the round of turns."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkCost:
    """What a chunk's frames share: the features of blocks ``first`` to ``first + count``."""

    first: int
    count: int

    @property
    def stop(self) -> int:
        return self.first + self.count

    def behind(self, block: int) -> int:
        """How many of them are ``block`` or come after it."""
        return self.stop - min(max(self.first, block), self.stop)


@dataclass(slots=True, eq=False)
class _Turns:
    """A stream's place in the round."""

    made_s: float | None = None
    """How much of its speech was made; None until it is compared with the others'."""
    known_to: int = 0
    """The block behind the last whose features were computed."""
    pushed_to: int = 0
    """The block behind the last that a chunk came for."""
    ends_s: float = -math.inf
    planned_s: float = 0.0
    """``made_s`` with what a plan makes of it, so far."""


@dataclass(slots=True, eq=False)
class WaitingChunk:
    """A chunk of which frames wait."""

    stream: Hashable
    cost: ChunkCost
    turns: _Turns
    own: int
    """Blocks that the chunk before it does not touch."""
    frames: int = 0
    """When it came."""
    waiting: int = 0
    made: int = 0
    opens: bool = False
    has_features: bool = False
    begins_s: float = math.inf
    ends_s: float = -math.inf
    features_s: float = 0.0
    """What its features will take, up to date in a plan; 0.0 once they were begun."""
    worth: int = 0
    """How many of its frames must be made to be worth its features."""
    before_s: float = 0.0
    """How much of its stream's speech is made before it, in a plan."""

    @property
    def span_s(self) -> float:
        return self.ends_s - self.begins_s

    def estimate(self, frame_s: float, window_s: float) -> None:
        """Bring ``features_s`` and ``worth`` up to date."""
        if self.has_features:
            return
        self.features_s = self.cost.behind(self.turns.known_to) * window_s
        if self.features_s:
            spare_s = (1 - EFFICIENCY) * self.frames * frame_s
            share = EFFICIENCY * self.features_s / (self.own * window_s + spare_s)
            self.worth = math.ceil(min(1.0, share) * self.frames)

    def needed_s(self, frame_s: float) -> float:
        """Seconds of the device: its features and the frames still to be made to be worth them."""
        frames = min(self.waiting, max(0, self.worth - self.made))
        return self.features_s + frames * frame_s

    def standing(self) -> tuple[bool, bool, float]:
        """Who is given up first: the greatest."""
        goes_on = self.turns.known_to > self.cost.first
        made_s = self.before_s - TURN_S if goes_on else self.before_s
        return not self.opens, 2 * self.waiting < self.worth, made_s


class ChunkChoice:
    """The chunks before one device. Not thread-safe: the scheduler's owner holds a lock."""

    def __init__(self) -> None:
        self._chunks: dict[ChunkCost, WaitingChunk] = {}
        self._turns: dict[Hashable, _Turns] = {}

    def push(
        self, stream: Hashable, cost: ChunkCost, due_s: float, opens: bool
    ) -> WaitingChunk | None:
        """One more frame of a chunk waits. None for a frame due at infinity."""
        if math.isinf(due_s):
            return None
        chunk = self._chunks.get(cost)
        if chunk is None:
            turns = self._turns.setdefault(stream, _Turns())
            own = cost.behind(turns.pushed_to)
            turns.pushed_to = cost.stop
            chunk = self._chunks[cost] = WaitingChunk(stream, cost, turns, own)
        chunk.frames += 1
        chunk.waiting += 1
        chunk.opens |= opens
        chunk.begins_s = min(chunk.begins_s, due_s)
        chunk.ends_s = max(chunk.ends_s, due_s)
        chunk.turns.ends_s = max(chunk.turns.ends_s, due_s)
        return chunk

    def make(self, chunk: WaitingChunk) -> None:
        """One of its frames is made, and with the first its features."""
        if not chunk.has_features:
            chunk.has_features = True
            chunk.features_s = 0.0
            chunk.turns.known_to = max(chunk.turns.known_to, chunk.cost.stop)
            chunk.turns.made_s = (chunk.turns.made_s or 0.0) + chunk.span_s
        chunk.made += 1
        self.leave(chunk)

    def leave(self, chunk: WaitingChunk) -> None:
        """One of its frames waits no more."""
        chunk.waiting -= 1
        if not chunk.waiting:
            del self._chunks[chunk.cost]

    def plan(self, now_s: float, frame_s: float, window_s: float) -> list[WaitingChunk]:
        """The chunks to give up, none of whose features were begun.

        ``frame_s``: what a frame takes at the best pace; ``window_s``: an audio window's features.
        """
        self._take_turns(now_s)
        for chunk in self._chunks.values():
            chunk.estimate(frame_s, window_s)
        if not window_s:
            return []
        done_s, begun, given_up = now_s, list[WaitingChunk](), list[WaitingChunk]()
        for chunk in sorted(self._chunks.values(), key=lambda chunk: chunk.ends_s):
            done_s += chunk.needed_s(frame_s)
            if not chunk.has_features:
                chunk.before_s = chunk.turns.planned_s
                chunk.turns.planned_s += chunk.span_s
                begun.append(chunk)
            while done_s > chunk.ends_s and begun:
                victim = max(begun, key=WaitingChunk.standing)
                begun.remove(victim)
                given_up.append(victim)
                victim.turns.planned_s -= victim.span_s
                done_s -= victim.needed_s(frame_s)
        return given_up

    def _take_turns(self, now_s: float) -> None:
        """Who comes new begins where those stand who have had least."""
        present = [t for t in self._turns.values() if t.ends_s >= now_s - PRESENT_S]
        least_s = min((t.made_s for t in present if t.made_s is not None), default=0.0)
        for turns in present:
            if turns.made_s is None:
                turns.made_s = least_s
            turns.planned_s = turns.made_s
        if len(present) < len(self._turns):
            waiting = {chunk.stream for chunk in self._chunks.values()}
            self._turns = {
                name: turns
                for name, turns in self._turns.items()
                if name in waiting or turns.ends_s >= now_s - PRESENT_S
            }
