"""The definitions of the figures of a finished model, and the command that prints them."""

from __future__ import annotations

import dataclasses
import json
import math
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsavatar.avatars.format import read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.media.video import read_video
from wsavatar.resources import resource_dir
from wsavatar.training import evaluate
from wsavatar.training.clips import Clip, ClipError, load_clip, save_clip
from wsavatar.training.figures import (
    Figures,
    LipFigures,
    PictureFigures,
    Share,
    compare_lips,
    compare_pictures,
    correlation,
    gradient_energy,
    laplacian_variance,
    mouth_box,
    offset_frames,
    pooled,
    psnr,
    ssim,
)
from wsavatar.training.lip_estimator import LipEstimator
from wsavatar.training.synthesis import _choose_clips

COUNT, FPS, RATE = 20, 25, 16_000
QUICKLY = ["--set", "model.devices=[cpu]", "--set", "model.cpu_backend=torch"]
AS_DRAWN = ["--set", "render.sharpness=0", "--set", "avatars.detail=false"]


def openings_of_speech(count: int) -> np.ndarray:
    """Openings over time like those of speech; float [count]."""
    t = np.arange(count)
    return 0.06 * (1 + np.sin(t * 0.9) * np.sin(t * 0.23 + 1))


def textured(seed: int = 4) -> np.ndarray:
    """A picture with detail at several scales, uint8 [96, 128, 3]."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(60, 180, (6, 8, 3)), (128, 96), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 12, coarse.shape), 0, 255).astype(np.uint8)


def blur(picture: np.ndarray) -> np.ndarray:
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.0))


# -- lips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", range(-3, 4))
def test_the_offset_is_the_lag_of_the_picture(lag: int) -> None:
    """A mouth that moves some frames after the sound has that offset; early ones are negative."""
    spoken = openings_of_speech(100)
    assert offset_frames(spoken[10 - lag : 90 - lag], spoken[10:90]) == lag


def test_a_mouth_that_never_moves_has_no_correlation() -> None:
    """An undefined correlation is NaN, not zero and not a warning, and its offset is 0."""
    still = np.full(50, 0.1)
    assert math.isnan(correlation(still, openings_of_speech(50)))
    assert offset_frames(still, openings_of_speech(50)) == 0
    assert correlation(2 * openings_of_speech(50) + 1, openings_of_speech(50)) == pytest.approx(1)


def test_closed_is_counted_by_frame_in_silence_and_by_closure_in_speech() -> None:
    """A closure counts once, as closed if the lips meet in any of its frames."""
    opening = np.array([0.01, 0.02, 0.05, 0.09, 0.02, 0.09, 0.09, 0.05, 0.09, 0.09])
    silent = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], bool)
    bilabial = np.array([0, 0, 0, 1, 1, 0, 0, 1, 0, 0], bool)
    figures = compare_lips(opening, opening, silent, bilabial)
    assert figures.silence_closed == Share(2, 3)
    assert figures.bilabials_closed == Share(1, 2)
    assert figures.bilabial_frames_closed == Share(1, 3)


def test_nothing_to_close_is_no_failure() -> None:
    """A clip without pauses or bilabials has shares of nothing, whose value is NaN."""
    none = np.zeros(30, bool)
    figures = compare_lips(openings_of_speech(30), openings_of_speech(30), none, none)
    assert math.isnan(figures.silence_closed.value) and figures.bilabials_closed == Share(0, 0)


# -- pictures -------------------------------------------------------------------------------------


def test_a_copy_of_the_truth_is_perfect() -> None:
    """Identical pictures have SSIM 1, sharpness 1 and no error."""
    frames = np.stack([textured(1), textured(2)])
    figures = compare_pictures(frames, frames, [(10, 10, 100, 90)] * 2)
    assert figures.ssim == pytest.approx(1) and figures.psnr_db == pytest.approx(100)
    assert figures.gradient_energy == figures.laplacian_variance == 1


def test_blur_costs_sharpness_and_likeness() -> None:
    """A blurred picture has less gradient energy, still less Laplacian variance, and less SSIM."""
    sharp, soft = textured(), blur(textured())
    energy = gradient_energy(soft) / gradient_energy(sharp)
    assert laplacian_variance(soft) / laplacian_variance(sharp) < energy < 0.5
    assert ssim(soft, sharp) < 0.9 and psnr(soft, sharp) < 35


def test_psnr_and_ssim_are_the_published_ones() -> None:
    """An error of 10 levels everywhere is 28.13 dB; of SSIM's terms it touches only brightness."""
    picture = np.full((40, 40, 3), 100, np.uint8)
    assert psnr(picture + np.uint8(10), picture) == pytest.approx(20 * np.log10(255 / 10))
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 110 + c1) / (100**2 + 110**2 + c1)
    assert ssim(picture + np.uint8(10), picture) == pytest.approx(expected, abs=1e-4)


def test_only_the_mouths_region_counts() -> None:
    """Differences outside the box cost nothing."""
    truth = np.stack([textured()])
    made = truth.copy()
    made[:, :10] = 0
    assert compare_pictures(made, truth, [(10, 10, 100, 90)]).psnr_db == pytest.approx(100)


def test_the_mouths_region_follows_the_chin() -> None:
    """The region holds the lips at rest and speaking and reaches down to the lower chin."""
    rest = np.random.default_rng(6).uniform((180, 300), (300, 330), (68, 2))
    speaking = rest + (0, 20)
    rest[8], speaking[8] = (240, 360), (240, 392)
    x1, y1, x2, y2 = mouth_box(rest, speaking, 512, 512)
    assert x1 < rest[48:, 0].min() and x2 > rest[48:, 0].max()
    assert y1 < rest[48:, 1].min() and y2 == 392
    assert mouth_box(rest, speaking, 512, 380)[3] == 380


def test_clips_are_pooled_by_count_or_by_mean() -> None:
    """Shares of several clips add up; all else is the mean over the clips where it is known."""

    def figures(r: float, closed: Share) -> Figures:
        lips = LipFigures(r, 1, closed, closed, closed)
        return Figures(lips, PictureFigures(30, 0.9, 0.5, 0.25))

    both = pooled(
        [figures(0.8, Share(1, 1)), figures(0.9, Share(0, 3)), figures(math.nan, Share(0, 0))]
    )
    assert both.lips.correlation == pytest.approx(0.85)
    assert both.lips.silence_closed == Share(1, 4) and both.picture.psnr_db == 30


# -- clips and the command ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip() -> Clip:
    """A bundled person who says nothing; the lips' true shape is made up."""
    folder = resource_dir("avatars") / "mei"
    avatar = read_avatar_file(folder)
    _, frames = read_video(folder / avatar.video, max_frames=COUNT)
    landmarks = read_landmarks(folder, avatar)[:COUNT]
    lips = np.stack([openings_of_speech(COUNT), np.full(COUNT, 0.4), np.full(COUNT, 0.5)], axis=1)
    return Clip(
        name="mei-0", bundled=True, voice="nobody", split="heldout_text", clip="silence",
        fps=FPS, rate=RATE, audio=np.zeros(COUNT * RATE // FPS, np.float32),
        rest=frames[:COUNT], truth=frames[:COUNT], rest_landmarks=landmarks, landmarks=landmarks,
        lips=lips.astype(np.float32), bilabial=np.arange(COUNT) % 7 == 3,
        silent=np.ones(COUNT, bool),
    )  # fmt: skip


def test_a_clip_comes_back_as_it_was_saved(clip: Clip, tmp_path: Path) -> None:
    """Saving loses nothing, pictures included."""
    speaking = dataclasses.replace(clip, truth=255 - clip.rest)
    save_clip(tmp_path / "mei-0.npz", speaking)
    loaded = load_clip(tmp_path / "mei-0.npz")
    for field in dataclasses.fields(Clip):
        assert np.array_equal(getattr(loaded, field.name), getattr(speaking, field.name))
    assert [path.name for path in tmp_path.iterdir()] == ["mei-0.npz"]


def test_the_lip_estimator_is_in_the_package(clip: Clip) -> None:
    """The lip estimator ships with its weights and gives a mouth at rest as closed."""
    openings = evaluate.read_openings(LipEstimator.for_evaluation(), clip, clip.rest)
    assert openings.shape == (COUNT,) and openings.max() < 0.035
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "wsavatar" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_the_command_evaluates_a_clip(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command gives a row a clip and a summary a group, the figures as JSON and a strip.

    As the model draws it, a mouth has less detail than the truth pasted the same way, and about
    as much as the truth that its VAE draws, where nothing is said.
    """
    (tmp_path / "clips").mkdir()
    save_clip(tmp_path / "clips" / "mei-0.npz", clip)
    unseen = dataclasses.replace(clip, bundled=False)
    save_clip(tmp_path / "clips" / "unseen7-0.npz", unseen)
    options = ["--json", str(tmp_path / "figures.json"), "--strips", str(tmp_path / "strips")]
    command = ["--clips", str(tmp_path / "clips"), *options, *QUICKLY, *AS_DRAWN]
    assert evaluate.main(command) == 0
    rows = [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == ["clip", "mei-0", "unseen7-0", "bundled", "the", "by", "unseen", "the", "by"]
    report = json.loads((tmp_path / "figures.json").read_text())
    made, ceiling, vae = (report["summary"]["bundled"][k] for k in ("made", "ceiling", "vae"))
    assert made["lips"]["silence_closed"] == {"count": COUNT, "of": COUNT}
    assert 25 < made["picture"]["psnr_db"] < ceiling["picture"]["psnr_db"]
    assert 0 < made["picture"]["gradient_energy"] < ceiling["picture"]["gradient_energy"] <= 1
    assert abs(made["picture"]["psnr_db"] - vae["picture"]["psnr_db"]) < 3
    assert vae["picture"]["psnr_db"] < ceiling["picture"]["psnr_db"]
    strip = cv2.imread(str(tmp_path / "strips" / "mei-0.jpg"))
    assert strip is not None and strip.shape == (3 * 256, 10 * 256, 3)


def test_test_clips_take_the_voices_in_turn() -> None:
    """Voices alternate, no sentence is repeated early, and a second run chooses the same."""
    corpus = [
        dict(clip=f"{voice}{k}", voice=voice, seconds=seconds)
        for voice in ("ann", "bob")
        for k, seconds in enumerate((1.0, 3.0, 4.0, 4.5, 9.0))
    ]
    programme = _choose_clips(corpus, 6, longest_s=5)
    assert programme == _choose_clips(corpus, 8, longest_s=5)[:6]
    assert [said["voice"] for said in programme] == ["ann", "bob"] * 3
    assert len({said["clip"] for said in programme}) == 6
    assert all(2.5 <= said["seconds"] <= 5 for said in programme)


def failure(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The error that the command prints."""
    assert evaluate.main([str(word) for word in words]) == 2
    return capsys.readouterr().err


def test_clips_that_cannot_be_evaluated_are_named(
    clip: Clip, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty folder, missing weights, a damaged clip and one of another length are errors."""
    assert "holds no clip" in failure(capsys, "--clips", tmp_path)
    path = tmp_path / "mei-0.npz"
    save_clip(path, dataclasses.replace(clip, audio=clip.audio[:-2000]))
    nowhere = failure(capsys, "--clips", tmp_path, "--weights", tmp_path / "nothing")
    assert "nothing is not a usable model" in nowhere
    assert "20 frames, but sound for 17" in failure(capsys, "--clips", tmp_path, *QUICKLY)
    path.write_bytes(path.read_bytes()[:5000])
    assert "mei-0.npz: is damaged" in failure(capsys, "--clips", tmp_path, *QUICKLY)


def test_a_clip_is_never_unpickled(tmp_path: Path) -> None:
    """A file with Python objects in it is refused, and one that lacks something says what."""
    np.savez(tmp_path / "evil.npz", rest=np.array([{}], dtype=object))
    with pytest.raises(ClipError, match="damaged or no test clip"):
        load_clip(tmp_path / "evil.npz")
    np.savez(tmp_path / "old.npz", truth=np.zeros(3))
    with pytest.raises(ClipError, match="lacks 'rest'"):
        load_clip(tmp_path / "old.npz")
