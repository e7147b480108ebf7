"""Between phrases: one pause of the right length, whatever silence the engine adds."""

from __future__ import annotations

import numpy as np
import pytest

from wsavatar.dialogue.tts.base import VOICE_RATE, Chunks, WordTime
from wsavatar.dialogue.tts.fallback import FallbackVoice, Link
from wsavatar.dialogue.tts.pauses import PausedVoice, pause_after

TONE = 0.3 * np.sin(np.arange(VOICE_RATE // 2, dtype=np.float32))  # half a second


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * VOICE_RATE), np.float32)


class Engine:
    """Says what it was given, in chunks of a size; its only word begins with it."""

    times_words = True

    def __init__(self, audio: np.ndarray, size: int = 700) -> None:
        self.audio, self.size = audio, size

    async def speak(self, text: str) -> Chunks:
        for start in range(0, len(self.audio), self.size):
            yield self.audio[start : start + self.size]
        yield WordTime(0, len(self.audio) / VOICE_RATE - 0.5)


def voice_of(audio: np.ndarray, size: int = 700) -> PausedVoice:
    return PausedVoice(FallbackVoice([Link(Engine(audio, size))]))


async def said(voice: PausedVoice, text: str = "Yes.") -> np.ndarray:
    parts = [part async for part in voice.speak(text)]
    return np.concatenate([silence(0), *[part for part in parts if isinstance(part, np.ndarray)]])


@pytest.mark.parametrize("size", [37, 240, 701, 99_999])
@pytest.mark.parametrize("tail_s", [0.0, 0.005, 0.8, 4.0])
async def test_silence_at_the_ends_goes(size: int, tail_s: float) -> None:
    """In pieces of any size: 30 ms stay in front, 40 ms behind (of 4 s of silence, one)."""
    audio = np.concatenate([silence(0.2), TONE, silence(tail_s)])
    got = await said(voice_of(audio, size))
    extra = len(got) - len(TONE)
    kept = min(tail_s, 0.04) + max(tail_s - 3, 0)
    assert 0.02 * VOICE_RATE <= extra <= (0.05 + kept) * VOICE_RATE
    start = int(np.flatnonzero(got)[0]) - int(np.flatnonzero(TONE)[0])
    np.testing.assert_array_equal(got[start : start + len(TONE)], TONE)


async def test_silence_within_stays() -> None:
    """A pause that the engine makes itself is the engine's."""
    audio = np.concatenate([TONE, silence(1.0), TONE, silence(3.5), TONE])
    assert len(await said(voice_of(audio))) == len(audio)


async def test_a_phrase_of_silence_is_nothing() -> None:
    """So that the response says that there was nothing to hear."""
    assert len(await said(voice_of(silence(5)))) == 0


async def test_words_are_timed_where_they_are_heard() -> None:
    """In the phrase with its pause and without the silence that was trimmed."""
    response = voice_of(np.concatenate([silence(0.8), TONE])).for_response()
    for pause_s in (0.0, 0.35):
        parts = [part async for part in response.speak("Yes.")]
        (word,) = [word for part in parts if isinstance(part, tuple) for word in part]
        assert word.start_s == pytest.approx(pause_s + 0.03, abs=0.011)


async def test_a_pause_stands_before_each_phrase_but_the_first() -> None:
    """As long as the marks at the end of the phrase before ask for; the next response begins
    without one."""
    voice = voice_of(TONE)
    response = voice.for_response()
    first, second, third = [await said(response, text) for text in ("Well,", "I see.", "Good.")]
    assert len(first) == len(TONE)
    assert len(second) == len(TONE) + int(0.17 * VOICE_RATE)
    assert len(third) == len(TONE) + int(0.35 * VOICE_RATE)
    assert len(await said(voice.for_response())) == len(TONE)


@pytest.mark.parametrize(
    ("phrase", "seconds"),
    [
        ("Yes.", 0.35),
        ("“Why?” ", 0.35),
        ("Great! 🎉 ", 0.35),
        ("好。", 0.35),
        ("كيف؟", 0.35),
        ("Well, ", 0.17),
        ("“Stop!”, ", 0.17),
        ("今天，", 0.17),
        ("the word ", 0.05),
        ("Dr. No", 0.05),
    ],
)
def test_a_pause_is_as_long_as_the_mark_asks_for(phrase: str, seconds: float) -> None:
    """A sentence's end, a clause's, or none."""
    assert pause_after(phrase) == seconds
