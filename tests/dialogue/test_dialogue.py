"""What the avatar says, and when: mirror, parrot and texts, on a fake session."""

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
from wsavatar.dialogue.base import SPEECH_RATE, Dialogue, DialogueConfig, ResponseRequest
from wsavatar.dialogue.conversation import Conversation, Entry, Recording
from wsavatar.dialogue.live import LiveSpeech
from wsavatar.dialogue.mirror import Mirror
from wsavatar.dialogue.parrot import Parrot, trim_silence
from wsavatar.dialogue.speaker import MakeVoice, Speaker
from wsavatar.dialogue.tts import VoiceError
from wsavatar.dialogue.tts.base import Chunks
from wsavatar.media.audio import resample
from wsavatar.protocol.events import user_item

HEARD_RATE = 16_000


@dataclass
class FakeResponse:
    """Writes down what is said. ``gate`` None: never waits; an event: audio waits for it."""

    id: str
    request: ResponseRequest | None
    rate: int
    gate: asyncio.Event | None = None
    parts: list[np.ndarray] = field(default_factory=list)
    transcript: str = ""
    status: str = "in_progress"
    error: tuple[str, str] | None = None

    @property
    def over(self) -> bool:
        return self.status != "in_progress"

    @property
    def said(self) -> np.ndarray:
        return np.concatenate([np.empty(0, np.float32), *self.parts])

    async def audio(self, samples: np.ndarray) -> None:
        assert samples.dtype == np.float32 and samples.ndim == 1
        if self.gate is not None and not self.over:
            await self.gate.wait()
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


class FakeSession:
    """A session without a socket: one response at a time, events in the order they came.

    ``audible``: the client still plays a response that is over.
    """

    def __init__(self) -> None:
        self.conversation = Conversation()
        self.responses: list[FakeResponse] = []
        self.events: list[tuple[str, Any]] = []
        self.gate: asyncio.Event | None = None
        self.heard_ms = 0
        self.audible = False
        self.interruptions = 0

    @property
    def speaking(self) -> bool:
        return self.audible or any(not response.over for response in self.responses)

    def respond(
        self, request: ResponseRequest | None = None, *, rate: int = SPEECH_RATE
    ) -> FakeResponse:
        self.cancel()
        number = len(self.responses)
        self.responses.append(FakeResponse(f"resp_{number}", request, rate, self.gate))
        return self.responses[-1]

    def interrupt(self) -> None:
        self.interruptions += 1
        self.audible = False
        self.cancel()

    def cancel(self) -> None:
        if self.responses and not self.responses[-1].over:
            self.responses[-1].status = "cancelled"

    def speech_started(self, audio_start_ms: int) -> None:
        self.events.append(("started", audio_start_ms))

    def speech_stopped(self, audio_end_ms: int) -> None:
        self.events.append(("stopped", audio_end_ms))

    def commit(self, audio: Recording | None) -> str:
        item_id = f"item_{len(self.events)}"
        self.events.append(("committed", item_id))
        self.conversation.add(Entry(user_item(item_id), audio))
        return item_id


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
def session() -> FakeSession:
    return FakeSession()


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


def voice_of(voice: FakeVoice) -> MakeVoice:
    return lambda settings: voice


def config(rate: int = HEARD_RATE, **settings: Any) -> DialogueConfig:
    return DialogueConfig(DialogueSettings(**settings), input_rate=rate)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * HEARD_RATE), np.float32)


async def tell(dialogue: Dialogue, audio: np.ndarray, step: int = 1600) -> None:
    for start in range(0, len(audio), step):
        await dialogue.heard(audio[start : start + step])
        await asyncio.sleep(0)


async def until_over(session: FakeSession, count: int = 1) -> FakeResponse:
    assert len(session.responses) == count
    await wait_for(lambda: session.responses[-1].status != "in_progress")
    return session.responses[-1]


async def wait_for(condition: Callable[[], bool]) -> None:
    """Give the loop turns until it is so; espeak's thread is the only thing outside the loop."""
    for turn in range(20_000):
        if condition():
            return
        await asyncio.sleep(0 if turn < 2000 else 0.001)
    raise AssertionError("it never came to that")


def kinds(session: FakeSession) -> list[str]:
    return [kind for kind, _ in session.events]


# -- the registry ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "kind"), [("mirror", Mirror), ("parrot", Parrot)])
async def test_the_modes_there_are(session: FakeSession, mode: str, kind: type) -> None:
    """`mirror` and `parrot`, each ready to speak with the offline voice."""
    dialogue = registry.create(mode, session, config(tts="espeak"))
    assert isinstance(dialogue, kind)
    await dialogue.speak("Hello.")
    response = await until_over(session)
    assert response.status == "completed" and len(response.said) > SPEECH_RATE // 4
    await dialogue.close()


@pytest.mark.parametrize("mode", ["chat", "upstream", ""])
def test_a_mode_that_is_not_there_is_a_clear_error(session: FakeSession, mode: str) -> None:
    """The error names the modes that work now."""
    with pytest.raises(registry.DialogueError, match="mirror, parrot") as caught:
        registry.create(mode, session, config())
    assert caught.value.code == "unsupported_mode"


# -- mirror ---------------------------------------------------------------------------------------


async def test_a_mirror_is_silent_in_silence(session: FakeSession, voice: FakeVoice) -> None:
    """No response, no frames: silence costs nothing."""
    mirror = Mirror(session, config(), voice_of(voice))
    await tell(mirror, silence(3))
    await mirror.close()
    assert session.responses == [] and session.events == []


@pytest.mark.parametrize("step", [160, 1600, 16_000])
async def test_a_mirror_says_what_it_hears(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray, step: int
) -> None:
    """One response: the microphone's own samples from just before speech on, without a gap."""
    mirror = Mirror(session, config(), voice_of(voice))
    audio = np.concatenate([silence(1), sentence, silence(3)])
    await tell(mirror, audio, step)
    (response,) = session.responses
    assert response.status == "completed" and kinds(session) == ["started", "stopped", "committed"]
    start, end = (ms * HEARD_RATE // 1000 for _, ms in session.events[:2])
    assert 0.5 * HEARD_RATE < start < 1.3 * HEARD_RATE and end > 5 * HEARD_RATE
    assert response.rate == HEARD_RATE
    np.testing.assert_array_equal(response.said, audio[start:end])
    await mirror.close()


async def test_a_mirror_speaks_while_it_hears(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """In the middle of speech, all but a blink of what was heard has been said."""
    mirror = Mirror(session, config(), voice_of(voice))
    await tell(mirror, sentence)
    start = session.events[0][1] / 1000
    said = len(session.responses[0].said) / HEARD_RATE
    assert said == pytest.approx(len(sentence) / HEARD_RATE - start, abs=0.05)
    await mirror.close()
    assert session.responses[0].status == "completed"


async def test_a_short_pause_does_not_end_a_mirrors_response(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """A breath of a second stays within one response, whatever `silence_duration_ms` says."""
    mirror = Mirror(session, config(vad_silence_ms=200), voice_of(voice))
    await tell(mirror, np.concatenate([sentence, silence(0.8), sentence, silence(2)]))
    assert len(session.responses) == 1 and session.responses[0].status == "completed"
    await mirror.close()


async def test_a_minute_without_turn_detection_is_one_response(
    session: FakeSession, voice: FakeVoice, speech: np.ndarray
) -> None:
    """From the first sample to the commit, pauses and all: 60 s in, 60 s out, the same samples."""
    mirror = Mirror(session, config(turn_detection=False), voice_of(voice))
    await tell(mirror, speech, 8000)
    await mirror.committed("item_1")
    response = await until_over(session)
    assert response.status == "completed"
    np.testing.assert_array_equal(response.said, speech)
    await mirror.close()


async def test_a_cancelled_mirror_is_mute_until_the_next_turn(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Cancelling means stop, not begin anew with the next sample."""
    mirror = Mirror(session, config(), voice_of(voice))
    await tell(mirror, sentence[:HEARD_RATE])
    session.cancel()
    said = len(session.responses[0].said)
    await tell(mirror, np.concatenate([sentence[HEARD_RATE:], silence(2)]))
    assert len(session.responses) == 1 and len(session.responses[0].said) == said
    await tell(mirror, np.concatenate([sentence, silence(2)]))
    assert [response.status for response in session.responses] == ["cancelled", "completed"]
    await mirror.close()


@pytest.mark.parametrize("how", ["a new rate", "a commit"])
async def test_a_turn_that_goes_on_is_mirrored_to_its_end(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray, how: str
) -> None:
    """In the middle of a turn neither of them breaks what is mirrored: one response, to its end."""
    mirror = Mirror(session, config(), voice_of(voice))
    await tell(mirror, sentence)
    if how == "a new rate":
        await mirror.configure(config(rate=48_000))
        await tell(mirror, resample(np.concatenate([sentence, silence(2)]), 16_000, 48_000), 4800)
    else:
        await mirror.committed(session.commit(None))
        await tell(mirror, np.concatenate([sentence, silence(2)]))
    response = await until_over(session)
    assert response.status == "completed" and response.rate == HEARD_RATE
    started, stopped = (ms for kind, ms in session.events if kind in ("started", "stopped"))
    assert len(response.said) / HEARD_RATE == pytest.approx((stopped - started) / 1000, abs=0.01)
    assert len(response.said) / HEARD_RATE > 6
    await mirror.close()


async def test_without_turns_nothing_but_the_client_ends_a_text(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """A live microphone does not interrupt a text; once it is said, the mirror goes on."""
    session.gate = asyncio.Event()
    mirror = Mirror(session, config(turn_detection=False), voice_of(voice))
    await tell(mirror, sentence)
    await mirror.speak("A text.")
    await tell(mirror, sentence)
    assert session.interruptions == 0 and len(session.responses) == 2
    session.gate.set()
    assert (await until_over(session, count=2)).status == "completed"
    await tell(mirror, sentence)
    assert len(session.responses) == 3
    await mirror.close()


async def test_a_mirror_does_not_wait_for_the_client(
    session: FakeSession, voice: FakeVoice, speech: np.ndarray
) -> None:
    """A client that plays nothing for a minute: the mirror still hears, and then says it all."""
    session.gate = asyncio.Event()
    mirror = Mirror(session, config(turn_detection=False), voice_of(voice))
    async with asyncio.timeout(20):
        await tell(mirror, speech, 1600)
    assert session.responses[0].parts == []
    session.gate.set()
    await mirror.committed("item_1")
    np.testing.assert_array_equal((await until_over(session)).said, speech)
    await mirror.close()


async def test_turns_that_come_faster_than_they_are_said_are_all_said(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """A recording sent at once to a mirror: the second turn goes on in the first one's response."""
    session.gate = asyncio.Event()
    mirror = Mirror(session, config(), voice_of(voice))
    turn = np.concatenate([sentence, silence(2)])
    await tell(mirror, np.concatenate([turn, turn]), 16_000)
    assert kinds(session) == ["started", "stopped", "committed"] * 2
    session.gate.set()
    response = await until_over(session)
    assert response.status == "completed" and len(response.said) > 2 * len(sentence)
    await mirror.close()


async def test_a_long_recording_sent_at_once_is_said_whole(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Four minutes in one turn, faster than they are said: the dialogue waits, nothing is lost."""
    session.gate = asyncio.Event()
    parrot = Parrot(session, config(), voice_of(voice))
    talk = np.concatenate([np.tile(sentence, 80), silence(1)])
    telling = asyncio.create_task(tell(parrot, talk, 16_000))
    await wait_for(lambda: len(session.responses) == 1)
    for _ in range(200):
        await asyncio.sleep(0)
    session.gate.set()
    await telling
    response = await until_over(session)
    assert response.status == "completed"
    assert len(response.said) > 239 * HEARD_RATE
    await parrot.close()


async def test_live_speech_that_nobody_takes_ends() -> None:
    """With the queue full and no progress the rest is dropped, so that nothing waits for ever."""
    live = LiveSpeech(rate=1000, max_seconds=1)
    await live.push(np.zeros(1000, np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("wsavatar.dialogue.live._STALLED_S", 0.01)
        await live.push(np.zeros(10, np.float32))
    assert live.stalled
    await live.push(np.zeros(10, np.float32))  # does not wait


async def test_speech_takes_a_mirrors_text_from_its_lips(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Who speaks while a text is said interrupts it, and is mirrored."""
    session.gate = asyncio.Event()
    mirror = Mirror(session, config(), voice_of(voice))
    await mirror.speak("A long text.")
    await wait_for(lambda: voice.spoken != [])
    session.gate = None
    await tell(mirror, sentence)
    assert session.responses[0].status == "cancelled" and len(session.responses) == 2
    await mirror.close()
    assert voice.closed == 1


# -- parrot ---------------------------------------------------------------------------------------


async def test_a_parrot_says_back_what_it_heard(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Once the turn is over: committed, then said back, the silence around it trimmed."""
    parrot = Parrot(session, config(), voice_of(voice))
    await tell(parrot, np.concatenate([silence(1), sentence]))
    assert session.responses == [] and kinds(session) == ["started"]
    await tell(parrot, silence(1))
    response = await until_over(session)
    assert kinds(session) == ["started", "stopped", "committed"]
    assert response.status == "completed" and response.rate == HEARD_RATE
    assert 2.6 < len(response.said) / HEARD_RATE < 3.6
    assert sentence[HEARD_RATE : HEARD_RATE + 4000].tobytes() in response.said.tobytes()
    await parrot.close()


async def test_a_client_that_commits_gets_its_answer_when_it_asks(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Without turn detection nothing is said until `response.create`."""
    parrot = Parrot(session, config(turn_detection=False), voice_of(voice))
    await tell(parrot, sentence)
    await parrot.committed(session.commit(Recording(sentence, HEARD_RATE)))
    assert session.responses == []
    await parrot.create_response(ResponseRequest())
    response = await until_over(session)
    assert response.status == "completed"
    assert len(response.said) == pytest.approx(3 * HEARD_RATE, abs=0.4 * HEARD_RATE)
    await parrot.close()


async def test_create_response_false_leaves_the_answer_to_the_client(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """The turn is found and committed; the client asks for the response itself."""
    parrot = Parrot(session, config(create_response=False), voice_of(voice))
    await tell(parrot, np.concatenate([sentence, silence(1)]))
    assert kinds(session)[-1] == "committed" and session.responses == []
    await parrot.create_response(ResponseRequest())
    assert (await until_over(session)).status == "completed"
    await parrot.close()


async def test_speaking_interrupts_a_parrot(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """The response is cancelled as speech begins, and its task is gone."""
    session.gate = asyncio.Event()  # the first answer never gets through
    parrot = Parrot(session, config(), voice_of(voice))
    await tell(parrot, np.concatenate([sentence, silence(1)]))
    assert session.responses[0].status == "in_progress"
    await tell(parrot, sentence[:HEARD_RATE])
    assert session.responses[0].status == "cancelled" and session.responses[0].parts == []
    await parrot.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("say ")]


@pytest.mark.parametrize("audible", [False, True])
async def test_a_blip_does_not_cost_the_answer(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray, audible: bool
) -> None:
    """48 ms of voice while the avatar speaks, or is still heard, interrupt nothing."""
    parrot = Parrot(session, config(), voice_of(voice))
    if audible:
        session.audible = True
    else:
        session.gate = asyncio.Event()
        await parrot.speak("A long answer.")
        await wait_for(lambda: voice.spoken != [])
    loud = int(np.argmax(np.abs(sentence)))
    blip = sentence[loud - 384 : loud + 384]
    await tell(parrot, np.concatenate([silence(1), blip, silence(1)]))
    assert session.interruptions == 0 and session.events == []
    await tell(parrot, sentence)
    assert session.interruptions == 1 and kinds(session)[0] == "started"
    await parrot.close()


@pytest.mark.parametrize("hz", [50, 100, 120, 300])
async def test_a_hum_does_not_cost_the_answer(
    session: FakeSession, voice: FakeVoice, hz: int
) -> None:
    """A steady tone is no voice, however long and loud it is."""
    session.audible = True
    parrot = Parrot(session, config(), voice_of(voice))
    t = np.arange(4 * HEARD_RATE) / HEARD_RATE
    for level_db in (-40, -20):
        hum = 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * t)
        await tell(parrot, np.concatenate([silence(1), hum.astype(np.float32), silence(1)]))
    assert session.interruptions == 0
    await parrot.close()


async def test_a_parrot_forgets_what_was_cleared(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """A clear in the middle of a turn: only what comes after it is said back."""
    parrot = Parrot(session, config(), voice_of(voice))
    await tell(parrot, sentence)
    await parrot.cleared()
    assert kinds(session) == ["started", "stopped"]
    await tell(parrot, np.concatenate([sentence[: 2 * HEARD_RATE], silence(1)]))
    response = await until_over(session)
    assert len(response.said) < 2.7 * HEARD_RATE
    await parrot.close()


async def test_a_parrot_goes_on_with_other_settings(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """A new rate in the middle of a turn: the turn is whole, and said back at the new rate."""
    parrot = Parrot(session, config(), voice_of(voice))
    await tell(parrot, sentence)
    await parrot.configure(config(rate=48_000, vad_silence_ms=700))
    await tell(parrot, resample(np.concatenate([sentence, silence(1)]), HEARD_RATE, 48_000), 4800)
    response = await until_over(session)
    assert kinds(session) == ["started", "stopped", "committed"]
    assert response.rate == 48_000
    assert len(response.said) / 48_000 == pytest.approx(6, abs=0.6)
    await parrot.close()


async def test_interrupt_response_false_lets_a_parrot_finish(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """What is said meanwhile is committed, and not answered."""
    session.gate = asyncio.Event()
    parrot = Parrot(session, config(interrupt_response=False), voice_of(voice))
    await tell(parrot, np.concatenate([sentence, silence(1), sentence, silence(1)]))
    assert kinds(session).count("committed") == 2 and len(session.responses) == 1
    session.gate.set()
    assert (await until_over(session)).status == "completed"
    await parrot.close()


async def test_an_endless_turn_is_answered_while_it_goes_on(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """After a minute the answer begins; the rest of the turn belongs to the same answer."""
    parrot = Parrot(session, config(), voice_of(voice))
    talk = np.tile(sentence, 22)
    await tell(parrot, talk, 8000)
    assert kinds(session) == ["started", "stopped", "committed", "started"]
    assert len(session.responses) == 1 and not session.responses[0].over
    await tell(parrot, silence(1))
    response = await until_over(session)
    assert kinds(session)[-2:] == ["stopped", "committed"]
    stopped, started = session.events[1][1], session.events[3][1]
    assert stopped == started
    assert response.status == "completed" and talk.tobytes()[8000:] in response.said.tobytes()
    assert len(session.conversation) == 2
    await parrot.close()


async def test_a_parrot_reads_out_what_was_written(session: FakeSession, voice: FakeVoice) -> None:
    """A user item in writing is said back in the voice."""
    parrot = Parrot(session, config(), voice_of(voice))
    session.conversation.add(Entry(user_item("item_1", text="Read this.")))
    await parrot.create_response(ResponseRequest())
    response = await until_over(session)
    assert response.transcript.strip() == "Read this." and response.status == "completed"
    await parrot.close()


async def test_a_parrot_that_heard_nothing_says_so(session: FakeSession, voice: FakeVoice) -> None:
    """`response.create` with nothing to answer is a failed response, not silence."""
    parrot = Parrot(session, config(), voice_of(voice))
    await parrot.create_response(ResponseRequest())
    response = await until_over(session)
    assert response.error is not None and response.error[0] == "nothing_to_answer"
    await parrot.close()


def test_trimming_keeps_the_voice_and_a_margin(sentence: np.ndarray) -> None:
    """0.2 s of silence stay on either side; pure silence stays whole."""
    padded = np.concatenate([silence(2), sentence, silence(2)])
    trimmed = len(trim_silence(Recording(padded, HEARD_RATE)).samples)
    assert len(sentence) - 3200 <= trimmed <= len(sentence) + 2 * 3200 + 640
    for seconds in (0, 1):
        quiet = Recording(silence(seconds), HEARD_RATE)
        assert trim_silence(quiet) == quiet


# -- texts ----------------------------------------------------------------------------------------


async def test_captions_come_before_the_words_they_are_of(
    session: FakeSession, voice: FakeVoice
) -> None:
    """A text is said phrase by phrase: the first sentence alone, so that speech begins early."""
    speaker = Speaker(session, voice_of(voice), DialogueSettings(max_response_s=60))
    await speaker.say(("One. Two three.\nFour?",))
    response = await until_over(session)
    assert voice.spoken == ["One. Two three.", "Four?"]
    assert response.transcript.split() == "One. Two three. Four?".split()
    assert len(response.said) == len("One.Two three. Four?") * SPEECH_RATE // 10
    await speaker.stop()


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "empty_text"), (" \x00\u200b\n", "empty_text"), ("a" * 5001, "text_too_long")],
)
async def test_a_text_that_cannot_be_said_fails(
    session: FakeSession, voice: FakeVoice, text: str, code: str
) -> None:
    """Empty, invisible or endless: an error with a code, and the voice is not asked."""
    speaker = Speaker(session, voice_of(voice), DialogueSettings(max_response_s=60))
    await speaker.say((text,))
    response = await until_over(session)
    assert response.error is not None and response.error[0] == code and voice.spoken == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(VoiceError("No network."), "tts_failed"), (RuntimeError("a bug"), "internal_error")],
)
async def test_a_voice_that_fails_fails_the_response(
    session: FakeSession, error: Exception, code: str
) -> None:
    """The session lives, the client is told; a bug's message stays in the log."""
    speaker = Speaker(session, lambda _: FakeVoice(error), DialogueSettings(max_response_s=60))
    await speaker.say(("Hello.",))
    response = await until_over(session)
    assert response.error is not None and response.error[0] == code
    assert "a bug" not in response.error[1]
    await speaker.stop()


async def test_a_text_that_cannot_be_said_cancels_what_it_replaces(
    session: FakeSession, voice: FakeVoice
) -> None:
    """What was cut off by it is not reported as completed."""
    session.gate = asyncio.Event()
    speaker = Speaker(session, voice_of(voice), DialogueSettings())
    await speaker.say(("A long text.",))
    await wait_for(lambda: voice.spoken != [])
    await speaker.say(("...",))
    assert [one.status for one in session.responses] == ["cancelled", "failed"]


async def test_texts_and_recordings_are_said_in_their_order(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Items of both kinds in one request: nothing of it is left out."""
    parrot = Parrot(session, config(), voice_of(voice))
    recording = Recording(sentence, HEARD_RATE)
    entries = (
        Entry(user_item("a"), recording),
        Entry(user_item("b", text="And this.")),
        Entry(user_item("c"), recording),
    )
    await parrot.create_response(ResponseRequest(input=entries))
    response = await until_over(session)
    assert response.rate == SPEECH_RATE and voice.spoken == ["And this."]
    seconds = len(response.said) / SPEECH_RATE
    assert seconds == pytest.approx(2 * 3 + len("And this.") / 10, abs=0.8)
    await parrot.close()


async def test_a_new_text_takes_the_old_ones_place(session: FakeSession, voice: FakeVoice) -> None:
    """One thing is said at a time; the old voice is closed before the new one begins."""
    speaker = Speaker(session, voice_of(voice), DialogueSettings(max_response_s=60))
    await speaker.say(("First.",))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await speaker.say(("Second.",))
    response = await until_over(session, count=2)
    assert response.transcript.strip() == "Second." and response.status == "completed"
    assert session.responses[0].status != "in_progress"
    await speaker.stop()


async def test_a_cancelled_text_stops_the_voice(session: FakeSession, voice: FakeVoice) -> None:
    """After the client's cancel no more is synthesised."""
    speaker = Speaker(session, voice_of(voice), DialogueSettings(max_response_s=60))
    await speaker.say(("x" * 150,))
    await wait_for(lambda: len(session.responses[0].parts) > 0)
    session.cancel()
    await wait_for(lambda: not speaker.busy)
    assert voice.closed == 1 and len(session.responses[0].parts) < 10
    await speaker.stop()


async def test_stopping_ends_the_response(session: FakeSession, voice: FakeVoice) -> None:
    """A dialogue that is closed leaves no response hanging and no task behind."""
    session.gate = asyncio.Event()
    speaker = Speaker(session, voice_of(voice), DialogueSettings(max_response_s=60))
    await speaker.say(("Hello.",))
    await asyncio.sleep(0)
    await speaker.stop()
    assert session.responses[0].status == "completed" and not speaker.busy


async def test_a_response_is_bounded(session: FakeSession, voice: FakeVoice) -> None:
    """What was said up to the limit stands; then the response fails with a clear code."""
    speaker = Speaker(session, voice_of(voice), DialogueSettings(max_response_s=1))
    await speaker.say(("x" * 50,))
    response = await until_over(session)
    assert response.error is not None and response.error[0] == "response_too_long"
    assert len(response.said) == SPEECH_RATE
    await speaker.stop()
