"""One worker by itself: what it learns of its device, and that it posts every frame once."""

from __future__ import annotations

import math
import threading
from collections import Counter
from fractions import Fraction
from unittest.mock import patch

import pytest

from tests.fake_model import FakeDeviceFinisher, FakeModel, chunks, make_avatar
from wsavatar.config import RenderSettings
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, RenderedFrame, VideoFormat
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
        assert self.gate.wait(10)
        self.clock.now_s += self.batch_s
        return super().encode(works, pictures)


class Bench:
    """A worker on a simulated device, and what it posted."""

    def __init__(self, **settings: int) -> None:
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
            )
        self.model.finisher.clock = self.clock
        self.worker.start(lambda error: None)

    def submit(self, *dues_s: float) -> None:
        """The first frames of a chunk, with their due times."""
        spec = StreamSpec(1, make_avatar(), VideoFormat(), 7, 0)
        source = ChunkWork(chunks(1.0, chunk_s=1.0)[0], Fraction(25))
        self.worker.submit(
            [FrameJob(1, due_s, FrameWork(spec, source, row)) for row, due_s in enumerate(dues_s)]
        )

    def wait_for(self, count: int) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.posted) >= count, 10)

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


def test_a_batch_behind_another_costs_what_the_device_spent_on_it(bench: Bench) -> None:
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


def test_the_most_urgent_of_what_failed_goes_first() -> None:
    """Halves of halves are made before what was due later."""
    bench = Bench(batch_size=8, max_batch_size=8)
    bench.model.out_of_memory_next = ["generate", "generate"]
    bench.submit(*8 * [math.inf])
    bench.wait_for(8)
    bench.end()
    assert bench.model.batches[2:] == [[0, 1], [2, 3], [4, 5, 6, 7]]


def test_what_failed_teaches_nothing_of_costs(bench: Bench) -> None:
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
