"""What the avatar says, and when: mirror, parrot and texts, on a stage that writes it all down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from wsavatar.config import DialogueSettings
from wsavatar.dialogue import registry
from wsavatar.dialogue.base import SPEECH_RATE, Dialogue
from wsavatar.dialogue.mirror import Mirror
from wsavatar.dialogue.parrot import MAX_TURN_S, Parrot, trim_silence
from wsavatar.dialogue.speaker import Speaker
from wsavatar.dialogue.tts import VoiceError
from wsavatar.dialogue.tts.base import Chunks
from wsavatar.media.audio import resample

HEARD_RATE = 16_000


@dataclass
class FakeResponse:
    """Writes down what is said. ``room`` None: never waits; an event: audio waits for it."""

    id: str
    item_id: str | None
    room: asyncio.Event | None = None
    parts: list[np.ndarray] = field(default_factory=list)
    transcript: str = ""
    status: str = "in_progress"
    error: tuple[str, str] | None = None

    @property
    def cancelled(self) -> bool:
        return self.status in ("cancelled", "failed")

    @property
    def said(self) -> np.ndarray:
        return np.concatenate([np.empty(0, np.float32), *self.parts])

    async def audio(self, samples: np.ndarray) -> None:
        assert samples.dtype == np.float32 and samples.ndim == 1
        if self.room is not None and not self.cancelled:
            await self.room.wait()
        if self.status == "in_progress":
            self.parts.append(samples)

    async def text(self, delta: str) -> None:
        if self.status == "in_progress":
            self.transcript += delta

    async def done(self) -> None:
        if self.status == "in_progress":
            self.status = "completed"

    async def fail(self, code: str, message: str) -> None:
        if self.status == "in_progress":
            self.status, self.error = "failed", (code, message)


class FakeStage:
    """A session without a socket: one response at a time, events in the order they came."""

    def __init__(self) -> None:
        self.responses: list[FakeResponse] = []
        self.events: list[tuple[str, Any]] = []
        self.room: asyncio.Event | None = None

    async def respond(self, item_id: str | None = None) -> FakeResponse:
        await self.cancel()
        self.responses.append(FakeResponse(f"resp_{len(self.responses)}", item_id, self.room))
        return self.responses[-1]

    async def speech_started(self, audio_start_ms: int) -> None:
        self.events.append(("started", audio_start_ms))

    async def speech_stopped(self, audio_end_ms: int) -> None:
        self.events.append(("stopped", audio_end_ms))

    async def commit(self) -> str:
        self.events.append(("committed", f"item_{len(self.events)}"))
        return str(self.events[-1][1])

    async def cancel(self) -> None:
        if self.responses and self.responses[-1].status == "in_progress":
            self.responses[-1].status = "cancelled"


class FakeVoice:
    """Says a tenth of a second a character, or what it was told to raise."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.spoken: list[str] = []
        self.closed = 0

    async def speak(self, text: str) -> Chunks:
        try:
            if self.error is not None:
                raise self.error
            self.spoken.append(text)
            for _ in text:
                await asyncio.sleep(0)
                yield np.full(SPEECH_RATE // 10, 0.1, np.float32)
        finally:
            self.closed += 1

    def for_response(self) -> FakeVoice:
        return self


@pytest.fixture
def stage() -> FakeStage:
    return FakeStage()


@pytest.fixture
def voice() -> FakeVoice:
    return FakeVoice()


@pytest.fixture(scope="module")
def speech(samples_dir: Path) -> np.ndarray:
    """60 s of English, 16 kHz."""
    audio, rate = sf.read(samples_dir / "eng.wav", dtype="float32")
    assert rate == HEARD_RATE
    return audio


@pytest.fixture(scope="module")
def sentence(speech: np.ndarray) -> np.ndarray:
    """3 s of speech without a long pause, from its first to its last loud sample."""
    return speech[4 * HEARD_RATE : 7 * HEARD_RATE]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * HEARD_RATE), np.float32)


async def tell(dialogue: Dialogue, audio: np.ndarray, step: int = 1600) -> None:
    for start in range(0, len(audio), step):
        await dialogue.heard(audio[start : start + step])
        await asyncio.sleep(0)


async def until_over(stage: FakeStage, count: int = 1) -> FakeResponse:
    assert len(stage.responses) == count
    await wait_for(lambda: stage.responses[-1].status != "in_progress")
    return stage.responses[-1]


async def wait_for(condition: Callable[[], bool]) -> None:
    """Give the loop turns until it is so; espeak's thread is the only thing outside the loop."""
    for turn in range(20_000):
        if condition():
            return
        await asyncio.sleep(0 if turn < 2000 else 0.001)
    raise AssertionError("it never came to that")


def kinds(stage: FakeStage) -> list[str]:
    return [kind for kind, _ in stage.events]


# -- the registry ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "kind"), [("mirror", Mirror), ("parrot", Parrot)])
async def test_the_modes_there_are(stage: FakeStage, mode: str, kind: type) -> None:
    """`mirror` and `parrot`, each ready to speak with the offline voice."""
    dialogue = registry.create(mode, stage, DialogueSettings(tts="espeak"))
    assert isinstance(dialogue, kind)
    await dialogue.speak("Hello.")
    response = await until_over(stage)
    assert response.status == "completed" and len(response.said) > SPEECH_RATE // 4
    await dialogue.close()


@pytest.mark.parametrize("mode", ["chat", "upstream", ""])
def test_a_mode_that_is_not_there_is_a_clear_error(stage: FakeStage, mode: str) -> None:
    """The error names the modes that work now."""
    with pytest.raises(registry.DialogueError, match="mirror, parrot") as caught:
        registry.create(mode, stage, DialogueSettings())
    assert caught.value.code == "unsupported_mode"


# -- mirror ---------------------------------------------------------------------------------------


async def test_a_mirror_is_silent_in_silence(stage: FakeStage, voice: FakeVoice) -> None:
    """No response, no frames: silence costs nothing."""
    mirror = Mirror(stage, DialogueSettings(), voice)
    await tell(mirror, silence(3))
    await mirror.close()
    assert stage.responses == [] and stage.events == []


@pytest.mark.parametrize("step", [160, 1600, 16_000])
async def test_a_mirror_says_what_it_hears(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray, step: int
) -> None:
    """One response: the microphone's own samples from just before speech on, without a gap."""
    mirror = Mirror(stage, DialogueSettings(), voice)
    audio = np.concatenate([silence(1), sentence, silence(3)])
    await tell(mirror, audio, step)
    (response,) = stage.responses
    assert response.status == "completed" and kinds(stage) == ["started", "stopped", "committed"]
    start, end = (ms * HEARD_RATE // 1000 for _, ms in stage.events[:2])
    assert 0.5 * HEARD_RATE < start < 1.3 * HEARD_RATE and end > 5 * HEARD_RATE
    np.testing.assert_allclose(
        response.said, resample(audio[start:end], HEARD_RATE, SPEECH_RATE), atol=1e-5
    )
    await mirror.close()


async def test_a_mirror_speaks_while_it_hears(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """In the middle of speech, all but a blink of what was heard has been said."""
    mirror = Mirror(stage, DialogueSettings(), voice)
    await tell(mirror, sentence)
    start = stage.events[0][1] / 1000
    said = len(stage.responses[0].said) / SPEECH_RATE
    assert said == pytest.approx(len(sentence) / HEARD_RATE - start, abs=0.05)
    await mirror.close()
    assert stage.responses[0].status == "completed"


async def test_a_short_pause_does_not_end_a_mirrors_response(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """A breath of a second stays within one response, whatever `silence_duration_ms` says."""
    mirror = Mirror(stage, DialogueSettings(vad_silence_ms=200), voice)
    await tell(mirror, np.concatenate([sentence, silence(0.8), sentence, silence(2)]))
    assert len(stage.responses) == 1 and stage.responses[0].status == "completed"
    await mirror.close()


async def test_a_minute_without_turn_detection_is_one_response(
    stage: FakeStage, voice: FakeVoice, speech: np.ndarray
) -> None:
    """From the first sample to the commit, pauses and all: 60 s in, 60 s out, the same samples."""
    mirror = Mirror(stage, DialogueSettings(turn_detection=False), voice)
    await tell(mirror, speech, 8000)
    await mirror.committed("item_1", speech)
    (response,) = stage.responses
    assert response.status == "completed" and len(response.said) == 60 * SPEECH_RATE
    np.testing.assert_allclose(response.said, resample(speech, HEARD_RATE, SPEECH_RATE), atol=1e-5)
    await mirror.close()


async def test_a_cancelled_mirror_is_mute_until_the_next_turn(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Cancelling means stop, not begin anew with the next sample."""
    mirror = Mirror(stage, DialogueSettings(), voice)
    await tell(mirror, sentence[:HEARD_RATE])
    await stage.cancel()
    said = len(stage.responses[0].said)
    await tell(mirror, np.concatenate([sentence[HEARD_RATE:], silence(2)]))
    assert len(stage.responses) == 1 and len(stage.responses[0].said) == said
    await tell(mirror, np.concatenate([sentence, silence(2)]))
    assert [response.status for response in stage.responses] == ["cancelled", "completed"]
    await mirror.close()


async def test_speech_takes_a_mirrors_text_from_its_lips(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Who speaks while a text is said interrupts it, and is mirrored."""
    stage.room = asyncio.Event()
    mirror = Mirror(stage, DialogueSettings(), voice)
    await mirror.speak("A long text.")
    await wait_for(lambda: voice.spoken != [])
    stage.room = None
    await tell(mirror, sentence)
    assert stage.responses[0].status == "cancelled" and len(stage.responses) == 2
    await mirror.close()
    assert voice.closed == 1


# -- parrot ---------------------------------------------------------------------------------------


async def test_a_parrot_says_back_what_it_heard(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Once the turn is over: committed, then said back, the silence around it trimmed."""
    parrot = Parrot(stage, DialogueSettings(), voice)
    await tell(parrot, np.concatenate([silence(1), sentence]))
    assert stage.responses == [] and kinds(stage) == ["started"]
    await tell(parrot, silence(1))
    response = await until_over(stage)
    assert kinds(stage) == ["started", "stopped", "committed"]
    assert response.status == "completed" and response.item_id == stage.events[2][1]
    assert 2.6 < len(response.said) / SPEECH_RATE < 3.6
    said = resample(response.said, SPEECH_RATE, HEARD_RATE)
    match = np.correlate(said, sentence[HEARD_RATE : HEARD_RATE + 4000])
    assert match.max() == pytest.approx(
        np.sum(sentence[HEARD_RATE : HEARD_RATE + 4000] ** 2), rel=0.02
    )
    await parrot.close()


async def test_a_client_that_commits_gets_its_answer_when_it_asks(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Without turn detection nothing is said until `response.create`."""
    parrot = Parrot(stage, DialogueSettings(turn_detection=False), voice)
    await tell(parrot, sentence)
    await parrot.committed("item_7", sentence)
    assert stage.responses == [] and stage.events == []
    await parrot.create_response(None)
    response = await until_over(stage)
    assert response.item_id == "item_7" and response.status == "completed"
    assert len(response.said) == pytest.approx(3 * SPEECH_RATE, abs=0.4 * SPEECH_RATE)
    await parrot.close()


async def test_create_response_false_leaves_the_answer_to_the_client(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """The turn is found and committed; the client asks for the response itself."""
    parrot = Parrot(stage, DialogueSettings(create_response=False), voice)
    await tell(parrot, np.concatenate([sentence, silence(1)]))
    assert kinds(stage)[-1] == "committed" and stage.responses == []
    await parrot.create_response(None)
    assert (await until_over(stage)).item_id == stage.events[-1][1]
    await parrot.close()


async def test_speaking_interrupts_a_parrot(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """The response is cancelled as speech begins, and its task is gone."""
    stage.room = asyncio.Event()  # the first answer never gets through
    parrot = Parrot(stage, DialogueSettings(), voice)
    await tell(parrot, np.concatenate([sentence, silence(1)]))
    assert stage.responses[0].status == "in_progress"
    await tell(parrot, sentence[:HEARD_RATE])
    assert stage.responses[0].status == "cancelled" and stage.responses[0].parts == []
    await parrot.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("say ")]


async def test_interrupt_response_false_lets_a_parrot_finish(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """What is said meanwhile is committed, and not answered."""
    stage.room = asyncio.Event()
    parrot = Parrot(stage, DialogueSettings(interrupt_response=False), voice)
    await tell(parrot, np.concatenate([sentence, silence(1), sentence, silence(1)]))
    assert kinds(stage).count("committed") == 2 and len(stage.responses) == 1
    stage.room.set()
    assert (await until_over(stage)).status == "completed"
    await parrot.close()


async def test_an_endless_turn_is_answered_in_parts(
    stage: FakeStage, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Memory is bounded and nothing is dropped: after a minute the parrot says back that minute."""
    parrot = Parrot(stage, DialogueSettings(), voice)
    await tell(parrot, np.tile(sentence, 22), 8000)
    response = await until_over(stage)
    assert kinds(stage) == ["started", "committed"]
    assert len(response.said) == pytest.approx(MAX_TURN_S * SPEECH_RATE, rel=0.02)
    await parrot.close()


async def test_a_parrot_reads_out_what_was_written(stage: FakeStage, voice: FakeVoice) -> None:
    """A user item in writing is said back in the voice."""
    parrot = Parrot(stage, DialogueSettings(), voice)
    await parrot.create_response("Read this.")
    response = await until_over(stage)
    assert response.transcript.strip() == "Read this." and response.status == "completed"
    await parrot.close()


async def test_a_parrot_that_heard_nothing_says_so(stage: FakeStage, voice: FakeVoice) -> None:
    """`response.create` with nothing to answer is a failed response, not silence."""
    parrot = Parrot(stage, DialogueSettings(), voice)
    await parrot.create_response(None)
    response = await until_over(stage)
    assert response.error is not None and response.error[0] == "nothing_to_answer"
    await parrot.close()


def test_trimming_keeps_the_voice_and_a_margin(sentence: np.ndarray) -> None:
    """0.2 s of silence stay on either side; pure silence stays whole."""
    padded = np.concatenate([silence(2), sentence, silence(2)])
    assert len(sentence) - 3200 <= len(trim_silence(padded)) <= len(sentence) + 2 * 3200 + 640
    assert len(trim_silence(silence(1))) == HEARD_RATE and len(trim_silence(silence(0))) == 0


# -- texts ----------------------------------------------------------------------------------------


async def test_captions_come_before_the_words_they_are_of(
    stage: FakeStage, voice: FakeVoice
) -> None:
    """A text is said phrase by phrase: the first sentence alone, so that speech begins early."""
    speaker = Speaker(stage, voice, max_seconds=60)
    await speaker.say_text("One. Two three.\nFour?")
    response = await until_over(stage)
    assert voice.spoken == ["One. Two three.", "Four?"]
    assert response.transcript.split() == "One. Two three. Four?".split()
    assert len(response.said) == len("One.Two three. Four?") * SPEECH_RATE // 10
    await speaker.stop()


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "empty_text"), (" \x00\u200b\n", "empty_text"), ("a" * 5001, "text_too_long")],
)
async def test_a_text_that_cannot_be_said_fails(
    stage: FakeStage, voice: FakeVoice, text: str, code: str
) -> None:
    """Empty, invisible or endless: an error with a code, and the voice is not asked."""
    speaker = Speaker(stage, voice, max_seconds=60)
    await speaker.say_text(text)
    response = await until_over(stage)
    assert response.error is not None and response.error[0] == code and voice.spoken == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(VoiceError("No network."), "tts_failed"), (RuntimeError("a bug"), "internal_error")],
)
async def test_a_voice_that_fails_fails_the_response(
    stage: FakeStage, error: Exception, code: str
) -> None:
    """The session lives, the client is told; a bug's message stays in the log."""
    speaker = Speaker(stage, FakeVoice(error), max_seconds=60)
    await speaker.say_text("Hello.")
    response = await until_over(stage)
    assert response.error is not None and response.error[0] == code
    assert "a bug" not in response.error[1]
    await speaker.stop()


async def test_a_new_text_takes_the_old_ones_place(stage: FakeStage, voice: FakeVoice) -> None:
    """One thing is said at a time; the old voice is closed before the new one begins."""
    speaker = Speaker(stage, voice, max_seconds=60)
    await speaker.say_text("First.")
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await speaker.say_text("Second.")
    response = await until_over(stage, count=2)
    assert response.transcript.strip() == "Second." and response.status == "completed"
    assert stage.responses[0].status != "in_progress"
    await speaker.stop()


async def test_a_cancelled_text_stops_the_voice(stage: FakeStage, voice: FakeVoice) -> None:
    """After the client's cancel no more is synthesised."""
    speaker = Speaker(stage, voice, max_seconds=60)
    await speaker.say_text("x" * 150)
    await wait_for(lambda: len(stage.responses[0].parts) > 0)
    await stage.cancel()
    await wait_for(lambda: not speaker.busy)
    assert voice.closed == 1 and len(stage.responses[0].parts) < 10
    await speaker.stop()


async def test_stopping_ends_the_response(stage: FakeStage, voice: FakeVoice) -> None:
    """A dialogue that is closed leaves no response hanging and no task behind."""
    stage.room = asyncio.Event()
    speaker = Speaker(stage, voice, max_seconds=60)
    await speaker.say_text("Hello.")
    await asyncio.sleep(0)
    await speaker.stop()
    assert stage.responses[0].status == "completed" and not speaker.busy


async def test_a_response_is_bounded(stage: FakeStage, voice: FakeVoice) -> None:
    """What was said up to the limit stands; then the response fails with a clear code."""
    speaker = Speaker(stage, voice, max_seconds=1)
    await speaker.say_text("x" * 50)
    response = await until_over(stage)
    assert response.error is not None and response.error[0] == "response_too_long"
    assert len(response.said) == SPEECH_RATE
    await speaker.stop()
