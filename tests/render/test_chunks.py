"""What goes in an overload where audio features are dear, played on a simulated clock."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest

from tests.simulated_device import SimulatedDevice, Streamer
from wsavatar.render.chunks import SOON_S, ChunkCost
from wsavatar.render.costs import RECENT, BatchCosts
from wsavatar.render.scheduler import FrameJob, FrameScheduler


@dataclass(frozen=True)
class Processor:
    """Seconds a frame takes, and the features of an audio window: measured on two cores."""

    frame_s: float
    window_s: float

    @property
    def frames_per_s(self) -> float:
        """Of whole chunks one after another: five new windows for 12.5 frames."""
        return 1 / (self.frame_s + self.window_s * 5 / 12.5)


FLOAT32 = Processor(0.0125, 0.0039)
BFLOAT16 = Processor(0.0065, 0.0014)
DEAR = Processor(0.014, 0.0055)
"""Every window on two threads that wait for each other."""
PROCESSORS = [FLOAT32, BFLOAT16, DEAR]
SECONDS = 30


def queue(lateness_s: float = 0.04) -> FrameScheduler[int]:
    return FrameScheduler(
        batch_size=4, max_batch_size=4, max_queued_frames=2048, lateness_s=lateness_s
    )


def play(processor: Processor, sessions: int, noise: float = 0.0) -> SimulatedDevice:
    chance = random.Random(1)
    streamers = [Streamer(str(n), 25, 0.6, start_s=chance.uniform(0, 0.5)) for n in range(sessions)]
    by_size = {1: 1.3 * processor.frame_s, 2: 2.2 * processor.frame_s, 4: 4 * processor.frame_s}
    device = SimulatedDevice(queue(), by_size, window_s=processor.window_s, noise=noise)
    device.play(streamers, SECONDS)
    return device


def shown_per_s(device: SimulatedDevice, sessions: int) -> float:
    return sum(len(device.made(str(n))) for n in range(sessions)) / SECONDS


def talk(processor: Processor, sessions: int) -> tuple[SimulatedDevice, dict[str, int]]:
    """Sessions say sentences of 1 to 6 s with pauses; their frames come faster than shown.

    Returns the device and the number of frames of each sentence.
    """
    chance = random.Random(3)
    sentences = []
    for number in range(sessions):
        start_s = chance.uniform(0, 3)
        while start_s < SECONDS:
            frames = chance.randint(30, 150)
            name = f"{number} at {start_s:.1f} s"
            sentences.append(Streamer(name, 25, 0.7, start_s=start_s, speed=8, frames=frames))
            start_s += frames / 25 + chance.uniform(1, 3)
    by_size = {1: 1.3 * processor.frame_s, 2: 2.2 * processor.frame_s, 4: 4 * processor.frame_s}
    device = SimulatedDevice(queue(), by_size, window_s=processor.window_s, noise=0.3)
    device.play(sentences, 2 * SECONDS)
    return device, {sentence.name: sentence.frames or 0 for sentence in sentences}


@pytest.mark.parametrize("times", [1.5, 2, 3])
@pytest.mark.parametrize("processor", PROCESSORS, ids=["float32", "bfloat16", "dear"])
def test_in_an_overload_every_face_goes_on_moving(processor: Processor, times: float) -> None:
    """Sessions that speak at once get new pictures to the end of every sentence.

    Up to twice the capacity no face stands still for more than 0.3 s, neither in a sentence nor at
    its end, and each sentence has a quarter of its frames. At three times a few do: a tenth of the
    time at most.
    """
    device, sentences = talk(processor, round(1.5 * times * processor.frames_per_s / 25))
    longest = {name: device.longest_still(name, frames) for name, frames in sentences.items()}
    for name, frames in sentences.items():
        assert len(device.made(name)) + len(device.lost(name)) == frames
        if times <= 2:
            assert len(device.made(name)) >= 0.25 * frames
            assert longest[name] <= 7
    still = sum(frames for frames in longest.values() if frames > 7)
    assert still <= 0.1 * sum(sentences.values())


def test_one_live_session_on_a_slow_machine_loses_nothing() -> None:
    """40 frames a second at best, batches that take up to 1.3 times as long, and frames due 0.15 s
    after their sound: all are made."""
    device = SimulatedDevice(queue(), {1: 0.033, 2: 0.055, 4: 0.1}, window_s=0.006, noise=0.3)
    device.play([Streamer("live", 25, 0.15)], SECONDS)
    assert len(device.made("live")) >= 25 * (SECONDS - 1) and not device.lost("live")


@pytest.mark.parametrize("sessions", [6, 9])
def test_all_who_begin_at_once_get_the_same(sessions: int) -> None:
    """Sentences of 3 s that come at the same moment, at 2.1 and 3.2 times the capacity.

    Each gets its share of the frames, spread over the sentence: the longest pause is 0.2 s, also
    at the end.
    """
    names = [str(n) for n in range(sessions)]
    said = [Streamer(name, 25, 1.0, speed=15, frames=75) for name in names]
    device = SimulatedDevice(queue(), {4: 4 * FLOAT32.frame_s}, window_s=FLOAT32.window_s)
    device.play(said, 5)
    made = [len(device.made(name)) for name in names]
    assert max(made) - min(made) <= 4
    assert max(device.longest_still(name, 75) for name in names) <= 5


@pytest.mark.parametrize("times", [1.5, 2, 4, 8])
@pytest.mark.parametrize("processor", PROCESSORS, ids=["float32", "bfloat16", "dear"])
def test_an_overloaded_device_is_used(processor: Processor, times: float) -> None:
    """Live sessions that speak without end: all frames shown are in time, each gets its share.

    At twice the capacity 85 % of the frames of the best load are shown, at eight times 55 %: the
    rest of the time takes the features of more faces. No face stands still for long: up to twice
    the capacity 0.3 s, beyond 5 s.
    """
    at_capacity = round(processor.frames_per_s / 25)
    best = max(shown_per_s(play(processor, n), n) for n in (at_capacity, at_capacity + 1))
    sessions = round(times * best / 25)
    device = play(processor, sessions)
    shown = shown_per_s(device, sessions)
    assert shown >= (0.85 if times <= 2 else 0.55) * best
    assert max(device.lateness_s) <= 0.04 + 1e-9
    each = [len(device.made(str(n))) / SECONDS for n in range(sessions)]
    assert min(each) >= 0.8 * shown / sessions
    longest = max(device.longest_loss(str(n)) for n in range(sessions))
    assert longest <= (7 if times <= 2 else 125)


def test_a_device_whose_pace_varies_is_used_as_well() -> None:
    """Frames take up to 1.5 times as long, at random, at four times the load: as much is shown."""
    best = max(shown_per_s(play(FLOAT32, n, noise=0.5), n) for n in (2, 3))
    assert shown_per_s(play(FLOAT32, 12, noise=0.5), 12) >= 0.6 * best


@pytest.mark.parametrize(("frame_s", "window_s"), [(0.1, 0.06), (0.05, 0.03), (0.05, 0.01)])
def test_a_device_too_slow_for_one_session_is_never_idle(frame_s: float, window_s: float) -> None:
    """Where not even one session's chunk is worth its features, frames are made all the same.

    It shows new pictures at least every 0.8 s.
    """
    device = play(slow := Processor(frame_s, window_s), 1)
    assert shown_per_s(device, 1) >= 0.35 * slow.frames_per_s
    assert device.longest_loss("0") <= 20


@pytest.mark.parametrize("sessions", [1, 3, 6])
def test_a_device_that_did_other_work_gives_up_little_afterwards(sessions: int) -> None:
    """All that is remembered took twenty times as long; sentences of 1.4 s begin at this moment.

    They lose at most four frames in a row, though six sessions are twice what it can do.
    """
    by_size = {1: 1.3 * FLOAT32.frame_s, 2: 2.2 * FLOAT32.frame_s, 4: 4 * FLOAT32.frame_s}
    costs = BatchCosts(list(by_size))
    for _ in range(RECENT):
        costs.observe_windows(1, 20 * FLOAT32.window_s)
        for size, cost_s in by_size.items():
            costs.observe(size, 20 * cost_s)
    device = SimulatedDevice(queue(), by_size, costs=costs, window_s=FLOAT32.window_s)
    said = [Streamer(str(n), 25, 1.0, speed=15, frames=35) for n in range(sessions)]
    device.play(said, 4)
    assert max(device.longest_still(str(n), 35) for n in range(sessions)) <= 4
    assert sum(len(device.made(str(n))) for n in range(sessions)) >= 0.85 * min(35 * sessions, 135)


def test_a_light_overload_stills_no_mouth() -> None:
    """At 1.05 times the capacity single frames are dropped, as if features cost nothing."""
    device = play(FLOAT32, 3)
    assert all(device.longest_loss(str(n)) <= 2 for n in range(3))
    assert any(device.lost(str(n)) for n in range(3))


def learnt(frame_s: float, window_s: float) -> BatchCosts:
    costs = BatchCosts([4])
    costs.observe(4, 4 * frame_s)
    if window_s:
        costs.observe_windows(1, window_s)
    return costs


def chunk(stream: str, due_s: float, first: int = 0, opens: bool = False) -> list[FrameJob[int]]:
    """13 frames, and the features of eight blocks: five more than the chunk before it has."""
    cost = ChunkCost(5 * (first // 13), 8)
    return [
        FrameJob(stream, due_s + n / 25, first + n, opens=opens and n < 4, chunk=cost)
        for n in range(13)
    ]


def lost_streams(jobs: FrameScheduler[int], costs: BatchCosts, now_s: float) -> dict[str, int]:
    """How many frames each stream lost, once all that waits was made or lost."""
    lost: dict[str, int] = {}
    while len(jobs):
        batch = jobs.next_batch(now_s, costs, 4)
        now_s += costs.estimate(4)
        for job in batch.late:
            lost[str(job.stream)] = lost.get(str(job.stream), 0) + 1
    return lost


def test_a_chunk_is_dropped_before_its_features_are_computed() -> None:
    """Of two chunks due together, with time for one: one goes whole, the other is made."""
    jobs = queue(lateness_s=0.0)
    jobs.push(chunk("a", 10.3))
    jobs.push(chunk("b", 10.3))
    batch = jobs.next_batch(10, learnt(0.05, 0.04), 4)
    assert len(batch.late) >= 13
    assert {job.stream for job in batch.jobs} == {"a"} or {job.stream for job in batch.jobs} == {
        "b"
    }


def test_a_chunk_far_ahead_is_not_dropped_yet() -> None:
    """The same two chunks, due in more than `SOON_S`: they wait, and the first frame is made."""
    jobs = queue(lateness_s=0.0)
    jobs.push(chunk("a", 10.1 + SOON_S))
    jobs.push(chunk("b", 10.1 + SOON_S))
    batch = jobs.next_batch(10, learnt(1.0, 0.5), 4)
    assert batch.jobs and batch.late == ()


def test_skipped_frames_at_the_end_of_a_stream_are_dropped_in_the_end() -> None:
    """Others keep the device busy for ever: a sentence is over when its time is over."""
    others = [Streamer(str(n), 25, 0.6, start_s=0.07 * n) for n in range(8)]
    sentence = Streamer("sentence", 25, 0.6, frames=32)
    device = SimulatedDevice(queue(), {4: 4 * FLOAT32.frame_s}, window_s=FLOAT32.window_s)
    device.play([sentence, *others], 32 / 25 + 0.6 + 0.1)
    assert 0 < len(device.made("sentence")) < 20
    assert len(device.made("sentence")) + len(device.lost("sentence")) == 32


def test_where_features_cost_nothing_frames_are_chosen_one_by_one() -> None:
    """The same overload with free features: both streams lose frames, neither all."""
    jobs = queue(lateness_s=0.0)
    jobs.push(chunk("a", 10.3))
    jobs.push(chunk("b", 10.3))
    lost = lost_streams(jobs, learnt(0.05, 0.0), 10)
    assert set(lost) == {"a", "b"} and max(lost.values()) < 13


def test_the_chunk_that_opens_a_stream_goes_last() -> None:
    """A face that begins to move is preferred to one that moves already."""
    jobs = queue(lateness_s=0.0)
    jobs.push(chunk("new", 10.3, opens=True))
    jobs.push(chunk("old", 10.3, first=26))
    batch = jobs.next_batch(10, learnt(0.05, 0.04), 4)
    assert {job.stream for job in batch.jobs} == {"new"}
    assert sum(job.stream == "old" for job in batch.late) == 13


def test_who_comes_late_is_neither_preferred_nor_kept_out() -> None:
    """Four sessions that have long been in overload, and a fifth: from then on all share alike."""
    chance = random.Random(2)
    device = SimulatedDevice(queue(), {4: 4 * FLOAT32.frame_s}, window_s=FLOAT32.window_s)
    first = [Streamer(str(n), 25, 0.6, start_s=chance.uniform(0, 0.5)) for n in range(7)]
    device.play(first, 20)
    before = [len(device.made(str(n))) for n in range(7)]
    late = Streamer("7", 25, 0.6, start_s=20.1)
    device.play([*first, late], 20)
    since = [len(device.made(str(n))) - made for n, made in enumerate([*before, 0])]
    mean = sum(since) / len(since)
    assert all(0.75 * mean <= made <= 1.25 * mean for made in since)


def test_a_finished_video_loses_no_chunk() -> None:
    """Frames due at infinity wait beside an overload, and are all made in the end."""
    jobs = queue()
    jobs.push([FrameJob("film", float("inf"), n, chunk=ChunkCost(0, 8)) for n in range(13)])
    for n in range(6):
        jobs.push(chunk(str(n), 10.3))
    assert "film" not in lost_streams(jobs, learnt(0.03, 0.02), 10)
