"""Learning one person from a clip: pairs, what is learned, and how it is judged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.creation.drawn import drawn, speaking
from tests.drawn_faces import face_landmarks
from wsavatar.config import ModelSettings, Settings
from wsavatar.faces.finetuning import (
    Finetuned,
    FinetuneError,
    FinetuneWatch,
    MouthQuality,
    TalkingClip,
)
from wsavatar.faces.musetalk import finetune as finetuning
from wsavatar.faces.musetalk.correction import LatentCorrection, tuned
from wsavatar.faces.musetalk.finetune import learn, movement_loss
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.mouths import mouth_quality, trusted_pairs
from wsavatar.faces.musetalk.talking import TalkingPairs, at_rest, drawn_rows, talking_pairs
from wsavatar.faces.musetalk.tuning import read_tuning
from wsavatar.faces.registry import FaceError, load_finetuner

W, H, RATE = 160, 160, 16000


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def settings(mini: Path) -> Settings:
    return Settings(
        model=ModelSettings(path=str(mini), devices=("cpu",), cpu_backend="torch", cpu_threads=1)
    )


@pytest.fixture(scope="module")
def model(settings: Settings) -> MuseTalk:
    return MuseTalk.load(Path(settings.model.path), device="cpu", cpu_backend="torch")


def quiet(doing: str, done: int, total: int) -> None:
    """Nobody watches."""


UNSEEN = FinetuneWatch(quiet, lambda before, now: None)


def clip(count: int, size: float = 90.0) -> TalkingClip:
    """A drawn face that opens its mouth with a tone."""
    centre = (W / 2, H * 0.42)
    openings = 0.2 * np.maximum(np.sin(np.arange(count) * 0.7), 0)
    points = face_landmarks(centre, size)
    times = np.arange(int(count * RATE / 25)) / RATE
    loud = np.interp(times, np.arange(count) / 25, openings)

    def pictures() -> Iterator[np.ndarray]:
        return (drawn(W, H, centre, size, opening) for opening in openings)

    return TalkingClip(
        pictures,
        Fraction(25),
        W,
        H,
        np.stack([speaking(points, opening) for opening in openings]),
        np.ones(count, bool),
        (loud * np.sin(2 * np.pi * 200 * times)).astype(np.float32),
    )


@pytest.fixture(scope="module")
def pairs(model: MuseTalk) -> TalkingPairs:
    return talking_pairs(model, clip(110), quiet, detail=True)


def test_an_open_jaw_does_not_move_the_crop() -> None:
    """A talking face's place is that of its upper part: the model cannot guess the mouth by it."""
    resting = face_landmarks((100, 100), 80)
    turn = np.array([[0.98, -0.1], [0.1, 0.98]])
    there = resting @ turn.T + (7, -3)
    talking = there.copy()
    talking[3:14] += (0, 12)  # the jaw
    talking[55:60] += (0, 12)
    np.testing.assert_allclose(at_rest(talking, resting), there, atol=0.01)


def test_pairs_have_the_clips_mouths(model: MuseTalk, pairs: TalkingPairs) -> None:
    """References are frames at rest, the truth is the frame's own, and the mask is on the lips."""
    assert len(pairs) == 110
    half = model.spec.latent_channels

    def kinds(arrays: np.ndarray) -> int:
        return len({array.tobytes() for array in arrays})

    assert kinds(pairs.latents[:, half:]) < kinds(pairs.truth) > 15
    covered = (pairs.mouths > 127).mean(axis=(1, 2))
    assert ((covered > 0.02) & (covered < 0.5)).all()


def test_frames_without_a_face_are_left_out(model: MuseTalk) -> None:
    """Their place is only guessed."""
    talking = clip(20)
    seen = np.arange(20) % 4 != 1
    assert len(talking_pairs(model, replace(talking, seen=seen), quiet, detail=True)) == seen.sum()


def test_a_person_is_learned(model: MuseTalk, settings: Settings, pairs: TalkingPairs) -> None:
    """What frozen networks can draw of a person is found: here, of a hidden correction."""
    generator = finetuning._generator(settings, model.device)
    rng = np.random.default_rng(3)
    hidden = pairs.latents + rng.normal(0, 0.5, pairs.latents.shape[1:]).astype(np.float16)
    truth = drawn_rows(model, hidden, pairs.conditions, quiet)
    known = replace(pairs, truth=truth)
    learned, checked, held = (
        known.at(slice(0, 80)),
        known.at(slice(86, 90)),
        known.at(slice(96, 110)),
    )
    tuning = learn(generator, model.spec, learned, checked, seconds=600, steps=20, watch=UNSEEN)
    latents = tuned(held.latents, read_tuning(tuning.to_bytes(), model.spec), model.spec)
    after = replace(held, drawn=drawn_rows(model, latents, held.conditions, quiet))
    assert mouth_quality(after).psnr_db > mouth_quality(held).psnr_db + 0.5


def test_pairs_whose_sound_misleads_are_not_learned_from(pairs: TalkingPairs) -> None:
    """Those are kept whose drawn mouth moves as the true one, whatever its colours."""
    paler = (pairs.truth // 2 + 90).astype(np.uint8)
    wrong = np.arange(len(pairs)) % 2 == 0
    paler[wrong] = np.roll(paler[wrong], 1, axis=0)  # another frame's mouth
    trusted = trusted_pairs(replace(pairs, drawn=paler), least=8)
    assert len(trusted) == len(pairs) // 2
    assert wrong[trusted].mean() < 0.35


def test_a_mouth_that_moves_less_costs() -> None:
    """Other colours cost nothing, nor does more movement, nor less where the person moves less."""
    rng = np.random.default_rng(4)
    usual = torch.from_numpy(rng.normal(0, 0.3, (8, 3, 48, 64)).astype(np.float32))
    mouth = torch.zeros(8, 1, 48, 64)
    mouth[:, :, 8:40, 16:48] = 1
    mean = usual.mean(dim=0)
    for scale, lost in ((1.0, 0.0), (1.5, 0.0), (0.6, 0.4), (0.0, 1.0)):
        made = mean + scale * (usual - mean) + 0.2
        assert float(movement_loss(made, usual, mouth, 1.0)) == pytest.approx(lost, abs=1e-3)
    assert float(movement_loss(mean + 0.6 * (usual - mean), usual, mouth, 0.6)) < 1e-3


def test_what_rises_and_falls_is_evened_out(model: MuseTalk) -> None:
    """A running mean is kept of what is learned: near to it, and calmer."""
    correction, mean = LatentCorrection(model.spec), LatentCorrection(model.spec)
    for step in range(60):
        torch.nn.init.constant_(correction.offset, 1.0 + (-1) ** step)
        finetuning._follow(mean, correction, 0.1)
    assert ((mean.offset - 1).abs() < 0.1).all()


def test_learning_ends_in_time(model: MuseTalk, settings: Settings, pairs: TalkingPairs) -> None:
    """``seconds`` count, not steps; and the progress says how much of either is gone."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 1.0
        return now

    seen: list[int] = []
    learn(
        finetuning._generator(settings, model.device),
        model.spec,
        pairs.at(slice(0, 20)),
        pairs.at(slice(20, 24)),
        seconds=5,
        watch=FinetuneWatch(lambda _, done, total: seen.append(done), lambda before, now: None),
        clock=clock,
    )
    assert seen == [200, 400, 600, 800, 1000]


def stopped(pairs: TalkingPairs, model: MuseTalk, settings: Settings, step: int) -> list[float]:
    """Ctrl-C is pressed before that of 20 steps. PSNR of what was checked; last, what is given."""
    known = replace(pairs, truth=np.clip(pairs.drawn + 20.0, 0, 255).astype(np.uint8))
    checked = known.at(slice(60, 64))
    seen: list[float] = []
    count = 0

    def progress(doing: str, done: int, total: int) -> None:
        nonlocal count
        count += 1
        if count == step + 1:
            raise KeyboardInterrupt

    generator = finetuning._generator(settings, model.device)
    watch = FinetuneWatch(progress, lambda before, now: seen.append(now.psnr_db))
    tuning = learn(
        generator, model.spec, known.at(slice(0, 40)), checked, seconds=600, steps=20, watch=watch
    )
    latents = tuned(checked.latents, tuning, model.spec)
    drawn = drawn_rows(model, latents, checked.conditions, quiet)
    return [*seen, mouth_quality(replace(checked, drawn=drawn)).psnr_db]


def test_ctrl_c_keeps_the_best_so_far(
    model: MuseTalk, settings: Settings, pairs: TalkingPairs
) -> None:
    """Learning for an hour is not lost; before anything is known to be of use, it just ends."""
    *seen, given = stopped(pairs, model, settings, 7)
    assert len(seen) == 4
    assert given == pytest.approx(max(seen), abs=0.1)
    with pytest.raises(KeyboardInterrupt):
        stopped(pairs, model, settings, 1)


def test_the_whole_tool(
    settings: Settings, model: MuseTalk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a clip to bytes that fit the model, and figures of frames that were not learned from."""
    monkeypatch.setattr(finetuning, "STEPS", 3)
    steps: set[str] = set()
    checked: list[MouthQuality] = []
    watch = FinetuneWatch(
        lambda doing, done, total: steps.add(doing), lambda before, now: checked.append(now)
    )
    made = load_finetuner(settings, "cpu")(clip(110), 60, watch)
    assert len(checked) == 3
    assert steps == {"encode", "listen", "draw", "learn"}
    assert made.held_out_frames == 16
    assert 0 < made.before.psnr_db < 100 and made.before.sharpness > 0
    read_tuning(made.data, model.spec)


def test_too_few_frames_are_refused(settings: Settings) -> None:
    """The reason is said."""
    with pytest.raises(FinetuneError, match="only 30 frames"):
        load_finetuner(settings, "cpu")(clip(30), 60, UNSEEN)


def test_a_face_that_is_too_small_is_refused(model: MuseTalk) -> None:
    """A crop of a few pixels has no mouth."""
    with pytest.raises(FinetuneError, match="too small"):
        talking_pairs(model, clip(10, size=24), quiet, detail=True)


def test_a_model_without_the_tool_says_so(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A face model need not have it."""
    monkeypatch.setattr("wsavatar.faces.registry.FACES", {"other": "tests.faces.drawn_mouth"})
    with pytest.raises(FaceError, match="cannot be finetuned"):
        load_finetuner(Settings(), "cpu")


@pytest.mark.parametrize(
    ("before", "after", "better"),
    [
        ((24.0, 0.6, 0.8), (25.0, 0.6, 0.8), True),
        ((24.0, 0.6, 0.8), (24.05, 0.9, 1.0), False),  # no gain
        ((24.0, 0.6, 0.8), (25.0, 0.4, 0.8), False),  # by blur
        ((24.0, 0.6, 0.8), (25.0, 0.6, 0.5), False),  # by moving less
        ((24.0, 1.8, 1.5), (25.0, 1.0, 1.0), True),  # too sharp and too lively before
        ((24.0, 0.6, 0.8), (23.0, 1.0, 1.0), False),
    ],
)
def test_what_is_better(
    before: tuple[float, float, float], after: tuple[float, float, float], better: bool
) -> None:
    """Nearer to the truth, and neither by blur nor by moving less."""
    made = Finetuned(b"", MouthQuality(*before), MouthQuality(*after), 10)
    assert made.is_better is better
