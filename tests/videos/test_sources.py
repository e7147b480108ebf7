"""The sound of videos: files and texts, in pieces, as long as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wsavatar.dialogue.tts import VoiceError
from wsavatar.dialogue.tts.base import VOICE_RATE
from wsavatar.dialogue.tts.text import TextError
from wsavatar.videos.sources import MAX_TEXT_CHARS, FileSource, SoundSource, TextSource, at_rate


async def all_of(source: SoundSource) -> np.ndarray:
    return np.concatenate([piece async for piece in source.pieces()])


class Voice:
    """Says every phrase as 0.1 s of a level, or nothing; notes the phrases."""

    def __init__(self, level: float = 0.5) -> None:
        self.phrases: list[str] = []
        self.level = level

    def for_response(self) -> Voice:
        return self

    async def speak(self, text: str) -> AsyncIterator[np.ndarray]:
        self.phrases.append(text)
        if self.level:
            yield np.full(VOICE_RATE // 10, self.level, np.float32)


async def test_a_file_is_given_in_pieces_that_are_its_samples(tmp_path: Path) -> None:
    """Whatever the decoder's pieces, the samples are those of the file."""
    samples = np.random.default_rng(1).uniform(-0.5, 0.5, (50_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 44_100, subtype="FLOAT")
    source = await FileSource.open(tmp_path / "a.wav")
    assert source.seconds == Fraction(50_000, 44_100)
    assert (source.form.sample_rate, source.form.channels) == (44_100, 2)
    pieces = [piece async for piece in source.pieces()]
    assert 5 <= len(pieces) <= 12
    np.testing.assert_allclose(np.concatenate(pieces), samples, atol=1e-6)


@pytest.mark.parametrize("rate", [7999, 44_100, 96_001])
@pytest.mark.parametrize("count", [1, 999, 20_000])
async def test_at_another_rate_it_is_as_long(tmp_path: Path, rate: int, count: int) -> None:
    """Rounded up to a whole sample, so that a video has as many frames."""
    soundfile.write(tmp_path / "a.wav", np.full((count, 2), 0.25), rate)
    made = await all_of(at_rate(await FileSource.open(tmp_path / "a.wav"), 48_000))
    assert made.shape == (-(-count * 48_000 // rate), 2)
    if count > 10_000:
        np.testing.assert_allclose(made[2000:4000], 0.25, atol=0.01)


async def test_a_text_is_spoken_phrase_by_phrase() -> None:
    """As a session says it, without what cannot be said."""
    voice = Voice()
    source = TextSource("First sentence here. And a second one.\n```\nprint(1)\n```\n", voice)
    assert source.seconds is None
    assert (await all_of(source)).shape == (2 * VOICE_RATE // 10, 1)
    assert voice.phrases == ["First sentence here.", "And a second one.\n"]


async def test_texts_that_cannot_be_spoken_are_refused_in_words() -> None:
    """Empty, without a word, too long, or of a voice that makes no sound of it."""
    for text, says in [("", "no text"), ("…", "no letter"), ("a" * (MAX_TEXT_CHARS + 1), "100000")]:
        with pytest.raises(TextError, match=says):
            TextSource(text, Voice())
    with pytest.raises(VoiceError, match="nothing in the text"):
        await all_of(TextSource("Hello.", Voice(level=0)))
