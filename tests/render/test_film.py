"""Films: the frames of a sound that comes in pieces, exactly, whatever happens to a device."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fractions import Fraction

import numpy as np
import pytest

from tests.fake_model import GRID, SIZE, FakeModel, make_avatar, running
from wsavatar.media.video_kinds import SoundFormat
from wsavatar.render import film as module
from wsavatar.render.film import FilmError, film, frame_total
from wsavatar.speech.chunker import Chunk

FPS = Fraction(25)


def ramp(samples: int, channels: int = 1) -> np.ndarray:
    """Sound whose every sample is another."""
    return np.linspace(-1, 1, samples * channels, dtype=np.float32).reshape(samples, channels)


async def cut(samples: np.ndarray, *sizes: int) -> AsyncIterator[np.ndarray]:
    """In pieces of these sizes, over and over."""
    start = number = 0
    while start < len(samples):
        size = sizes[number % len(sizes)]
        yield samples[start : start + size]
        start, number = start + size, number + 1


async def ticks_of(model: FakeModel, samples: np.ndarray, rate: int, *sizes: int, rest_s=0.0):
    avatar, sound = make_avatar(), SoundFormat(rate, samples.shape[1])
    async with running(model) as pool:
        pieces = cut(samples, *sizes)
        ticks = film(pool, avatar, avatar.pictures, sound, pieces, FPS, rest_s=rest_s)
        return [tick async for tick in ticks]


@pytest.mark.parametrize("sizes", [(100_000,), (7, 3000), (441,)])
async def test_sound_is_given_back_with_its_frames(sizes: tuple[int, ...]) -> None:
    """Every sample once, in order, however it was cut; the frames are numbered by the model."""
    samples = ramp(30_001, 2)
    ticks = await ticks_of(FakeModel(), samples, 44_100, *sizes)
    assert len(ticks) == frame_total(Fraction(30_001, 44_100), FPS) == 18
    np.testing.assert_array_equal(np.concatenate([tick.audio for tick in ticks]), samples)
    assert [tick.picture[36, 32, 1] for tick in ticks] == [8 * i for i in range(18)]
    assert ticks[0].picture.shape == (SIZE, SIZE, 3)


async def test_rest_is_silent_and_whole() -> None:
    """Before and after, the idle cycle goes on and the speech begins in step with it."""
    samples = ramp(16_000)
    ticks = await ticks_of(FakeModel(), samples, 16_000, 16_000, rest_s=0.2)
    assert [tick.speaking for tick in ticks] == 5 * [False] + 25 * [True] + 5 * [False]
    sound = np.concatenate([tick.audio for tick in ticks])
    assert not sound[:3200].any() and not sound[-3200:].any()
    np.testing.assert_array_equal(sound[3200:-3200], samples)
    assert ticks[5].picture[4, 4, 0] == 40 * 3  # the cycle's sixth: 0 1 2 3 4 3


async def test_few_frames_are_asked_for_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long sound no more are in the renderer than fit the bound, so memory does not grow."""
    monkeypatch.setattr(module, "AHEAD_BYTES", 20 * 3 * SIZE * SIZE)
    most = 0
    async with running(FakeModel()) as pool:
        avatar, samples = make_avatar(), ramp(160_000)
        pieces = cut(samples, 160_000)
        async for _ in film(pool, avatar, avatar.pictures, SoundFormat(16_000, 1), pieces, FPS):
            most = max(most, pool.stats()["frames_in_flight"])
    assert most <= 20 + FPS  # the bound, and a chunk or two that were just cut


@pytest.mark.parametrize("rate", [7999, 11_025, 16_000, 22_050, 44_100, 47_999])
@pytest.mark.parametrize("fps", [24, 25, 30])
def test_resampling_never_adds_or_loses_a_frame(rate: int, fps: int) -> None:
    """Whatever the rate, and at lengths on both sides of a frame's edge."""
    for frames in (1, 2, 7):
        for extra in (-1, 0, 1):
            count = -(-frames * rate // fps) + extra
            chunker = GRID.open_chunker(Fraction(fps), 500)
            hearing = module._Hearing(chunker, rate, Fraction(fps))
            chunks: list[Chunk] = [*hearing.push(np.zeros((count, 1), np.float32))]
            chunks += hearing.flush()
            made = sum(chunk.frame_count for chunk in chunks)
            assert made == frame_total(Fraction(count, rate), Fraction(fps))


async def test_frames_that_a_device_lost_are_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that fails for a while costs time, not frames: the film is complete."""
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    model = FakeModel()
    model.bad_frames = {13}
    samples = ramp(16_000)
    avatar = make_avatar()
    seen = []
    async with running(model) as pool:
        pieces = cut(samples, 16_000)
        open_stream, opened = pool.open_stream, 0

        def open_and_repair(*arguments):
            nonlocal opened
            opened += 1
            if opened == 3:
                model.bad_frames = set()
            return open_stream(*arguments)

        monkeypatch.setattr(pool, "open_stream", open_and_repair)
        async for tick in film(pool, avatar, avatar.pictures, SoundFormat(16_000, 1), pieces, FPS):
            seen.append(tick)
    assert opened == 3
    assert [tick.picture[36, 32, 1] for tick in seen] == [8 * i for i in range(25)]
    np.testing.assert_array_equal(np.concatenate([tick.audio for tick in seen]), samples)


async def test_a_frame_that_cannot_be_made_ends_the_film(monkeypatch: pytest.MonkeyPatch) -> None:
    """After some tries, with its number and the reason."""
    monkeypatch.setattr(module, "RETRY_S", 0.0)
    model = FakeModel()
    model.bad_frames = {13}
    with pytest.raises(FilmError, match=r"frame 13 could not be rendered \(failed\)"):
        await ticks_of(model, ramp(16_000), 16_000, 16_000)
