"""The renderer alone under more live sessions than it can serve: what it still shows.

Sessions are streams of the server's renderer (`FacePool`), fed in real time with half-second
chunks as a response's are; no network, no clients, no speech recognition, whose own work would
count. What is measured is the policy: how many frames a second it makes at each load.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from wsavatar.bench.renderer import BenchInput, frames_per_s, started_pool
from wsavatar.bench.report import Overload
from wsavatar.config import RenderSettings
from wsavatar.faces.base import FaceModel
from wsavatar.render.jobs import FrameOutcome, RenderedFrame
from wsavatar.render.pool import FacePool

__all__ = ["TIMES", "measure_overload"]

TIMES = (1.5, 2.0, 4.0, 8.0)
"""Loads measured, in multiples of the capacity."""
SLACK_S = 0.6
"""From a complete chunk to when its first frame is due: what a client buffers."""
SETTLE_S = 2.0
"""Not counted: the renderer has not learnt yet what frames take, and queues fill."""


@dataclass(slots=True)
class _Session:
    """One session's frames, as they were delivered."""

    count_from_s: float
    pending: int
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    made: int = 0
    gap: int = 0
    longest_gap: int = 0

    def __call__(self, outcome: FrameOutcome) -> None:
        self.pending -= 1
        if not self.pending:
            self.ended.set()
        if time.monotonic() < self.count_from_s:
            return
        is_made = isinstance(outcome, RenderedFrame)
        self.made += is_made
        self.gap = 0 if is_made else self.gap + 1
        self.longest_gap = max(self.longest_gap, self.gap)


@dataclass(slots=True)
class _Load:
    """What so many sessions got."""

    sessions: list[_Session] = field(default_factory=list)
    seconds: float = 1.0

    @property
    def made_per_s(self) -> float:
        return sum(one.made for one in self.sessions) / self.seconds


def measure_overload(
    model: FaceModel,
    inputs: BenchInput,
    settings: RenderSettings,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Overload, ...]:
    """The best load first, then `TIMES` of it, each for as long as ``inputs`` speak."""
    return asyncio.run(_measure(model, inputs, settings, say))


async def _measure(
    model: FaceModel, inputs: BenchInput, settings: RenderSettings, say: Callable[[str], None]
) -> tuple[Overload, ...]:
    async with started_pool(FacePool([model], settings)) as pool:
        fps = float(inputs.video.fps)
        capacity = max(1, round(await frames_per_s(pool, inputs, inputs.frames) / fps))
        loads = {}
        for sessions in (capacity, capacity + 1):
            say(f"{sessions} sessions")
            loads[sessions] = await _play(pool, inputs, sessions)
        at_best = max(loads, key=lambda sessions: loads[sessions].made_per_s)
        best = loads[at_best].made_per_s
        rows = [_row(1.0, loads[at_best], best)]
        for times in TIMES:
            sessions = max(1, round(times * best / fps))
            say(f"{sessions} sessions")
            rows.append(_row(times, await _play(pool, inputs, sessions), best))
        return tuple(rows)


async def _play(pool: FacePool, inputs: BenchInput, sessions: int) -> _Load:
    fps = float(inputs.video.fps)
    first_s = inputs.chunks[0].frame_count / fps
    start_s = time.monotonic() + 0.1
    load = _Load([_Session(start_s + SETTLE_S, inputs.frames) for _ in range(sessions)])
    async with asyncio.TaskGroup() as tasks:
        for number, session in enumerate(load.sessions):
            phase_s = start_s + number / sessions * first_s
            tasks.create_task(_speak(pool, inputs, phase_s, session), name=f"session {number}")
    load.seconds = inputs.frames / fps - SETTLE_S
    return load


async def _speak(pool: FacePool, inputs: BenchInput, start_s: float, session: _Session) -> None:
    """One response: each chunk is submitted once its audio would be complete."""
    fps = float(inputs.video.fps)
    stream = pool.open_stream(inputs.avatar, inputs.video, 0, 0, session)
    due_from_s = start_s + inputs.chunks[0].frame_count / fps + SLACK_S
    for chunk in inputs.chunks:
        complete_s = start_s + (chunk.first_frame + chunk.frame_count) / fps
        await asyncio.sleep(max(0.0, complete_s - time.monotonic()))
        stream.submit(chunk, due_from_s + chunk.first_frame / fps)
    stream.close()
    await session.ended.wait()


def _row(times: float, load: _Load, best: float) -> Overload:
    each: Sequence[float] = [one.made / load.seconds for one in load.sessions]
    return Overload(
        times,
        len(each),
        round(load.made_per_s, 1),
        round(load.made_per_s / best, 3) if best else 0.0,
        round(min(each), 1),
        round(max(each), 1),
        max(one.longest_gap for one in load.sessions),
    )
