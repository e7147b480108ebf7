"""Plans an overload: which share of the frames is made, and which chunks are dropped as a whole.

Before the first frame of a chunk, the features of its audio are computed: some windows, fewer if
the chunk before was rendered, because neighbours share some. The cost is the same for one frame of
the chunk as for all. So with enough sessions, features alone would take all the time. Pure policy,
like the scheduler that uses it: no clock, no threads, no model.

The rule:

* *Everyone gets fewer frames.* A plan takes all waiting chunks, the first to end first. Of all of
  them the same share of frames is made: as many as fit beside the features.
* *Down to every fifth.* If not even `LEAST_SHARE` fits, a chunk without features is dropped with
  all its frames, until the rest fits or one such chunk is left: a slow device always has something
  to do.
* *Streams take turns.* The chunk dropped is of the stream with most of its speech rendered, not
  counting `TURN_S` of it if the chunk before was rendered too, because it shares features.
* A chunk that has lost most of its frames is dropped before others, one that opens a stream last.
* *Not before its time.* A chunk is dropped when it begins within `SOON_S`: what the device takes
  may change until then.

Chunks due at infinity (finished videos) are never dropped, and not counted.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

__all__ = [
    "LEAST_SHARE",
    "SOON_S",
    "TURN_S",
    "ChunkChoice",
    "ChunkCost",
    "ChunkPlan",
    "WaitingChunk",
]

LEAST_SHARE = 0.2
"""Fewer frames of a chunk are not worth its features: at 25 a second, a new picture every 0.2 s."""
SOON_S = 0.5
"""What is due later is not given up yet."""
RESERVE_S = 0.25
"""How much sooner than needed all is planned to be done: some batches take longer than others."""
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
    ends_s: float = -math.inf
    planned_s: float = 0.0
    """``made_s`` including the current plan."""


@dataclass(slots=True, eq=False)
class WaitingChunk:
    """A chunk with waiting frames."""

    stream: Hashable
    cost: ChunkCost
    turns: _Turns
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
    before_s: float = 0.0
    """Speech of its stream that is rendered before it, in a plan."""

    @property
    def span_s(self) -> float:
        return self.ends_s - self.begins_s

    @property
    def worth(self) -> int:
        """Frames that must be rendered for it to be worth its features."""
        return math.ceil(LEAST_SHARE * self.frames)

    def needed_s(self, frame_s: float) -> float:
        """Device time of its features and of the frames still needed to be worth them."""
        frames = min(self.waiting, max(0, self.worth - self.made))
        return self.features_s + frames * frame_s

    def standing(self) -> tuple[bool, bool, float]:
        """Sort key: the largest is dropped first."""
        goes_on = self.turns.known_to > self.cost.first
        made_s = self.before_s - TURN_S if goes_on else self.before_s
        return not self.opens, 2 * self.waiting < self.worth, made_s


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """Result of `ChunkChoice.plan`: the share of frames to make, and chunks to drop now."""

    share: float
    given_up: Sequence[WaitingChunk]


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
            chunk = self._chunks[cost] = WaitingChunk(stream, cost, turns)
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

    def plan(self, now_s: float, frame_s: float, window_s: float) -> ChunkPlan:
        """What to make of all that waits.

        ``frame_s``: time of a frame at the best rate; ``window_s``: time of an audio window.
        """
        self._take_turns(now_s)
        if not window_s:
            return ChunkPlan(1.0, ())
        chunks = sorted(self._chunks.values(), key=lambda chunk: chunk.ends_s)
        for chunk in chunks:
            if not chunk.has_features:
                chunk.features_s = chunk.cost.behind(chunk.turns.known_to) * window_s
        unfit = _unfit(chunks, now_s, frame_s)
        share = _share([chunk for chunk in chunks if chunk not in unfit], now_s, frame_s)
        soon = tuple(c for c in chunks if c in unfit and c.begins_s <= now_s + SOON_S)
        return ChunkPlan(min(1.0, max(LEAST_SHARE, share)), soon)

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


def _unfit(chunks: Sequence[WaitingChunk], now_s: float, frame_s: float) -> set[WaitingChunk]:
    """Those whose loss leaves the rest worth their features. ``chunks``: the first to end first.

    Those with features, and one more, are never among them.
    """
    done_s, begun, given_up = now_s, list[WaitingChunk](), set[WaitingChunk]()
    for chunk in chunks:
        done_s += chunk.needed_s(frame_s)
        if not chunk.has_features:
            chunk.before_s = chunk.turns.planned_s
            chunk.turns.planned_s += chunk.span_s
            begun.append(chunk)
        while done_s > chunk.ends_s and len(begun) > 1:
            victim = max(begun, key=WaitingChunk.standing)
            begun.remove(victim)
            given_up.add(victim)
            victim.turns.planned_s -= victim.span_s
            done_s -= victim.needed_s(frame_s)
    return given_up


def _share(chunks: Sequence[WaitingChunk], now_s: float, frame_s: float) -> float:
    """The share of their frames that can be made beside their features, each chunk by its end.

    What fits as a whole is not thinned; a reserve is kept only of what does not.
    """
    share, fits, features_s, frames = math.inf, True, 0.0, 0
    for chunk in chunks:
        features_s += chunk.features_s
        frames += chunk.waiting
        fits &= now_s + features_s + frames * frame_s <= chunk.ends_s
        left_s = max(chunk.ends_s - now_s, SOON_S) - RESERVE_S - features_s
        share = min(share, left_s / max(frames * frame_s, 1e-9))
    return 1.0 if fits else share
