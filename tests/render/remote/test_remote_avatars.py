"""A process that renders nothing knows avatars by their files; devices' processes prepare them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.avatars.drawn_avatar import make_avatar as write_ada
from tests.device_processes import load, load_waiting, processes, spawn
from tests.drawn_faces import face_video
from tests.fake_model import LIVE, SIZE, Collector, chunks, picture
from wsavatar.avatars.background import ORIGINAL
from wsavatar.avatars.format import AvatarError, AvatarFile
from wsavatar.avatars.writing import write_avatar
from wsavatar.config import AvatarSettings
from wsavatar.render.jobs import VideoFormat
from wsavatar.render.remote.avatars import RemoteAvatar, RemoteAvatars
from wsavatar.render.remote.device_channel import AvatarKey
from wsavatar.render.remote.processes import prepare_avatar


def described(avatar_id: str = "a") -> RemoteAvatar:
    """What a server knows of the avatar that the devices' processes of these tests have."""
    points = [[(0.0, 0.0)] * 68]
    file = AvatarFile.model_construct(
        id=avatar_id, fps=25.0, frame_count=5, width=SIZE, height=SIZE, landmarks=points
    )
    return RemoteAvatar.of(file, ORIGINAL)


async def test_frames_are_made_of_an_avatar_known_by_its_file() -> None:
    """The process that asks has neither pictures nor a face of it, and still gets its mouth."""
    async with processes(load) as pool:
        seen = Collector()
        video = VideoFormat(region="mouth", max_width=SIZE // 2, encoder="raw")
        first = chunks(0.5)[0]
        pool.open_stream(described(), video, 7, 0, seen).submit(first, LIVE)
        frames = await seen.wait_for(first.frame_count)
    assert not seen.reasons()
    assert {(frame.region, frame.size) for frame in frames} == {((16, 20, 32, 32), (16, 16))}
    assert (picture(frames[2])[8, 8] == 16).all()


async def test_a_process_prepares_an_avatar_and_reports_it() -> None:
    """Who asks waits until it is ready, or learns why it cannot be used."""
    async with processes(load) as pool:
        prepare = partial(prepare_avatar, pool._workers)
        await asyncio.to_thread(prepare, described())
        await asyncio.to_thread(prepare, described())  # it is at hand now
        with pytest.raises(AvatarError, match="nobody"):
            await asyncio.to_thread(prepare, replace(described(), id="nobody"))
    with pytest.raises(AvatarError, match="no device is up"):
        prepare(described())


async def test_a_call_waiting_for_a_process_that_dies_is_an_error() -> None:
    """No session waits for ever for an avatar."""
    gate = spawn.Event()
    async with processes(partial(load_waiting, gate)) as pool:
        worker = pool._workers[0]
        asked = worker.ask_for(AvatarKey("a", ORIGINAL))
        worker._process.kill()
        with pytest.raises(AvatarError, match="a: device p0 ended"):
            await asyncio.wrap_future(asked)
        gate.set()


def test_an_avatar_is_asked_for_once_and_read_from_its_file(tmp_path: Path) -> None:
    """An id that is no avatar's is refused here, before any process is asked."""
    write_ada(tmp_path)
    asked: list[str] = []
    avatars = RemoteAvatars(
        AvatarSettings(directory=tmp_path), lambda avatar: asked.append(avatar.id)
    )
    assert avatars.default_id == "ada"
    for _ in range(2):
        avatar = avatars.get("ada")
    assert (avatar.width, avatar.height, avatar.frame_count) == (160, 128, 6)
    assert np.stack(avatars.idle_pictures("ada")).shape == (6, 128, 160, 3)
    with pytest.raises(AvatarError, match="known: ada"):
        avatars.get("../ada")
    assert asked == ["ada"]


def test_an_avatar_that_is_replaced_is_prepared_anew(tmp_path: Path) -> None:
    """Its files' digest names the version that is asked for, for devices too."""
    write_ada(tmp_path)
    asked: list[str] = []
    settings = AvatarSettings(directory=tmp_path)
    avatars = RemoteAvatars(settings, lambda avatar: asked.append(avatar.digest))
    old = avatars.get("ada")
    frames, landmarks = face_video(160, 128, 6, size=50)
    write_avatar(tmp_path, "ada", "Ada", frames, 25, landmarks, overwrite=True)
    new = avatars.get("ada")
    assert asked == [old.digest, new.digest] and old.digest != new.digest
    assert AvatarKey.of(old) != AvatarKey.of(new)


def test_an_avatar_that_could_not_be_prepared_is_asked_for_again(tmp_path: Path) -> None:
    """The next session tries anew."""
    write_ada(tmp_path)
    asked: list[str] = []

    def prepare(avatar: RemoteAvatar) -> None:
        asked.append(avatar.id)
        if len(asked) == 1:
            raise AvatarError("no face in frame 0")

    avatars = RemoteAvatars(AvatarSettings(directory=tmp_path), prepare)
    with pytest.raises(AvatarError, match="no face"):
        avatars.get("ada")
    assert avatars.get("ada").id == "ada"
