"""The integrations' timeline: voice in, slots of voice and frames out; time is an argument."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from wsavatar.integrations.timeline import (
    COMMIT_AHEAD_S,
    PATIENCE_S,
    SEND_AHEAD_S,
    STALL_S,
    Step,
    Timeline,
)
from wsavatar.protocol.binary import BinaryMessage, MessageType

RATE = 24_000
FPS = 25
SLOT = RATE // FPS
CANCEL = {"type": "response.cancel"}
CLEAR = {"type": "input_audio_buffer.clear"}
COMMIT = {"type": "input_audio_buffer.commit"}


def pcm(seconds: float, first: int = 0) -> bytes:
    """Samples that count up from ``first``, so that each is known."""
    return (np.arange(first, first + int(seconds * RATE)) % 30_000).astype("<i2").tobytes()


class Talk:
    """A timeline, a server that animates what it is sent at once, and a clock."""

    def __init__(self, lead_s: float = 0.0) -> None:
        self.timeline = Timeline(RATE, FPS, lead_s)
        self.timeline.connection_opened()
        self.now_s = 100.0
        self.sent: list[Any] = []
        self.steps: list[Step] = []
        self.reports: list[dict[str, Any]] = []
        self.generation = 0
        self.samples = 0  # of the server's response
        self.frames = 0
        self.open = False
        self.animates = True
        self.keeps_frames = True

    def pump(self) -> None:
        """Send, and let the server answer."""
        for message in self.timeline.outgoing():
            self.sent.append(message)
            if isinstance(message, bytes):
                self.samples += len(message) // 2
                if not self.open:
                    self.begin()
            elif message == COMMIT:
                self.animate(whole=False)
        if self.animates:
            self.animate()

    def begin(self) -> None:
        self.generation += 1
        self.open, self.frames = True, 0
        self.tell("response.created", response=self.response("in_progress"))
        self.tell("session.avatar.switch_to_speaking", generation=self.generation, cycle_index=7)

    def animate(self, *, whole: bool = True) -> None:
        """Frames for all audio so far; without ``whole`` for the last part of one, too."""
        count = self.samples // SLOT if whole else -(-self.samples // SLOT)
        while self.keeps_frames and self.open and self.frames < count:
            self.frame(self.frames)
            self.frames += 1

    def frame(self, index: int) -> None:
        label = f"{self.generation}:{index}".encode()
        box = (0, 0, 8, 8)
        self.timeline.receive(
            BinaryMessage(MessageType.FRAME, 0, self.generation, index, 0, box, label)
        )

    def end(self, status: str = "completed") -> None:
        self.open, self.samples = False, 0
        self.tell("response.done", response=self.response(status))

    def tell(self, kind: str, **fields: Any) -> None:
        self.timeline.receive({"type": kind, **fields})

    def response(self, status: str) -> dict[str, Any]:
        why = {"error": {"message": "no more"}} if status == "failed" else None
        name = f"r{self.generation}"
        return {
            "id": name,
            "generation": self.generation,
            "status": status,
            "status_details": why,
        }

    def play(self, seconds: float) -> list[Step]:
        """Step in real time; returns the new steps."""
        before = len(self.steps)
        for _ in range(round(seconds * FPS)):
            self.pump()
            self.steps.append(self.timeline.step(self.now_s))
            if report := self.timeline.report(self.now_s):
                self.reports.append(report)
            self.now_s += 1 / FPS
        return self.steps[before:]

    def heard(self, steps: list[Step] | None = None) -> bytes:
        content = [one for step in steps or self.steps for one in step.content]
        return b"".join(one for one in content if isinstance(one, bytes))


def frames(steps: list[Step]) -> list[str]:
    return [step.frame.decode() for step in steps if step.frame is not None]


def test_voice_and_frames_are_in_step() -> None:
    """Each slot has 40 ms of the voice, sample for sample, and the frame made of them."""
    talk = Talk()
    talk.timeline.push(pcm(2))
    talk.timeline.end_segment()
    steps = [step for step in talk.play(3) if step.content]
    assert talk.heard() == pcm(2)
    assert [len(step.content[0]) for step in steps] == [2 * SLOT] * 50
    assert frames(steps) == [f"1:{index}" for index in range(50)]
    assert [step.index for step in steps] == list(range(50))
    assert {step.first_cycle for step in steps} == {7}


@pytest.mark.parametrize(("rate", "fps"), [(16_000, 30), (24_000, 60), (48_000, 25), (16_000, 7)])
def test_slots_stay_on_the_frames_grid(rate: int, fps: int) -> None:
    """Where a slot is no whole number of samples, frame k still begins at k / fps."""
    timeline = Timeline(rate, fps)
    timeline.push(bytes(2 * rate * 3))
    timeline.end_segment()
    at, starts = 0, []
    while content := timeline.step(0.0).content:
        starts.append(at)
        at += len(content[0]) // 2
    assert at == 3 * rate and len(starts) == pytest.approx(3 * fps, abs=1)
    assert max(abs(start - k * rate / fps) for k, start in enumerate(starts)) <= len(starts)


def test_the_last_part_of_a_slot_is_heard() -> None:
    """Speech may end within a slot: its last samples come as a shorter one, with their frame."""
    talk = Talk()
    talk.timeline.push(pcm(1.01))
    talk.timeline.end_segment()
    talk.play(2)
    assert talk.heard() == pcm(1.01)
    assert frames(talk.steps)[-1] == "1:25"


def test_speech_waits_for_its_first_frames_and_no_longer() -> None:
    """Without frames the voice begins after a second; with a few it begins at once."""
    talk = Talk()
    talk.keeps_frames = False
    talk.timeline.push(pcm(2))
    steps = talk.play(2)
    first = next(number for number, step in enumerate(steps) if step.content)
    assert first == pytest.approx(PATIENCE_S * FPS, abs=1)
    assert not steps[0].speaking and steps[first].speaking and steps[first].frame is None


def test_voice_never_waits_for_a_late_frame() -> None:
    """A frame that is missing in the middle costs a picture: the voice has no gap."""
    talk = Talk()
    talk.timeline.push(pcm(2))
    talk.play(0.6)
    talk.keeps_frames = False
    playing = talk.timeline._playing()
    assert playing is not None
    playing.frames.clear()
    steps = talk.play(0.4)
    assert all(step.speaking and step.content and step.frame is None for step in steps)
    talk.frame(3)  # long past
    talk.frame(25)
    assert frames(talk.play(0.2)) == ["1:25"]
    talk.play(0.6)
    assert talk.reports[-1]["frames_late"] == 1


def test_speeches_without_a_pause_are_one_response() -> None:
    """The next segment joins the open response; the mark between them stands at its sample."""
    talk = Talk()
    talk.timeline.push(pcm(1.5))
    talk.timeline.mark("first ended")
    talk.timeline.end_segment()
    talk.play(0.3)
    talk.timeline.push(pcm(1.01, 36_000))
    talk.timeline.mark("second ended")
    talk.timeline.end_segment()
    steps = talk.play(4)
    assert talk.generation == 1 and talk.sent.count(COMMIT) == 1
    content = [one for step in talk.steps for one in step.content]
    before = b"".join(one for one in content[: content.index("first ended")])
    assert before == pcm(1.5)
    assert talk.heard() == pcm(1.5) + pcm(1.01, 36_000)
    assert content[-1] == "second ended"
    assert not steps[-1].speaking


def test_the_end_is_committed_shortly_before_it_is_heard() -> None:
    """So that the server completes the last frames, and what follows soon still joins."""
    talk = Talk()
    talk.timeline.push(pcm(3))
    talk.timeline.end_segment()
    talk.play(3 - COMMIT_AHEAD_S - 0.1)
    assert COMMIT not in talk.sent
    talk.play(0.2)
    assert talk.sent[-1] == COMMIT


def test_speech_after_the_commit_waits_until_the_server_is_done() -> None:
    """A new response would end the one in progress, so it is begun after that."""
    talk = Talk()
    talk.timeline.push(pcm(1))
    talk.timeline.end_segment()
    talk.play(0.5)
    talk.timeline.push(pcm(1, 24_000))
    talk.timeline.end_segment()
    talk.play(1)
    assert talk.generation == 1 and talk.heard() == pcm(1)
    talk.end()
    talk.play(2)
    assert talk.generation == 2 and talk.heard() == pcm(2)
    assert frames(talk.steps)[-1] == "2:24"


def test_a_stalled_speech_rests_and_goes_on_in_a_new_response() -> None:
    """Where the voice does not come on, the face rests after half a second."""
    talk = Talk()
    talk.timeline.push(pcm(1))
    steps = talk.play(1 + STALL_S + 0.5)
    assert steps[25].speaking and steps[25].content == ()
    assert not steps[-1].speaking
    assert talk.sent[-1] == COMMIT
    talk.end()
    talk.timeline.push(pcm(1, 24_000))
    talk.timeline.end_segment()
    talk.play(1.5)
    assert talk.heard() == pcm(2)


def test_an_interruption_drops_everything_at_once() -> None:
    """Voice and frames are gone; the server is told; old frames that still come are not shown."""
    talk = Talk()
    talk.timeline.push(pcm(5))
    talk.timeline.mark("said")
    talk.timeline.end_segment()
    talk.play(1)
    assert talk.timeline.interrupt() == ["said"]
    assert talk.timeline.step(talk.now_s) == Step(speaking=False)
    assert talk.timeline.outgoing() == [CANCEL, CLEAR]
    talk.frame(30)
    talk.timeline.push(pcm(1, 1_000))
    talk.timeline.end_segment()
    assert talk.timeline.outgoing() == []  # until the server has forgotten the rest
    talk.end("cancelled")
    assert talk.timeline.outgoing() == []
    talk.tell("input_audio_buffer.cleared")
    steps = talk.play(2)
    assert talk.heard(steps) == pcm(1, 1_000)
    assert frames(steps) == [f"2:{index}" for index in range(25)]


def test_an_interruption_before_the_server_began() -> None:
    """Audio on its way begins a response after the cancel: it is cancelled again."""
    talk = Talk()
    talk.timeline.push(pcm(1))
    talk.timeline.outgoing()
    talk.timeline.interrupt()
    assert talk.timeline.outgoing() == [CANCEL, CLEAR]
    error = {"code": "response_cancel_not_active", "message": ""}
    talk.tell("error", error=error)
    talk.begin()
    talk.tell("input_audio_buffer.cleared")
    assert talk.timeline.outgoing() == [CANCEL]
    talk.timeline.push(pcm(1))
    talk.timeline.end_segment()
    assert talk.timeline.outgoing() == []
    talk.end("cancelled")
    talk.play(2)
    assert talk.heard() == pcm(1) and frames(talk.steps)[0] == "2:0"


def test_without_a_connection_the_voice_goes_on() -> None:
    """A lost server costs frames; once it is back it gets what was not played yet."""
    talk = Talk()
    talk.timeline.push(pcm(4))
    talk.timeline.end_segment()
    talk.play(1)
    talk.timeline.connection_lost()
    talk.open, talk.samples = False, 0
    talk.keeps_frames = False
    steps = talk.play(1)
    assert all(step.content and step.frame is None for step in steps)
    talk.keeps_frames = True
    talk.timeline.connection_opened()
    talk.play(3)
    assert talk.heard() == pcm(4)
    assert frames(talk.steps)[25:] == [f"2:{index}" for index in range(50)]


def test_speech_begins_at_once_without_a_server() -> None:
    """Nobody waits for frames that cannot come."""
    timeline = Timeline(RATE, FPS)
    timeline.push(pcm(1))
    assert timeline.step(0.0).content == (pcm(1)[: 2 * SLOT],)


def test_the_server_has_some_seconds_in_advance() -> None:
    """A minute that is pushed at once is sent as it is played, and never repeated."""
    talk = Talk()
    talk.timeline.push(pcm(60))
    talk.pump()
    assert talk.samples == SEND_AHEAD_S * RATE
    talk.play(3)
    assert talk.samples == pytest.approx((SEND_AHEAD_S + 3) * RATE, abs=SLOT)
    assert max(len(one) for one in talk.sent if isinstance(one, bytes)) <= RATE // 10 * 2


def test_reports_say_what_is_heard() -> None:
    """Twice a second, as far behind as the program's own queue is long, and at the end all."""
    talk = Talk(lead_s=0.2)
    talk.timeline.push(pcm(2))
    talk.timeline.end_segment()
    talk.play(3)
    positions = [report["position_ms"] for report in talk.reports]
    assert positions == sorted(positions) and positions[-1] == 2000
    assert positions[0] == 0 and len(positions) in range(5, 8)
    assert np.diff(positions)[1:3] == pytest.approx(500, abs=45)
    for report in talk.reports[1:4]:
        assert report["frames_shown"] * 40 == pytest.approx(report["position_ms"] + 200, abs=45)
    talk.end()
    talk.play(1)
    assert [report["position_ms"] for report in talk.reports] == positions


def test_a_response_that_fails_costs_its_frames_only() -> None:
    """The voice is heard to its end, and the next speech has frames."""
    talk = Talk()
    talk.timeline.push(pcm(3))
    talk.timeline.end_segment()
    talk.play(1)
    talk.keeps_frames = False
    talk.end("failed")
    talk.play(4)
    assert talk.heard() == pcm(3)
    talk.keeps_frames = True
    talk.timeline.push(pcm(1))
    talk.timeline.end_segment()
    assert len(frames(talk.play(2))) == 25


def test_marks_without_voice_come_at_once() -> None:
    """A mark waits for the voice before it, and for nothing else."""
    talk = Talk()
    talk.timeline.mark("now")
    assert talk.play(0.04)[0].content == ("now",)
    talk.keeps_frames = False
    talk.timeline.mark("begins")
    talk.timeline.push(pcm(1))
    assert talk.play(0.04)[0].content == ("begins",)


def test_half_a_sample_is_refused() -> None:
    """It would shift all that follows."""
    with pytest.raises(ValueError, match="two bytes a sample"):
        Timeline(RATE, FPS).push(b"abc")
