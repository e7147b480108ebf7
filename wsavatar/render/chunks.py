"""Chooses chunks to drop as a whole when a device is overloaded.

Before the first frame of a chunk, the features of its audio are computed: some windows, fewer if
the chunk before was rendered, because neighbours share some. The cost is the same for one frame of
the chunk as for all. So an overload must not be spread over all chunks: with enough sessions,
features alone would take all the time. Pure policy, like the scheduler that uses it: no clock, no
threads, no model.

The rule:

* A chunk is *worth its features* if so many of its frames are rendered that a device which always
  worked like this would show at least `EFFICIENCY` of the frames that it shows with whole chunks.
  That number follows from the costs: most frames if features are expensive, few if they are cheap,
  none if they cost nothing.
* A plan takes all waiting chunks, the first to end first, each with its features and the frames
  that make it worth them. If one cannot be finished by its end, a chunk without features is dropped
  with all its frames, until the rest fits or one such chunk is left: a slow device always has
  something to do. The scheduler then drops single frames of the rest, evenly. So a light overload
  costs every session some frames, and a heavy one stops each session's mouth for a second or more
  at a time.
* *Streams take turns.* The chunk dropped is of the stream with most of its speech rendered, not
  counting `TURN_S` of it if the chunk before was rendered too, because it shares features.
* A chunk that has lost most of its frames is dropped before others, one that opens a stream last.

Chunks due at infinity (finished videos) are never dropped, and not counted.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["EFFICIENCY", "TURN_S", "ChunkChoice", "ChunkCost", "WaitingChunk"]

EFFICIENCY = 0.97
"""Minimum share of the frames that whole chunks would give."""
TURN_S = 0.5
"""Lead over other streams with which a stream may continue after its last chunk."""
PRESENT_S = 1.0
"""Time without chunks after which a stream leaves the round of turns."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkCost:
    """The features that a chunk's frames share: blocks ``first`` to ``first + count``."""

    first: int
    count: int

    @property
    def stop(self) -> int:
        return self.first + self.count

    def behind(self, block: int) -> int:
        """The number of blocks from ``block`` on."""
        return self.stop - min(max(self.first, block), self.stop)


@dataclass(slots=True, eq=False)
class _Turns:
    """A stream in the round of turns."""

    made_s: float | None = None
    """Seconds of its speech that were rendered; None until compared with others."""
    known_to: int = 0
    """The block after the last one with features."""
    pushed_to: int = 0
    """The block after the last one of a chunk."""
    ends_s: float = -math.inf
    planned_s: float = 0.0
    """``made_s`` including the current plan."""


@dataclass(slots=True, eq=False)
class WaitingChunk:
    """A chunk with waiting frames."""

    stream: Hashable
    cost: ChunkCost
    turns: _Turns
    own: int
    """Blocks that the chunk before does not have."""
    frames: int = 0
    """Its arrival."""
    waiting: int = 0
    made: int = 0
    opens: bool = False
    has_features: bool = False
    begins_s: float = math.inf
    ends_s: float = -math.inf
    features_s: float = 0.0
    """Time of its features, updated in a plan; 0.0 once they were started."""
    worth: int = 0
    """Frames that must be rendered for it to be worth its features."""
    before_s: float = 0.0
    """Speech of its stream that is rendered before it, in a plan."""

    @property
    def span_s(self) -> float:
        return self.ends_s - self.begins_s

    def estimate(self, frame_s: float, window_s: float) -> None:
        """Update ``features_s`` and ``worth``."""
        if self.has_features:
            return
        self.features_s = self.cost.behind(self.turns.known_to) * window_s
        if self.features_s:
            spare_s = (1 - EFFICIENCY) * self.frames * frame_s
            share = EFFICIENCY * self.features_s / (self.own * window_s + spare_s)
            self.worth = math.ceil(min(1.0, share) * self.frames)

    def needed_s(self, frame_s: float) -> float:
        """Device time of its features and of the frames still needed to be worth them."""
        frames = min(self.waiting, max(0, self.worth - self.made))
        return self.features_s + frames * frame_s

    def standing(self) -> tuple[bool, bool, float]:
        """Sort key: the largest is dropped first."""
        goes_on = self.turns.known_to > self.cost.first
        made_s = self.before_s - TURN_S if goes_on else self.before_s
        return not self.opens, 2 * self.waiting < self.worth, made_s


class ChunkChoice:
    """The chunks waiting for one device. Not thread-safe: the scheduler's owner holds a lock."""

    def __init__(self) -> None:
        self._chunks: dict[ChunkCost, WaitingChunk] = {}
        self._turns: dict[Hashable, _Turns] = {}

    def push(
        self, stream: Hashable, cost: ChunkCost, due_s: float, opens: bool
    ) -> WaitingChunk | None:
        """Count a waiting frame of a chunk. None for a frame due at infinity."""
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
        """Count a frame that is rendered, and with the first the features."""
        if not chunk.has_features:
            chunk.has_features = True
            chunk.features_s = 0.0
            chunk.turns.known_to = max(chunk.turns.known_to, chunk.cost.stop)
            chunk.turns.made_s = (chunk.turns.made_s or 0.0) + chunk.span_s
        chunk.made += 1
        self.leave(chunk)

    def leave(self, chunk: WaitingChunk) -> None:
        """Count a frame that no longer waits."""
        chunk.waiting -= 1
        if not chunk.waiting:
            del self._chunks[chunk.cost]

    def plan(self, now_s: float, frame_s: float, window_s: float) -> list[WaitingChunk]:
        """The chunks to drop; their features were not started.

        ``frame_s``: time of a frame at the best rate; ``window_s``: time of an audio window.
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
            while done_s > chunk.ends_s and len(begun) > 1:
                victim = max(begun, key=WaitingChunk.standing)
                begun.remove(victim)
                given_up.append(victim)
                victim.turns.planned_s -= victim.span_s
                done_s -= victim.needed_s(frame_s)
        return given_up

    def _take_turns(self, now_s: float) -> None:
        """Let a new stream start with the least share of the others."""
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
