"""Videos that clients order: bounded in number, length, disk and time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from wsavatar.config import VideoSettings
from wsavatar.media.video_kinds import MP4, SoundFormat
from wsavatar.videos.jobs import VideoJob, VideoJobs, VideoRefused
from wsavatar.videos.maker import Made
from wsavatar.videos.sources import SamplesSource, SoundSource


class Maker:
    """Takes all of the sound and writes ``size`` bytes, and ``last_bytes`` at the end; waits while
    ``gate`` is shut."""

    def __init__(self, size: int = 1000) -> None:
        self.size = size
        self.last_bytes = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = 0
        self.most = 0

    async def make(
        self, source: SoundSource, avatar_id: str, path: Path, progress, background
    ) -> Made:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            samples = sum([len(piece) async for piece in source.pieces()])
            path.with_name(path.name + ".part").write_bytes(bytes(self.size))  # noqa: ASYNC240
            progress(25, 25)
            path.with_name(path.name + ".part").write_bytes(bytes(self.size + self.last_bytes))  # noqa: ASYNC240
            path.with_name(path.name + ".part").rename(path)  # noqa: ASYNC240
        finally:
            self.running -= 1
        return Made(path, avatar_id, 25, samples / 24_000, 0.1, 0.0, 0.0)


class Endless:
    """Sound whose length nobody knows."""

    form = SoundFormat(24_000, 1)
    seconds: Fraction | None = None

    async def pieces(self) -> AsyncIterator[np.ndarray]:
        while True:
            yield np.zeros((24_000, 1), np.float32)


def job(source: SoundSource | None = None) -> VideoJob:
    second = SamplesSource(np.zeros(24_000, np.float32), 24_000)
    return VideoJob(source or second, "ada", MP4, lambda done, total: None)


def jobs(folder: Path, maker: Maker, **settings) -> VideoJobs:
    return VideoJobs(VideoSettings(directory=folder, **settings), maker)


async def test_a_video_is_found_by_its_name_until_it_expires(tmp_path: Path) -> None:
    """Names cannot be guessed, and what is expired or unknown is not found."""
    videos = jobs(tmp_path, Maker(), keep_s=3600)
    one, two = await videos.make(job()), await videos.make(job())
    assert one.name != two.name and len(one.name) >= 32 and one.name.endswith(".mp4")
    path = videos.find(one.name)
    assert path is not None and path.stat().st_size == one.size == 1000  # noqa: ASYNC240
    for name in ("", ".mp4", "../" + one.name, one.name + "x", one.name[:-4]):
        assert videos.find(name) is None
    await videos.close()
    assert os.listdir(tmp_path) == []
    videos = jobs(tmp_path, Maker(), keep_s=0.05)
    short = await videos.make(job())
    async with asyncio.timeout(30):
        while videos.find(short.name) is not None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    [folder] = os.listdir(tmp_path)
    assert os.listdir(tmp_path / folder) == []
    await videos.close()


async def test_few_are_made_at_a_time_and_few_wait(tmp_path: Path) -> None:
    """One more is refused, and has a place again once another was cancelled."""
    maker = Maker()
    maker.gate.clear()
    videos = jobs(tmp_path, maker, parallel=1, max_waiting=2)
    making = [asyncio.create_task(videos.make(job())) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(VideoRefused, match="3 videos are being made or wait") as refused:
        await videos.make(job())
    assert refused.value.code == "videos_busy"
    making[2].cancel()
    await asyncio.wait([making[2]])
    making.append(asyncio.create_task(videos.make(job())))
    await asyncio.sleep(0)
    maker.gate.set()
    await asyncio.gather(making[0], making[1], making[3])
    assert maker.most == 1
    await videos.close()


async def test_videos_that_begin_together_leave_nothing(tmp_path: Path) -> None:
    """The first two share a folder, which goes with the server."""
    videos = jobs(tmp_path, Maker(), parallel=2)
    await asyncio.gather(videos.make(job()), videos.make(job()))
    await videos.close()
    assert os.listdir(tmp_path) == []


async def test_length_is_limited_whether_it_is_known_or_not(tmp_path: Path) -> None:
    """A recording is refused at once, a voice that goes on and on when it reaches the limit."""
    videos = jobs(tmp_path, Maker(), max_s=2)
    await videos.make(job(SamplesSource(np.zeros(48_000, np.float32), 24_000)))
    for source in (SamplesSource(np.zeros(48_001, np.float32), 24_000), Endless()):
        with pytest.raises(VideoRefused, match="may last 2 s") as refused:
            await videos.make(job(source))
        assert refused.value.code == "video_too_long"
    await videos.close()


async def test_the_oldest_videos_make_room_on_the_disk(tmp_path: Path) -> None:
    """All together are within the limit; one that alone is beyond it is not made."""
    maker = Maker(size=400 << 10)
    videos = jobs(tmp_path, maker, disk_mb=1)
    made = [await videos.make(job()) for _ in range(3)]
    assert [videos.find(one.name) is not None for one in made] == [False, True, True]
    maker.size = (1 << 20) + 1
    with pytest.raises(VideoRefused, match="over 1 MB") as refused:
        await videos.make(job())
    assert refused.value.code == "disk_full"
    maker.size, maker.last_bytes = 1 << 20, 1
    with pytest.raises(VideoRefused, match="over 1 MB"):
        await videos.make(job())
    assert [videos.find(one.name) is not None for one in made] == [False, True, True]
    await videos.close()
