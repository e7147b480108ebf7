"""A finished file is complete or absent, and says what it took."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fake_model import SIZE, FakeModel, make_avatar, running
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.background import Background, Backgrounds
from wsavatar.dialogue.tts import VoiceError
from wsavatar.faces.masks import Masks
from wsavatar.media.audio_file import read_audio
from wsavatar.media.pictures import Pictures
from wsavatar.media.video import VideoError, open_video, read_video
from wsavatar.media.video_kinds import SoundFormat
from wsavatar.render.pool import FacePool
from wsavatar.videos.maker import VideoMaker

PERSON = np.zeros((SIZE, SIZE), np.uint8)
PERSON[8:, 8:-8] = 255


class Avatars:
    """One avatar, and where its person is."""

    def __init__(self, background: str = "original") -> None:
        self.backgrounds = Backgrounds(background)

    def get(self, avatar_id: str, *, background: str | None = None) -> PreparedAvatar:
        behind, avatar = self.backgrounds.named(background), make_avatar()
        return avatar if behind is None else avatar.before(behind, Masks([PERSON] * 5))

    def idle_pictures(self, avatar_id: str, background: str | None = None) -> Pictures:
        return self.get(avatar_id, background=background).pictures


class Tone:
    """A second of sound in tenths; ``before`` is called with the number of each."""

    form = SoundFormat(24_000, 1)
    seconds: Fraction | None = None

    def __init__(self, before: Callable[[int], None] = lambda number: None) -> None:
        self._before = before

    async def pieces(self) -> AsyncIterator[np.ndarray]:
        for number in range(10):
            self._before(number)
            t = np.arange(2400 * number, 2400 * (number + 1)) / 24_000
            yield (0.4 * np.sin(2 * np.pi * 300 * t)).astype(np.float32)[:, None]


def maker(pool: FacePool, background: str = "original", rest_s: float = 0.0) -> VideoMaker:
    return VideoMaker(pool, Avatars(background), Fraction(25), rest_s=rest_s)


async def test_the_file_and_what_it_took(tmp_path: Path) -> None:
    """Frames and sound are in the file, progress was told of each frame, the total when known."""
    told: list[tuple[int, int | None]] = []
    source = Tone()
    source.seconds = Fraction(1)
    async with running(FakeModel()) as pool:
        path = tmp_path / "a.mp4"
        made = await maker(pool).make(source, "a", path, lambda *at: told.append(at))
    info, frames = read_video(path)
    assert (info.width, info.fps, len(frames)) == (SIZE, 25, 25)
    assert 0 <= len(read_audio(path).samples) - 24_000 < 1024  # AAC's last frame
    assert told == [(number, 25) for number in range(1, 26)]
    assert (made.frame_count, made.seconds, made.avatar_id) == (25, 1.0, "a")
    assert 0 < made.write_s < made.wall_s and 0 <= made.sound_s < made.wall_s


async def test_a_voice_that_fails_midway_leaves_nothing_behind(tmp_path: Path) -> None:
    """No half video appears under the name that was asked for."""

    def breaks(number: int) -> None:
        if number == 7:
            raise VoiceError("the line is dead")

    async with running(FakeModel()) as pool:
        with pytest.raises(VoiceError, match="dead"):
            await maker(pool).make(Tone(breaks), "a", tmp_path / "a.mp4")
        assert pool.stats()["streams"] == 0
    assert os.listdir(tmp_path) == []


async def test_a_video_that_is_cancelled_leaves_nothing_behind(tmp_path: Path) -> None:
    """Neither a file nor frames in the renderer, whatever it was doing."""
    begun = asyncio.Event()
    model = FakeModel()
    async with running(model) as pool:
        model.gate.clear()
        work = asyncio.create_task(
            maker(pool).make(Tone(lambda number: begun.set()), "a", tmp_path / "a.mp4")
        )
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert pool.stats()["streams"] == 0
        model.gate.set()
    assert os.listdir(tmp_path) == []


async def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """VideoError, and nothing is left."""
    async with running(FakeModel()) as pool:
        with pytest.raises(VideoError, match=r"a\.mp4\.part: cannot be written"):
            await maker(pool).make(Tone(), "a", tmp_path / "no" / "a.mp4")
    assert os.listdir(tmp_path) == []


# -- backgrounds -----------------------------------------------------------------------------------


async def test_a_video_has_the_background_that_was_ordered(tmp_path: Path) -> None:
    """Speech and rest; the face is the same."""
    path = tmp_path / "a.mp4"
    async with running(FakeModel()) as pool:
        await maker(pool, rest_s=0.2).make(Tone(), "a", path, background="#00b140")
    _, frames = read_video(path)
    assert len(frames) == 35
    for frame in frames:
        assert np.abs(frame[2:6, 20:40].astype(int) - (0, 0xB1, 0x40)).max() < 20


async def test_a_picture_of_the_orders_own_is_behind_the_person(tmp_path: Path) -> None:
    """As the server's own would be, in every frame, to what two compressions differ; an MP4."""
    picture = np.tile(np.array([[[20, 90, 200], [200, 90, 20]]], np.uint8), (1, 1, 1))
    Image.fromarray(picture).save(tmp_path / "own.png")
    async with running(FakeModel()) as pool:
        behind = Background("picture", picture)
        await maker(pool, rest_s=0.2).make(Tone(), "a", tmp_path / "a.mp4", background=behind)
        configured = maker(pool, str(tmp_path / "own.png"), rest_s=0.2)
        await configured.make(Tone(), "a", tmp_path / "b.mp4")
    (_, own), (_, servers) = (read_video(tmp_path / name) for name in ("a.mp4", "b.mp4"))
    assert len(own) == len(servers) == 35
    assert np.abs(own.astype(int) - servers).mean() < 1
    assert np.abs(own[:, 2:6, 4:10].astype(int) - (20, 90, 200)).mean() < 12


async def test_a_transparent_webm_has_the_alpha_of_the_person(tmp_path: Path) -> None:
    """In every frame, at rest as in speech."""
    path = tmp_path / "a.webm"
    async with running(FakeModel()) as pool:
        await maker(pool, rest_s=0.2).make(Tone(), "a", path, background="transparent")
    with open_video(path, alpha=True) as (_, shown):
        alphas = [picture[..., 3] for _, picture in shown]
    assert len(alphas) == 35
    for alpha in alphas:
        assert alpha[:4].max() < 20 and alpha[20:60, 16:48].min() > 235


async def test_an_mp4_of_a_transparent_server_has_the_original_background(tmp_path: Path) -> None:
    """Such a file cannot be transparent; who asks for that is refused, and nothing is left."""
    async with running(FakeModel()) as pool:
        await maker(pool, "transparent").make(Tone(), "a", tmp_path / "a.mp4")
        with pytest.raises(VideoError, match="a mp4 file cannot be transparent"):
            await maker(pool).make(Tone(), "a", tmp_path / "b.mp4", background="transparent")
    assert os.listdir(tmp_path) == ["a.mp4"]
    _, frames = read_video(tmp_path / "a.mp4")
    assert frames[:, :6].max() > 100  # as red as its pictures are there
