"""A device on a simulated clock, and the sessions that keep it busy."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from wsavatar.render.chunks import ChunkCost
from wsavatar.render.costs import BatchCosts
from wsavatar.render.scheduler import FrameJob, FrameScheduler


@dataclass(slots=True)
class Streamer:
    """A session that speaks: a chunk of frames as soon as it has heard it.

    A chunk's first frame is due ``slack_s`` later. ``speed``: how many times faster than they are
    shown its frames come. ``frames``: of all that it says; None: it speaks without end.
    """

    name: str
    fps: float
    slack_s: float
    chunk: int = 13
    start_s: float = 0.0
    speed: float = 1.0
    frames: int | None = None
    sent: int = 0

    @property
    def next_s(self) -> float:
        if self.sent == self.frames:
            return math.inf
        return self.start_s + self.sent / self.fps / self.speed

    def speak(self) -> list[FrameJob[int]]:
        first, self.sent = self.sent, self.sent + self.chunk
        if self.frames is not None:
            self.sent = min(self.sent, self.frames)
        begin_s = self.start_s + self.slack_s
        # A frame conditions on positions -4 to 6 around its own, 50 a second, in blocks of five.
        first_position, stop_position = (50 * n / self.fps for n in (first, self.sent - 1))
        block = max(0, int(first_position - 4) // 5)
        cost = ChunkCost(block, int(stop_position + 5) // 5 + 1 - block)
        return [
            FrameJob(self.name, begin_s + n / self.fps, n, opens=n < 4, chunk=cost)
            for n in range(first, self.sent)
        ]


class SimulatedDevice:
    """Makes what a scheduler says, in the time of ``cost_s``: of the next size that it knows.

    ``window_s``: what the features of a block take, once for each block of a stream; a stream's
    last blocks are kept, as `SharedFeatures` does.
    """

    def __init__(
        self,
        queue: FrameScheduler[int],
        cost_s: Mapping[int, float],
        *,
        costs: BatchCosts | None = None,
        noise: float = 0.0,
        window_s: float = 0.0,
        now_s: float = 0.0,
    ) -> None:
        self.queue = queue
        self.now_s = now_s
        self.lateness_s: list[float] = []
        """Of every live frame made: when it was done after its due time."""
        self.chunk_waits_s: list[float] = []
        """Of every chunk whose first frame was made: how long that took after it came."""
        self._cost_s = cost_s
        self._costs = costs or BatchCosts(list(cost_s))
        self._noise = noise
        self._window_s = window_s
        self._known_to: dict[str, int] = {}
        self._chance = random.Random(0)
        self._made: defaultdict[str, list[int]] = defaultdict(list)
        self._lost: defaultdict[str, list[int]] = defaultdict(list)
        self._came_s: dict[tuple[str, int], float] = {}

    def play(self, streamers: Sequence[Streamer], seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            for streamer in streamers:
                while streamer.next_s <= self.now_s:
                    self._came_s[streamer.name, streamer.sent] = streamer.next_s
                    self._lose(self.queue.push(streamer.speak()))
            if len(self.queue):
                self._step()
            else:
                self.now_s = min(end_s, *(streamer.next_s for streamer in streamers))

    def run_until_empty(self) -> None:
        while len(self.queue):
            self._step()

    def made(self, name: str) -> list[int]:
        return self._made[name]

    def lost(self, name: str) -> list[int]:
        """In order of frames."""
        return sorted(self._lost[name])

    def longest_loss(self, name: str) -> int:
        """How many frames in a row the session has lost at worst."""
        longest = run = 0
        lost = set(self._lost[name])
        for number in range(max(lost, default=0) + 1):
            run = run + 1 if number in lost else 0
            longest = max(longest, run)
        return longest

    def longest_still(self, name: str, frames: int) -> int:
        """How many of so many frames in a row were not shown at worst, at the end too."""
        shown = [-1, *self._made[name], frames]
        return max(later - earlier - 1 for earlier, later in pairwise(shown))

    def _step(self) -> None:
        batch = self.queue.next_batch(self.now_s, self._costs, self.queue.max_batch_size)
        self._lose(batch.late)
        if not batch.jobs:
            return
        frames = len(batch.jobs)
        cost_s = self._cost_s[min(size for size in self._cost_s if size >= frames)]
        cost_s *= 1 + self._noise * self._chance.random()
        self.now_s += cost_s + self._encode(batch.jobs)
        self._costs.observe(frames, cost_s)
        for job in batch.jobs:
            name = str(job.stream)
            self._made[name].append(job.work)
            if job.due_s < math.inf:
                self.lateness_s.append(self.now_s - job.due_s)
            if (came_s := self._came_s.get((name, job.work))) is not None:
                self.chunk_waits_s.append(self.now_s - came_s)

    def _encode(self, jobs: Sequence[FrameJob[int]]) -> float:
        """Seconds for the features of chunks that these frames are the first of."""
        windows = 0
        for job in jobs:
            name, cost = str(job.stream), job.chunk
            if cost is None:
                continue
            known_to = self._known_to.get(name, 0)
            windows += max(0, cost.first + cost.count - max(known_to, cost.first))
            self._known_to[name] = max(known_to, cost.first + cost.count)
        if windows and self._window_s:
            self._costs.observe_windows(windows, windows * self._window_s)
        return windows * self._window_s

    def _lose(self, jobs: Sequence[FrameJob[int]]) -> None:
        for job in jobs:
            self._lost[str(job.stream)].append(job.work)
