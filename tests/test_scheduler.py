"""The scheduler's promises, played on a simulated clock."""

from __future__ import annotations

import ast
import math
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from wsavatar.render import scheduler as module
from wsavatar.render.scheduler import DEEP_BATCHES, FrameJob, FrameScheduler

Job = FrameJob


def make(
    batch_size: int = 4,
    max_batch_size: int = 4,
    max_queued_frames: int = 1000,
    lateness_s: float = 0.2,
) -> FrameScheduler[int]:
    return FrameScheduler(
        batch_size=batch_size,
        max_batch_size=max_batch_size,
        max_queued_frames=max_queued_frames,
        lateness_s=lateness_s,
    )


def frames(stream: str, count: int, due_s: float = 10.0, fps: float = 25, first: int = 0):
    return [Job(stream, due_s + i / fps, first + i) for i in range(count)]


def names(jobs) -> list[str]:
    return [f"{job.stream}{job.work}" for job in jobs]


def test_the_most_urgent_frames_of_any_session_come_first() -> None:
    """A batch mixes sessions by due time alone."""
    queue = make()
    queue.push(frames("a", 3, due_s=10.00))
    queue.push(frames("b", 3, due_s=10.01))
    assert names(queue.next_batch(0).jobs) == ["a0", "b0", "a1", "b1"]
    assert names(queue.next_batch(0).jobs) == ["a2", "b2"]
    assert queue.next_batch(0).jobs == ()


def test_a_latecomer_that_is_more_urgent_overtakes() -> None:
    """A session that just began speaking does not wait behind one far ahead of itself."""
    queue = make()
    queue.push(frames("far", 100, due_s=60))
    queue.push(frames("new", 4, due_s=1))
    assert names(queue.next_batch(0).jobs) == ["new0", "new1", "new2", "new3"]


def test_a_batch_never_waits_for_company() -> None:
    """One frame alone is a batch."""
    queue = make()
    queue.push(frames("a", 1))
    assert names(queue.next_batch(0).jobs) == ["a0"]


def test_a_lone_chunk_is_not_a_deep_queue() -> None:
    """The 13 frames of a 0.5 s chunk go at batch 4, so that the first four come first."""
    queue = make(4, 16)
    queue.push(frames("a", 13, due_s=100))
    assert [len(queue.next_batch(0).jobs) for _ in range(4)] == [4, 4, 4, 1]


def test_a_deep_queue_grows_the_batch_while_deadlines_hold() -> None:
    """Many waiting frames, all due far off, go at the greatest batch."""
    queue = make(4, 16)
    queue.push(frames("a", 4 * DEEP_BATCHES, due_s=100))
    assert len(queue.next_batch(0, frame_cost_s=0.02).jobs) == 16


@pytest.mark.parametrize(("slack_s", "size"), [(0.0, 4), (0.09, 4), (0.101, 5), (0.161, 8)])
def test_a_batch_grows_no_further_than_its_first_deadline(slack_s: float, size: int) -> None:
    """At 20 ms a frame, n frames are done n * 20 ms from now: the first is due no sooner."""
    queue = make(4, 8)
    queue.push(frames("a", 40, due_s=5 + slack_s))
    assert len(queue.next_batch(5, frame_cost_s=0.02).jobs) == size


def test_late_frames_are_given_up_before_they_cost_anything() -> None:
    """Past its budget a frame is late; within it, it is still made."""
    queue = make(lateness_s=0.2)
    queue.push(frames("a", 6, due_s=10, fps=10))
    batch = queue.next_batch(10.35)
    assert names(batch.late) == ["a0", "a1"]
    assert names(batch.jobs) == ["a2", "a3", "a4", "a5"]
    assert len(queue) == 0


def test_a_finished_video_is_never_late() -> None:
    """Frames due at infinity wait for ever and still come."""
    queue = make()
    queue.push([Job("film", math.inf, i) for i in range(8)])
    batch = queue.next_batch(1e9)
    assert batch.late == () and len(batch.jobs) == 4


def test_a_finished_video_yields_to_the_living() -> None:
    """Live frames always go before frames that nobody waits for."""
    queue = make()
    queue.push([Job("film", math.inf, i) for i in range(8)])
    queue.push(frames("live", 2))
    assert names(queue.next_batch(0).jobs) == ["live0", "live1", "film0", "film1"]


def test_equally_urgent_streams_take_turns() -> None:
    """Two finished videos share the device frame by frame, whoever came first."""
    queue = make()
    for name in "ab":
        queue.push([Job(name, math.inf, i) for i in range(8)])
    served = Counter(job.stream for _ in range(3) for job in queue.next_batch(0).jobs)
    assert served == {"a": 6, "b": 6}


def test_overload_takes_the_newest_of_the_deepest() -> None:
    """A greedy session pays for itself: what others wait for stays whole."""
    queue = make(max_queued_frames=20)
    queue.push(frames("modest", 4))
    dropped = queue.push(frames("greedy", 30))
    assert len(queue) == 20
    assert {job.stream for job in dropped} == {"greedy"}
    assert sorted(job.work for job in dropped) == list(range(16, 30))


def test_a_late_joiner_is_served_though_the_queue_is_full() -> None:
    """A full queue makes room for a new session at the cost of the greedy one."""
    queue = make(max_queued_frames=20)
    queue.push(frames("greedy", 20))
    dropped = queue.push(frames("new", 4))
    assert {job.stream for job in dropped} == {"greedy"} and len(dropped) == 4


def test_cancel_removes_a_stream_at_once() -> None:
    """After cancel nothing of the stream comes out, and all of it was handed back."""
    queue = make()
    queue.push(frames("a", 5))
    queue.push(frames("b", 2))
    assert names(queue.cancel("a")) == ["a0", "a1", "a2", "a3", "a4"]
    assert queue.cancel("a") == []
    assert len(queue) == 2
    assert names(queue.next_batch(0).jobs) == ["b0", "b1"]


@pytest.mark.parametrize("seed", range(30))
def test_every_frame_comes_out_once_and_in_order(seed: int) -> None:
    """Random sessions, cancels, stalls and overload: nothing is lost, doubled or reordered."""
    chance = random.Random(seed)
    queue = make(chance.randint(1, 6), chance.randint(1, 16), chance.randint(16, 60), 0.2)
    now = 0.0
    pushed: list[tuple[str, int]] = []
    ended: list[tuple[str, int, str]] = []
    made: dict[str, list[int]] = {}
    numbers: Counter[str] = Counter()
    due: dict[str, float] = {}

    def end(jobs, how: str) -> None:
        ended.extend((str(job.stream), job.work, how) for job in jobs)

    for _ in range(300):
        name = chance.choice("abcdef")
        event = chance.random()
        if event < 0.5:
            count = chance.randint(1, 13)
            begin = max(due.get(name, 0.0), now + chance.uniform(-0.1, 0.6))
            jobs = frames(name, count, begin, first=numbers[name])
            numbers[name] += count
            due[name] = begin + count / 25
            pushed += [(name, job.work) for job in jobs]
            end(queue.push(jobs), "overload")
        elif event < 0.55:
            end(queue.cancel(name), "cancelled")
        else:
            batch = queue.next_batch(now, frame_cost_s=chance.uniform(0, 0.05))
            assert len(batch.jobs) <= queue.max_batch_size
            assert all(job.due_s + 0.2 < now for job in batch.late)
            assert all(job.due_s + 0.2 >= now for job in batch.jobs)
            end(batch.late, "late")
            end(batch.jobs, "made")
            for job in batch.jobs:
                made.setdefault(str(job.stream), []).append(job.work)
        assert len(queue) <= queue.max_queued_frames
        now += chance.uniform(0, 0.1)
    while len(queue):
        batch = queue.next_batch(now)
        end(batch.late, "late")
        end(batch.jobs, "made")
    assert Counter((name, work) for name, work, _ in ended) == Counter(pushed)
    assert all(a < b for order in made.values() for a, b in pairwise(order))


@pytest.mark.parametrize("greed", [2, 10])
def test_one_greedy_session_cannot_starve_the_others(greed: int) -> None:
    """On a device that can just serve five sessions, one that sends ever more starves nobody.

    Each live session submits 13 frames every 0.52 s; the greedy one many times that, always
    further ahead of itself. The device makes 130 frames a second, five sessions show 125.
    """
    queue = make(4, 8, max_queued_frames=256)
    now, cost = 0.0, 1 / 130
    lost: Counter[str] = Counter()
    for tick in range(100):
        start = tick * 0.52
        for name in "abcd":
            late = queue.push(frames(name, 13, due_s=start + 0.7))
            lost.update(str(job.stream) for job in late)
        for k in range(greed):
            jobs = frames("greedy", 13, due_s=start * greed + k * 0.52 + 0.7)
            lost.update(str(job.stream) for job in queue.push(jobs))
        now = max(now, start)
        while now < start + 0.52 and len(queue):
            batch = queue.next_batch(now, cost)
            lost.update(str(job.stream) for job in batch.late)
            now += cost * len(batch.jobs)
    assert lost["greedy"] > 0
    assert all(lost[name] == 0 for name in "abcd"), lost


def test_the_policy_is_pure() -> None:
    """No clock, no threads, no asyncio, no torch in the scheduler's imports."""
    tree = ast.parse(Path(module.__file__).read_text("utf-8"))
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [alias.name for alias in node.names]
        )
    }
    assert imported == {"__future__", "heapq", "collections", "dataclasses", "typing"}
