"""A face model is a package and a line in the registry; everything else stays as it is."""

from __future__ import annotations

import asyncio
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.avatars.test_avatars import make_avatar
from tests.fake_model import Collector, picture
from tests.helpers import client, running
from wsavatar.config import (
    AvatarSettings,
    ModelSettings,
    ServerSettings,
    Settings,
    TtsSettings,
)
from wsavatar.faces import registry
from wsavatar.faces.registry import FaceError, load_face, model_directory, speech_windows
from wsavatar.render.jobs import VideoFormat
from wsavatar.serve.assembly import load_engine
from wsavatar.session.engine import Engine


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that ask for a face model which this repository does not have."""
    monkeypatch.setitem(registry.FACES, "plain", "tests.faces.plain_face")
    make_avatar(tmp_path / "avatars")
    return Settings(
        server=ServerSettings(host="127.0.0.1", port=0),
        model=ModelSettings(name="plain", devices=("cpu",)),
        avatars=AvatarSettings(directory=tmp_path / "avatars", cache=tmp_path / "cache"),
        tts=TtsSettings(engines=("espeak",)),
    )


def loaded(settings: Settings) -> Engine:
    return load_engine(settings)


async def test_a_new_model_draws_after_one_registry_line(settings: Settings) -> None:
    """Settings to pictures: its own rate of speech, chunks, prepared avatar and patches."""
    engine = await asyncio.to_thread(loaded, settings)
    avatar = await asyncio.to_thread(engine.avatars.get, "ada")
    chunker = engine.renderer.open_chunker(Fraction(25), 500)
    assert chunker.sample_rate == 8000
    speech = np.repeat(np.array([0.0, 1.0, 0.4], np.float32), 320)
    seen = Collector()
    await engine.renderer.start()
    try:
        stream = engine.renderer.open_stream(
            avatar, VideoFormat(region="mouth", encoder="raw"), 7, 0, seen
        )
        for chunk in [*chunker.push(speech), *chunker.flush()]:
            stream.submit(chunk, math.inf)
        frames = await seen.wait_for(3)
    finally:
        await engine.renderer.close()
    middles = [picture(frame)[frame.size[1] // 2, frame.size[0] // 2] for frame in frames]
    assert [middle.tolist() for middle in middles] == [[0] * 3, [255] * 3, [102] * 3]


async def test_a_session_speaks_through_a_new_model(settings: Settings) -> None:
    """The protocol does not depend on the model."""
    engine = await asyncio.to_thread(loaded, settings)
    async with running(engine, settings) as server, client(server) as me:
        await me.send("avatar.speak", text="Good morning.")
        done = await me.until("response.done", timeout_s=30)
    assert done["response"]["status"] == "completed"
    assert len(me.frames()) > 10


def test_a_model_that_is_not_registered_is_refused_in_words(settings: Settings) -> None:
    """Whatever asks for it."""
    unknown = settings.model_copy(update={"model": ModelSettings(name="sadtalker")})
    for ask in (load_face, speech_windows, model_directory):
        with pytest.raises(FaceError, match="model.name = 'sadtalker': there is musetalk"):
            ask(unknown)
