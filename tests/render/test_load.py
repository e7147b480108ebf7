"""When the renderer says that it is over its capacity, on a clock that the test moves."""

from __future__ import annotations

import logging

import pytest

from tests.fake_model import FakeModel
from wsavatar.config import RenderSettings
from wsavatar.metrics import Metrics
from wsavatar.render.jobs import DroppedFrame, DropReason
from wsavatar.render.load import BEGIN_S, END_S, Capacity, Load, LoadMeter
from wsavatar.render.pool import FacePool


def play(meter: LoadMeter, since_s: float, seconds: float, made: int, lost: int) -> None:
    """So many frames a second are made and lost, evenly, from ``since_s`` on."""
    total = made + lost
    for n in range(round(seconds * total)):
        now_s = since_s + n / total
        # Bresenham's rule: the lost ones as far apart as can be.
        (meter.lost if (n + 1) * lost // total > n * lost // total else meter.made)(now_s)


def test_a_lasting_overload_is_reported_with_both_rates() -> None:
    """100 frames/s wanted and 60 made for two seconds: over capacity, in these numbers."""
    meter = LoadMeter()
    play(meter, 10, 1.5, made=60, lost=40)
    assert not meter.load(11.5).over
    play(meter, 11.5, 1.5, made=60, lost=40)
    load = meter.load(13)
    assert load.over
    assert load.frames_per_s_wanted == pytest.approx(100, rel=0.06)
    assert load.frames_per_s_made == pytest.approx(60, rel=0.06)


def test_a_moments_stall_is_no_overload() -> None:
    """A second of drops is not reported, whenever the load is read."""
    meter = LoadMeter()
    play(meter, 10, 1, made=0, lost=100)
    for tick in range(50):
        play(meter, 11 + tick / 10, 0.1, made=100, lost=0)
        assert not meter.load(11 + tick / 10).over


def test_a_frame_lost_now_and_then_is_no_overload() -> None:
    """A lasting loss of 2 % is not reported."""
    meter = LoadMeter()
    for second in range(20):
        play(meter, second, 1, made=98, lost=2)
        assert not meter.load(second + 1).over


def test_an_overload_ends_after_a_time_without_losses() -> None:
    """It holds through a pause of four seconds, and is over five seconds after the last loss."""
    meter = LoadMeter()
    play(meter, 0, 3, made=50, lost=50)
    assert meter.load(3).over
    assert meter.load(3 + END_S - 1).over
    play(meter, 7, 1, made=90, lost=10)
    assert meter.load(8 + END_S - 0.5).over
    assert not meter.load(8 + END_S + 0.1).over
    assert meter.load(20) == Load(False, 0, 0)


def test_the_rates_hold_whatever_the_clock_shows() -> None:
    """Clocks begin anywhere: a machine that has been up for years counts as well as a new one."""
    meter = LoadMeter()
    play(meter, 3e8, 4, made=25, lost=0)
    assert meter.load(3e8 + 4).frames_per_s_made == pytest.approx(25, rel=0.06)


def test_callbacks_are_called_once_for_each_change() -> None:
    """Begin and end, each once; none after unsubscribing; a faulty callback harms no other."""
    now_s = [0.0]
    capacity = Capacity(lambda: now_s[0])
    told: list[bool] = []

    def faulty(load: Load) -> None:
        raise RuntimeError("its session is gone")

    end_faulty = capacity.on_change(faulty)
    end = capacity.on_change(lambda load: told.append(load.over))
    logging.disable(logging.CRITICAL)
    try:
        for _ in range(100):
            now_s[0] += BEGIN_S / 50
            capacity.lost()
            capacity.check()
    finally:
        logging.disable(logging.NOTSET)
    assert told == [True] and capacity.over
    end_faulty()
    now_s[0] += END_S
    capacity.check()
    capacity.check()
    assert told == [True, False] and not capacity.over
    end()
    for _ in range(100):
        now_s[0] += BEGIN_S / 50
        capacity.lost()
        capacity.check()
    assert told == [True, False]


@pytest.mark.parametrize(
    ("reason", "over"), [("late", 1), ("overload", 1), ("cancelled", 0), ("failed", 0)]
)
def test_only_late_and_overload_drops_are_an_overload(reason: DropReason, over: int) -> None:
    """Of a pool's frames; Prometheus has it as a gauge. Interrupted speech is no overload."""
    now_s = [0.0]
    pool = FacePool([FakeModel()], RenderSettings(), clock=lambda: now_s[0])
    metrics = Metrics()
    metrics.watch_renderer(pool.stats)
    for _ in range(100):
        now_s[0] += BEGIN_S / 50
        pool._count(DroppedFrame(0, 0, 0, reason))
    assert f"wsavatar_renderer_over_capacity {over}.0" in metrics.prometheus().decode()
