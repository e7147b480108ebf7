"""A face model is a package and a line in the registry; everything else stays as it is."""

from __future__ import annotations

import asyncio
import math
import re
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.avatars.drawn_avatar import make_avatar
from tests.faces.drawn_mouth import SIDE
from tests.fake_model import Collector, picture
from tests.helpers import client, running
from wsavatar.avatars.avatar import cycle_index
from wsavatar.avatars.format import read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.config import (
    AvatarSettings,
    ConfigError,
    ModelSettings,
    ServerSettings,
    Settings,
    TtsSettings,
    load_settings,
)
from wsavatar.dialogue.base import SPEECH_RATE
from wsavatar.faces import registry
from wsavatar.faces.registry import (
    FaceError,
    find_problems,
    load_face,
    model_directory,
    speech_windows,
)
from wsavatar.render.jobs import VideoFormat
from wsavatar.serve.assembly import load_engine
from wsavatar.session.engine import Engine


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings that ask for a face model which this repository does not have."""
    monkeypatch.setitem(registry.FACES, "drawn", "tests.faces.drawn_mouth")
    make_avatar(tmp_path / "avatars")
    return Settings(
        server=ServerSettings(host="127.0.0.1", port=0),
        model=ModelSettings(name="drawn", devices=("cpu",)),
        avatars=AvatarSettings(directory=tmp_path / "avatars", cache=tmp_path / "cache"),
        tts=TtsSettings(engines=("espeak",)),
    )


def loaded(settings: Settings) -> Engine:
    return load_engine(settings)


def opening(picture: np.ndarray) -> int:
    """How high the mouth is in the middle of a mouth's picture, in pixels."""
    return int((picture[:, picture.shape[1] // 2].mean(axis=1) < 80).sum())


async def test_a_new_model_draws_after_one_registry_line(settings: Settings) -> None:
    """Settings to pictures: its own rate of speech, chunks, prepared avatar and patches."""
    engine = await asyncio.to_thread(loaded, settings)
    avatar = await asyncio.to_thread(engine.avatars.get, "ada")
    chunker = engine.renderer.open_chunker(Fraction(25), 500)
    assert chunker.sample_rate == 8000
    speech = np.repeat(np.array([0.0, 1.0, 0.5], np.float32), 320)
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
    assert [opening(picture(frame)) for frame in frames] == [0, SIDE, SIDE // 2]


async def test_a_clients_mouth_opens_with_the_sound(settings: Settings) -> None:
    """Through the whole server, over a WebSocket: what a client says is mirrored, and the mouth in
    the JPEGs that it gets is open as its sound is loud, frame by frame."""
    levels = np.array([0.0, 0.25, 0.5, 0.75, 1.0, 0.5, 0.0, 0.0, 1.0, 0.25])
    step = SPEECH_RATE // 5  # five frames each
    tone = np.sin(np.arange(step * len(levels)) * 2 * np.pi * 500 / SPEECH_RATE)
    sound = (0.99 * tone * levels.repeat(step) * 32767).astype("<i2").tobytes()
    engine = await asyncio.to_thread(loaded, settings)
    async with running(engine, settings) as server, client(server) as me:
        avatar = {"id": "ada", "mode": "mirror", "video": {"encoding": "binary"}}
        audio = {"input": {"turn_detection": None}}
        await me.send("session.update", session={"avatar": avatar, "audio": audio})
        await me.until("session.updated")
        await me.socket.send(sound)
        await me.send("input_audio_buffer.commit")
        await me.until("response.done", timeout_s=60)
    assert me.audio() == sound
    points = (await asyncio.to_thread(read_ada, settings))[:, 48:].mean(axis=1).round().astype(int)
    openings = []
    for index, _, _, data in me.frames():
        middle = points[cycle_index(index, len(points))]
        seen = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        x, y = middle - SIDE // 2
        openings.append(opening(seen[y : y + SIDE, x : x + SIDE]))
    within = np.array(openings).reshape(len(levels), 5)[:, 1:4]  # resampling blurs the edges
    np.testing.assert_allclose(within, np.tile(levels[:, None] * SIDE, 3), atol=3)


def read_ada(settings: Settings) -> np.ndarray:
    """The landmarks of the avatar."""
    folder = settings.avatars.directory
    assert folder is not None
    return read_landmarks(folder / "ada", read_avatar_file(folder / "ada"))


async def test_a_session_speaks_through_a_new_model(settings: Settings) -> None:
    """The protocol does not depend on the model."""
    engine = await asyncio.to_thread(loaded, settings)
    async with running(engine, settings) as server, client(server) as me:
        await me.send("avatar.speak", text="Good morning.")
        done = await me.until("response.done", timeout_s=30)
    assert done["response"]["status"] == "completed"
    assert len(me.frames()) > 10


def test_a_models_settings_are_its_own(settings: Settings) -> None:
    """The section ``model`` has those of the chosen model, and no other's."""
    chosen = {"model.name": "drawn", "model.widest": 0.5}
    assert load_settings(None, chosen).model.model_extra == {"widest": 0.5}
    for name, problem in (
        ("version", "unknown setting 'model.version'; settings of the face model: widest"),
        ("widset", "unknown setting 'model.widset'; did you mean 'model.widest'?"),
    ):
        wrong = load_settings(None, chosen | {f"model.{name}": "v1"})
        with pytest.raises(ConfigError, match=re.escape(problem)):
            load_face(wrong)
    with pytest.raises(ConfigError, match="model.widest = 'wide'"):
        load_face(load_settings(None, chosen | {"model.widest": "wide"}))


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ({"model.decoder": "fast"}, "model.decoder = 'fast': input should be 'vae' or 'tiny'"),
        (
            {"model.widest": 2},
            "unknown setting 'model.widest'; settings of the face model: version, decoder",
        ),
        ({"model.devcies": "cpu"}, "did you mean 'model.devices'?"),
    ],
)
def test_mistakes_in_the_models_settings_are_found_before_it_loads(
    setting: dict[str, object], problem: str
) -> None:
    """Whatever asks for the model first says so."""
    for ask in (find_problems, speech_windows, load_face):
        with pytest.raises(ConfigError, match=re.escape(problem)):
            ask(load_settings(None, setting))


def test_a_model_that_is_not_registered_is_refused_in_words(settings: Settings) -> None:
    """Whatever asks for it."""
    unknown = settings.model_copy(update={"model": ModelSettings(name="sadtalker")})
    for ask in (load_face, speech_windows, model_directory):
        with pytest.raises(FaceError, match="model.name = 'sadtalker': there is musetalk"):
            ask(unknown)
