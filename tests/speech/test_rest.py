"""A mouth at rest where nobody speaks: silence, noise, mains hum and offsets, at every frame rate.

The embedded model draws the bundled avatars; a lip estimator that no training used reads the
opening off the pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from tests.speech.sounds import RATE, breath, noise, tone, voice
from wsavatar.avatars.format import read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.media.pictures import DecodedPictures
from wsavatar.media.video import read_video
from wsavatar.resources import embedded_weights, resource_dir
from wsavatar.speech.chunker import Chunker
from wsavatar.training.figures import CLOSED_BELOW
from wsavatar.training.lip_estimator import LipEstimator
from wsavatar.training.networks import TOP

RATES = [*map(Fraction, (5, 10, "12.5", 24, 25, 30, 50, 60)), Fraction(24_000, 1001)]
Openings = Callable[..., np.ndarray]


@pytest.fixture(scope="module")
def openings() -> Iterator[Openings]:
    """Audio at 16 kHz -> openings [avatars, frames]: gap over the distance of the eyes' corners."""
    threads = torch.get_num_threads()
    # One thread: torch's threads spin for each other, which takes seconds on a busy machine.
    model = MuseTalk.load(embedded_weights(), cpu_backend="torch", cpu_threads=1)
    estimator = LipEstimator.for_evaluation()
    faces = []
    for folder in sorted((resource_dir("avatars")).iterdir()):
        avatar = read_avatar_file(folder).model_copy(update={"frame_count": 1})
        _, frames = read_video(folder / avatar.video, max_frames=1)
        landmarks = read_landmarks(folder, read_avatar_file(folder))[:1]
        face = model.prepare(avatar, DecodedPictures(frames), landmarks, detail=False)
        faces.append(face.inputs[0])

    def measure(audio: np.ndarray, fps: Fraction = Fraction(25), every: int = 1) -> np.ndarray:
        chunker = Chunker(model.spec.grid, fps, RATE // 2)
        chunks = [*chunker.push(audio.astype(np.float32)), *chunker.flush()]
        conditions = [model.condition(model.encode_audio(c.windows), c) for c in chunks]
        wanted = np.concatenate([np.asarray(c) for c in conditions])[::every]
        found = []
        for face in faces:
            patches = np.asarray(model.generate([face] * len(wanted), list(wanted)))
            pixels = torch.from_numpy(patches[:, TOP:].copy()).permute(0, 3, 1, 2) / 127.5 - 1
            with torch.no_grad():
                found.append(estimator(pixels)[:, 0].numpy())
        return np.stack(found)

    yield measure
    torch.set_num_threads(threads)


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_silence_is_at_rest_from_the_first_frame_on(openings: Openings, fps: Fraction) -> None:
    """At every frame rate, and in a response of a millisecond too."""
    for samples in (16, 640, 3200):
        assert (openings(np.zeros(samples), fps) < CLOSED_BELOW).all()


@pytest.mark.parametrize("db", [-40, -55, -65])
@pytest.mark.parametrize("hertz", [50, 60, 100, 120])
def test_hum_is_at_rest(openings: Openings, hertz: float, db: float) -> None:
    """From the first frame to the last."""
    assert (openings(tone(hertz, db, 2.0), every=7) < CLOSED_BELOW).all()


@pytest.mark.parametrize("offset", [0.001, 0.01, 0.1, -0.1])
def test_an_offset_is_at_rest(openings: Openings, offset: float) -> None:
    """A constant is no sound, and its beginning and end are none."""
    assert (openings(np.full(12_800, offset), every=4) < CLOSED_BELOW).all()


@pytest.mark.parametrize("fps", [Fraction(10), Fraction(25), Fraction(60)], ids=str)
def test_noise_is_at_rest(openings: Openings, fps: Fraction) -> None:
    """White noise at -50 dBFS, alone and with hum and an offset."""
    assert (openings(noise(-50), fps, every=4) < CLOSED_BELOW).all()
    assert (openings(noise(-60) + tone(50, -45) + 0.01, fps, every=4) < CLOSED_BELOW).all()


@pytest.mark.parametrize("db", [-45, -50])
def test_a_breath_is_at_rest(openings: Openings, db: float) -> None:
    """Nobody has spoken yet: a breath is not taken for a soft word."""
    assert (openings(breath(2.0, db), every=4) < CLOSED_BELOW).all()


@pytest.mark.parametrize("db", [-45, -50])
def test_a_breath_after_a_word_is_at_rest(openings: Openings, db: float) -> None:
    """From 0.4 s after the word on."""
    spoken = np.concatenate([voice(1.0, -23), np.zeros(RATE // 5), breath(1.5, db)])
    assert (openings(spoken, every=4)[:, 10:] < CLOSED_BELOW).all()


@pytest.mark.slow
def test_pauses_of_real_speech_are_at_rest_with_hum(openings: Openings, samples_dir: Path) -> None:
    """A recording with a pause of a second put in: with hum and an offset the lips close there as
    they do without, and move in the speech as they do without."""
    audio, rate = soundfile.read(samples_dir / "eng.wav", dtype="float64", frames=2 * RATE)
    assert rate == RATE
    clean = np.concatenate([audio, noise(-75, 1.0), audio])
    length = len(clean) / RATE
    hum = tone(50, -40, length) + tone(100, -45, length) + 0.03
    made, without = openings(clean + hum, every=2), openings(clean, every=2)
    pause = slice(27, 36)  # 0.12 s and more from its ends
    assert (without[:, pause] < CLOSED_BELOW).mean() >= 0.98
    assert (made[:, pause] < CLOSED_BELOW).mean() >= 0.98
    for one, other in zip(made, without, strict=True):
        assert np.corrcoef(one, other)[0, 1] > 0.97
