"""Mirror: live speech said while it is heard."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.dialogue.fakes import (
    HEARD_RATE,
    FakeSession,
    FakeVoice,
    config,
    engines_of,
    kinds,
    silence,
    tell,
    until_over,
    wait_for,
)
from wsavatar.dialogue.live import LiveSpeech
from wsavatar.dialogue.mirror import Mirror
from wsavatar.dialogue.parrot import Parrot
from wsavatar.media.audio import resample


async def test_a_mirror_is_silent_in_silence(session: FakeSession, voice: FakeVoice) -> None:
    """No response, no frames: silence costs nothing."""
    mirror = Mirror(session, config(), engines_of(voice))
    await tell(mirror, silence(3))
    await mirror.close()
    assert session.responses == [] and session.events == []


@pytest.mark.parametrize("step", [160, 1600, 16_000])
async def test_a_mirror_says_what_it_hears(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray, step: int
) -> None:
    """One response: the microphone's own samples from just before speech on, without a gap."""
    mirror = Mirror(session, config(), engines_of(voice))
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
    mirror = Mirror(session, config(), engines_of(voice))
    await tell(mirror, sentence)
    start = session.events[0][1] / 1000
    heard_s = len(sentence) / HEARD_RATE - start
    await wait_for(lambda: len(session.responses[0].said) / HEARD_RATE > heard_s - 0.05)
    assert len(session.responses[0].said) / HEARD_RATE == pytest.approx(heard_s, abs=0.05)
    await mirror.close()
    assert session.responses[0].status == "completed"


async def test_a_short_pause_does_not_end_a_mirrors_response(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """A breath of a second stays within one response, whatever `silence_duration_ms` says."""
    mirror = Mirror(session, config(vad_silence_ms=200), engines_of(voice))
    await tell(mirror, np.concatenate([sentence, silence(0.8), sentence, silence(2)]))
    assert len(session.responses) == 1 and session.responses[0].status == "completed"
    await mirror.close()


async def test_a_minute_without_turn_detection_is_one_response(
    session: FakeSession, voice: FakeVoice, speech: np.ndarray
) -> None:
    """From the first sample to the commit, pauses and all: 60 s in, 60 s out, the same samples."""
    mirror = Mirror(session, config(turn_detection=False), engines_of(voice))
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
    mirror = Mirror(session, config(), engines_of(voice))
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
    mirror = Mirror(session, config(), engines_of(voice))
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
    mirror = Mirror(session, config(turn_detection=False), engines_of(voice))
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
    mirror = Mirror(session, config(turn_detection=False), engines_of(voice))
    async with asyncio.timeout(60):
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
    mirror = Mirror(session, config(), engines_of(voice))
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
    parrot = Parrot(session, config(), engines_of(voice))
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
    mirror = Mirror(session, config(), engines_of(voice))
    await mirror.speak("A long text.")
    await wait_for(lambda: voice.spoken != [])
    session.gate = None
    await tell(mirror, sentence)
    assert session.responses[0].status == "cancelled" and len(session.responses) == 2
    await mirror.close()
    assert voice.closed == 1
