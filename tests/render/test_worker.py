"""One worker by itself: what it learns of its device, and that it posts every frame once."""

from __future__ import annotations

import math
import sys
import threading
from collections import Counter
from typing import Any
from unittest.mock import patch

import cv2
import pytest

from tests.fake_model import FakeDeviceFinisher, FakeModel, chunks, make_avatar
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, RenderedFrame, VideoFormat
from wsavatar.render.memory import is_out_of_memory
from wsavatar.render.scheduler import FrameJob
from wsavatar.render.work import ChunkWork, FrameWork, StreamSpec
from wsavatar.render.worker import FaceWorker


class Clock:
    """Stands still but for what the model and its device take."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class TimedFinisher(FakeDeviceFinisher):
    """A device that takes ``batch_s`` for each batch, one after the other."""

    clock: Clock
    batch_s = 0.1

    def encode(self, works, pictures) -> list[bytes]:
        assert self.gate.wait(30)
        self.clock.now_s += self.batch_s
        return super().encode(works, pictures)


class Bench:
    """A worker on a simulated device, and what it posted."""

    def __init__(self, *, hung_s: float = 60.0, **settings: int) -> None:
        self.clock = Clock()
        self.model = FakeModel("w")
        self.posted: list[FrameOutcome] = []
        self._arrived = threading.Condition()
        with patch("wsavatar.render.worker.make_finisher", TimedFinisher):
            self.worker = FaceWorker(
                "w",
                self.model,
                RenderSettings(**settings),
                self._post,
                finishers=1,
                clock=self.clock,
                hung_s=hung_s,
            )
        self.model.finisher.clock = self.clock
        self.worker.start(lambda error: None)

    def submit(self, *dues_s: float) -> None:
        """The first frames of a chunk, with their due times."""
        spec = StreamSpec(1, make_avatar(), VideoFormat(), 7, 0)
        source = ChunkWork(chunks(1.0, chunk_s=1.0)[0])
        self.worker.submit(
            [FrameJob(1, due_s, FrameWork(spec, source, row)) for row, due_s in enumerate(dues_s)]
        )

    def reasons(self) -> Counter[str]:
        return Counter(o.reason for o in self.posted if isinstance(o, DroppedFrame))

    def wait_for(self, count: int) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.posted) >= count, 30)

    def end(self) -> None:
        self.model.gate.set()
        self.model.finisher.gate.set()
        self.worker.close()
        self.worker.join()

    def _post(self, stream: int, outcome: FrameOutcome) -> None:
        with self._arrived:
            self.posted.append(outcome)
            self._arrived.notify_all()


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.end()


def test_the_cost_of_a_queued_batch_is_its_own_device_time(bench: Bench) -> None:
    """Two batches queued at once, done after 0.1 and 0.2 s, are learnt as 0.1 s each."""
    for pair in range(4):
        bench.model.finisher.gate.clear()
        bench.submit(*8 * [math.inf])
        bench.model.finisher.wait_until_held(2)
        bench.model.finisher.gate.set()
        bench.wait_for(8 * (pair + 1))
    bench.end()
    assert bench.worker.stats()["batch_ms"]["4"] == pytest.approx(100)
    assert bench.worker.stats()["batches_by_size"] == {"4": 8}
    assert bench.worker.stats()["window_ms"] == 0, "on a device features are part of a batch"


def test_the_most_urgent_of_what_failed_goes_first() -> None:
    """Halves of halves are made before what was due later."""
    bench = Bench(batch_size=8, max_batch_size=8)
    bench.model.out_of_memory_next = ["generate", "generate"]
    bench.submit(*8 * [math.inf])
    bench.wait_for(8)
    bench.end()
    assert bench.model.batches[2:] == [[0, 1], [2, 3], [4, 5, 6, 7]]


def test_failed_batches_do_not_change_costs(bench: Bench) -> None:
    """A batch that broke off is no measure of one that runs."""
    bench.model.fail_next = ["encode"]
    bench.submit(*4 * [math.inf])
    bench.wait_for(4)
    bench.end()
    assert bench.worker.stats()["batch_ms"] == {"1": 100, "4": 400}, "known: single frames only"


def test_a_frame_that_could_be_in_time_only_on_an_idle_device_is_dropped(bench: Bench) -> None:
    """What is on the device already counts: behind it the frame would be late.

    A batch takes 0.1 s, and one is on the device; the frame is due in 0.15 s.
    """
    bench.submit(*4 * [math.inf])
    bench.wait_for(4)
    bench.model.finisher.gate.clear()
    bench.submit(*4 * [math.inf])
    bench.model.finisher.wait_until_held(1)
    bench.submit(bench.clock.now_s + 0.15, math.inf)
    bench.wait_for(5)
    assert isinstance(bench.posted[4], DroppedFrame) and bench.posted[4].reason == "late"
    bench.model.finisher.gate.set()
    bench.wait_for(10)
    assert sum(map(len, bench.model.batches)) == 9


def test_closing_posts_what_fails_on_the_device_meanwhile(bench: Bench) -> None:
    """Each frame is posted once: made, waiting, or failed while the worker was closing."""
    bench.model.finisher.gate.clear()
    bench.submit(*20 * [math.inf])
    bench.model.finisher.wait_until_held(2)
    bench.model.fail_next = ["encode"]
    bench.worker.close()
    bench.wait_for(12)  # what had waited
    bench.end()
    posted = Counter(outcome.frame_index for outcome in bench.posted)
    assert posted == dict.fromkeys(range(20), 1)
    made = [o.frame_index for o in bench.posted if isinstance(o, RenderedFrame)]
    assert made == [4, 5, 6, 7]


# -- when it cannot go on -------------------------------------------------------------------------


def test_a_worker_tells_how_long_its_device_has_been_busy(bench: Bench) -> None:
    """From the start of a batch, or the end of the last one before it; 0 where it has none."""
    assert bench.worker.busy_s() == 0.0
    bench.model.finisher.gate.clear()
    bench.submit(*8 * [math.inf])
    bench.model.finisher.wait_until_held(2)
    bench.clock.now_s += 70
    assert bench.worker.busy_s() == 70
    bench.model.finisher.gate.set()
    bench.wait_for(8)
    bench.end()
    assert bench.worker.busy_s() == 0.0


def test_a_device_that_hangs_is_left_to_itself_at_the_end(caplog) -> None:
    """`join` returns, what was owed is cancelled, once each, and the log says so."""
    bench = Bench(hung_s=0.05)
    bench.model.finisher.gate.clear()
    bench.submit(*20 * [math.inf])
    bench.model.finisher.wait_until_held(2)
    bench.worker.close()
    bench.worker.join()
    assert "abandoned" in caplog.text
    assert bench.reasons() == {"cancelled": 20}
    bench.end()  # the device wakes up: what it made had its outcome
    assert len(bench.posted) == 20


def test_a_device_that_hangs_is_given_up_and_loses_no_frame(bench: Bench, caplog) -> None:
    """After `HUNG_S` without a batch's end: what it had, and all later, fails once."""
    bench.model.finisher.gate.clear()
    bench.submit(*12 * [math.inf])
    bench.model.finisher.wait_until_held(2)
    bench.clock.now_s += 59
    bench.worker.watch()
    assert not bench.worker.problem
    bench.clock.now_s += 2
    bench.worker.watch()
    assert bench.worker.problem in caplog.text and "60 s" in bench.worker.problem
    assert len(bench.worker) == sys.maxsize
    bench.submit(math.inf)
    assert bench.reasons() == {"failed": 13}
    bench.end()  # the device wakes up: what it made had its outcome
    assert len(bench.posted) == 13


def test_what_waited_for_a_device_that_is_given_up_has_failed(bench: Bench) -> None:
    """Also where the worker's thread is the first to drop it."""
    bench.model.finisher.gate.clear()
    bench.submit(*12 * [math.inf])
    bench.model.finisher.wait_until_held(2)
    bench.clock.now_s += 61
    drop, watching = bench.worker._drop_works, threading.current_thread()

    def drop_last(*how: Any) -> None:
        if threading.current_thread() is watching:
            bench.wait_for(4)
        drop(*how)

    with patch.object(bench.worker, "_drop_works", drop_last):
        bench.worker.watch()
    assert bench.reasons() == {"failed": 12}


def test_an_error_of_its_own_ends_a_worker_and_loses_no_frame(bench: Bench, caplog) -> None:
    """Frames on the device, waiting, and submitted later: each fails once; the pool passes over."""
    bench.model.finisher.gate.clear()
    bench.submit(*4 * [math.inf])
    bench.model.finisher.wait_until_held(1)
    with patch.object(bench.worker._queue, "next_batch", side_effect=ArithmeticError):
        bench.submit(*8 * [math.inf])
        bench.wait_for(12)
    assert "error" in bench.worker.problem and len(bench.worker) == sys.maxsize
    bench.submit(math.inf)
    bench.end()
    assert bench.reasons() == {"failed": 13} and len(bench.posted) == 13
    assert "ArithmeticError" in caplog.text


def test_an_avatar_waits_once_to_be_prepared(bench: Bench) -> None:
    """However many streams begin meanwhile; afterwards it may be asked for again."""
    calls: list[str] = []
    at_work, go_on = threading.Event(), threading.Event()

    def prepare(avatar: PreparedAvatar) -> None:
        calls.append(avatar.id)
        at_work.set()
        assert go_on.wait(30)

    bench.model.finisher.prepare = prepare
    avatar = make_avatar()
    for _ in range(100):
        bench.worker.prepare(avatar)
    assert at_work.wait(30)
    go_on.set()
    bench.end()
    assert calls == ["a"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (cv2.error("OpenCV(4.10) error: (-4:Insufficient memory) Failed to allocate"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("a bad frame"), False),
    ],
)
def test_out_of_memory_errors_are_recognised(error, expected: bool) -> None:
    """By its kind or its words, whichever library's they are."""
    assert is_out_of_memory(error) is expected
