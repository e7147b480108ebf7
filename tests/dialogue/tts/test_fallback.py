"""Several engines in order: where one fails the next one speaks, for those whom it concerns."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from http import HTTPStatus

import numpy as np
import pytest

from tests.dialogue.tts.edge_service import EdgeService, edge_service
from tests.dialogue.tts.spoken import spoken
from wsavatar.dialogue.base import Word
from wsavatar.dialogue.tts import VoiceError
from wsavatar.dialogue.tts.base import (
    VOICE_RATE,
    Chunks,
    Voice,
    VoiceTimeout,
    VoiceUnreachable,
    WordTime,
)
from wsavatar.dialogue.tts.edge import EdgeVoice
from wsavatar.dialogue.tts.fallback import FallbackVoice, Link, ServiceState

TEXT = "One two three."


class FakeEngine:
    """Says a tenth of a second a letter of one level, or fails before or in the middle of it."""

    times_words = True

    def __init__(self, level: float) -> None:
        self.level, self.asked = level, 0
        self.before: VoiceError | None = None
        self.within: VoiceError | None = None
        self.silent = False

    async def speak(self, text: str) -> Chunks:
        self.asked += 1
        if self.before is not None:
            raise self.before
        if self.silent:
            return
        for at, letter in enumerate(text):
            if at == len(text) // 2 and self.within is not None:
                raise self.within
            if letter != " " and (at == 0 or text[at - 1] == " "):
                yield WordTime(at, at / 10)
            yield np.full(VOICE_RATE // 10, self.level, np.float32)


FIRST, SECOND, THIRD = 0.1, 0.2, 0.3


class Sessions:
    """The voices of several sessions, by the same engines, at a time that is set."""

    def __init__(self) -> None:
        self.engines = [FakeEngine(level) for level in (FIRST, SECOND, THIRD)]
        self.states = [ServiceState("first"), ServiceState("second"), ServiceState("third")]
        self.now_s = 0.0

    @property
    def first(self) -> FakeEngine:
        return self.engines[0]

    def voice(self, count: int = 2) -> FallbackVoice:
        links = [
            Link(engine, state) for engine, state in zip(self.engines, self.states, strict=True)
        ]
        return FallbackVoice(links[:count], clock=lambda: self.now_s)


@pytest.fixture
def sessions() -> Sessions:
    return Sessions()


async def said(voice: Voice) -> float:
    """The level of a phrase's first sound: which engine says it."""
    return round(float((await spoken(voice, TEXT))[0]), 3)


async def test_the_first_engine_speaks_where_it_can(sessions: Sessions) -> None:
    """The others are not asked while it answers."""
    assert await said(sessions.voice()) == FIRST and sessions.engines[1].asked == 0


async def test_each_engine_of_the_list_has_its_turn(sessions: Sessions) -> None:
    """Where two fail the third speaks; where all do the error has what each of them said."""
    for engine, problem in zip(sessions.engines, ("No network.", "No model."), strict=False):
        engine.before = VoiceError(problem)
    assert await said(sessions.voice(3)) == THIRD
    with pytest.raises(VoiceError, match=r"No network\. No model\."):
        await spoken(sessions.voice(2))


async def test_an_unreachable_service_is_left_alone_by_all_sessions(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    """One session waits for the failure, not each; the log says so once, and when it is over."""
    sessions.first.before = VoiceUnreachable("Not there.")
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            assert await said(sessions.voice()) == SECOND
        assert sessions.first.asked == 1
        sessions.now_s = 61.0
        assert await said(sessions.voice()) == SECOND and sessions.first.asked == 2
        sessions.first.before, sessions.now_s = None, 122.0
        assert [await said(sessions.voice()) for _ in range(2)] == [FIRST, FIRST]
    assert [record.getMessage() for record in caplog.records] == [
        "Not there. Other voices speak for it.",
        "The voice first can be reached again.",
    ]


async def test_one_response_at_a_time_tries_an_unreachable_service(sessions: Sessions) -> None:
    """While it waits all others use the next engine; given up, it is tried again soon."""
    sessions.first.before = VoiceUnreachable("Not there.")
    await spoken(sessions.voice())
    sessions.now_s = 61.0
    assert sessions.states[0].may_try(sessions.now_s)  # and its response is then interrupted
    sessions.first.before = None
    assert await said(sessions.voice()) == SECOND
    sessions.now_s = 80.0
    assert await said(sessions.voice()) == FIRST


async def test_an_engine_without_another_is_always_tried(sessions: Sessions) -> None:
    """Nobody waits a minute for a service that is back."""
    sessions.first.before = VoiceUnreachable("Not there.")
    with pytest.raises(VoiceUnreachable, match="Not there"):
        await spoken(sessions.voice(1))
    sessions.first.before = None
    assert await said(sessions.voice(1)) == FIRST


async def test_if_none_can_be_reached_all_are_tried(sessions: Sessions) -> None:
    """Again for each response, in their order."""
    for engine in sessions.engines:
        engine.before = VoiceUnreachable("Not there.")
    with pytest.raises(VoiceError):
        await spoken(sessions.voice(3))
    sessions.engines[2].before = None
    assert await said(sessions.voice(3)) == THIRD


async def test_one_text_does_not_change_the_voice_of_the_next(sessions: Sessions) -> None:
    """A text or a voice name that gets no audio is another engine's; all else stays as it was."""
    voice = sessions.voice()
    sessions.first.before = VoiceError("No audio was received.")
    assert await said(voice) == SECOND
    sessions.first.before = None
    assert await said(voice) == FIRST and await said(sessions.voice()) == FIRST


async def test_silence_is_a_failure_of_this_text(sessions: Sessions) -> None:
    """An engine that has nothing to say of a text leaves it to the next; if none has, nothing is
    said, and that is no error."""
    sessions.first.silent = True
    assert await said(sessions.voice()) == SECOND
    assert len(await spoken(sessions.voice(1))) == 0


async def test_a_service_that_sends_nothing_concerns_one_session(sessions: Sessions) -> None:
    """It may be the text that it is slow with: this session does not wait again for a while, no
    other is changed."""
    voice = sessions.voice()
    sessions.first.before = VoiceTimeout("Nothing for 4 s.")
    assert await said(voice) == SECOND
    sessions.first.before = None
    assert await said(voice) == SECOND and await said(sessions.voice()) == FIRST
    sessions.now_s = 61.0
    assert await said(voice) == FIRST


async def test_a_response_keeps_the_voice_that_it_fell_back_to(sessions: Sessions) -> None:
    """The next response has the first engine again."""
    voice = sessions.voice()
    response = voice.for_response()
    sessions.first.before = VoiceError("No audio was received.")
    assert await said(response) == SECOND
    sessions.first.before = None
    assert [await said(response) for _ in range(2)] == [SECOND, SECOND]
    assert [await said(voice.for_response()) for _ in range(2)] == [FIRST, FIRST]


async def test_a_phrase_that_breaks_off_begins_again(sessions: Sessions) -> None:
    """By the next engine, after a pause; no word is given twice, and every word's time is where it
    is heard first. No click: the sound that breaks off fades."""
    sessions.first.within = VoiceUnreachable("Gone.")
    parts = [part async for part in sessions.voice().speak(TEXT)]
    audio = np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    half = int(np.flatnonzero(audio != np.float32(FIRST))[0])
    again = int(np.flatnonzero(audio == np.float32(SECOND))[0])
    assert half == pytest.approx(0.7 * VOICE_RATE, abs=1)
    assert 0.3 < (again - half) / VOICE_RATE < 0.4
    assert len(audio) - again == pytest.approx(len(TEXT) / 10 * VOICE_RATE, abs=1)
    assert np.abs(np.diff(audio[:again])).max() < 0.01
    words = said_words(parts)
    assert [word.text for word in words] == ["One", "two", "three."]
    assert words[0].start_s == 0 and not words[0].estimated
    assert words[1].start_s == pytest.approx(again / VOICE_RATE + 0.4)
    assert words[2].start_s == pytest.approx(again / VOICE_RATE + 0.8)
    sessions.first.within = None
    assert await said(sessions.voice()) == FIRST  # no other response is concerned


async def test_a_last_engine_that_breaks_off_is_an_error(sessions: Sessions) -> None:
    """What was said stands, and the response fails with the reason."""
    sessions.first.within = VoiceUnreachable("Gone.")
    with pytest.raises(VoiceUnreachable, match="Gone"):
        await spoken(sessions.voice(1), TEXT)


def said_words(parts: Sequence[np.ndarray | tuple[Word, ...]]) -> list[Word]:
    return [word for part in parts if isinstance(part, tuple) for word in part]


# -- with the real package of the online voices ---------------------------------------------------


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EdgeService]:
    async with edge_service(monkeypatch) as running:
        yield running


def online(name: str, state: ServiceState, other: FakeEngine, now: list[float]) -> FallbackVoice:
    return FallbackVoice([Link(EdgeVoice(name), state), Link(other)], clock=lambda: now[0])


@pytest.mark.parametrize("name", ["en-US-RetiredNeural", "de-de-KatjaNeural"])
async def test_a_refused_voice_changes_no_other_sessions_voice(
    service: EdgeService, name: str
) -> None:
    """Its session hears the next engine, another one the online voice."""
    state, other = ServiceState(), FakeEngine(SECOND)
    assert await said(online(name, state, other, [0.0])) == SECOND
    assert len(await spoken(online("", state, other, [0.0]))) > VOICE_RATE // 4
    assert other.asked == 1


async def test_a_service_that_comes_back_is_used_again(service: EdgeService) -> None:
    """Refused handshakes, then, a minute later, audio."""
    state, other, now = ServiceState(), FakeEngine(SECOND), [0.0]
    voice = online("", state, other, now)
    service.status = HTTPStatus.SERVICE_UNAVAILABLE
    assert await said(voice) == SECOND and await said(voice) == SECOND
    assert service.handshakes == 1
    service.status, now[0] = HTTPStatus.SWITCHING_PROTOCOLS, 61.0
    assert len(await spoken(voice)) > VOICE_RATE // 4 and other.asked == 2
