"""What training promises the model that serves: the same sound, crop and arithmetic."""

from __future__ import annotations

import copy
import json
import os
import socket
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from wsavatar.avatars.geometry import crop_box as serving_crop_box
from wsavatar.faces.musetalk.features import hidden_states
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.spec import CropMargin
from wsavatar.resources import embedded_weights
from wsavatar.speech.chunker import Chunker
from wsavatar.training.architecture import BLOCK, DECODE_FROM_ROW, LEFT, WINDOW_POSITIONS, save
from wsavatar.training.average import average
from wsavatar.training.checkpoint import grown, resume
from wsavatar.training.data import RATE, STEP, Corpus, augment, log_mel, strange_voice
from wsavatar.training.ear import Teacher, train_audio, train_teacher
from wsavatar.training.hearing import JUDGED, HearingTest, opening, position_times
from wsavatar.training.hearing import main as compare_hearing
from wsavatar.training.lipmeter import LipMeter
from wsavatar.training.losses import energy_loss, mouth_weight, picture_loss
from wsavatar.training.mouth import mouth_controls
from wsavatar.training.networks import TOP, Face
from wsavatar.training.people import BUNDLED, idle_motion
from wsavatar.training.synthesis import MARGIN, crop_box

VISEMES = {
    "SIL": {"lipSeal": 0.9},
    "M": {"lipSeal": 1.0, "mouthPress": 0.3},
    "AA": {"jawOpen": 0.6},
    "OO": {"mouthPucker": 1.0, "jawOpen": 0.05},
}


@pytest.fixture(scope="module")
def face() -> Face:
    torch.manual_seed(0)
    face = Face()
    resume(face, [], embedded_weights())
    return face.eval()


@pytest.fixture(scope="module")
def served() -> MuseTalk:
    return MuseTalk.load(
        embedded_weights(), device="cpu", dtype="float32", cpu_backend="torch", cpu_threads=1
    )


def speech(seconds: float) -> np.ndarray:
    """Something with a changing spectrum; float32 at 16 kHz."""
    t = np.arange(round(seconds * RATE)) / RATE
    wave = np.sin(2 * np.pi * (120 + 300 * t) * t) * (0.5 + 0.5 * np.sin(2 * np.pi * 3 * t))
    return (0.2 * wave).astype(np.float32)


def test_silence_rests_and_a_bilabial_seals_the_lips() -> None:
    """A pause is at rest throughout, and every m, b or p closes the mouth for its whole closure."""
    segments = [("SIL", 0, 0.5), ("AA", 0.5, 0.7), ("M", 0.7, 0.78), ("AA", 0.78, 1.0)]
    times = np.array([0.1, 0.3, 0.6, 0.74, 0.9])
    names, weights, closed = mouth_controls(segments, times, VISEMES)
    seal, jaw = weights[:, names.index("lipSeal")], weights[:, names.index("jawOpen")]
    assert seal[:2] == pytest.approx(0.9, abs=0.02) and jaw[:2] == pytest.approx(0, abs=0.02)
    assert seal[3] == pytest.approx(1.0) and list(closed) == [False, False, False, True, False]
    assert jaw[2] > 0.4 and jaw[4] > 0.4 and seal[2] < 0.4


def test_controls_never_leave_what_the_visemes_span() -> None:
    """Blending is a weighted mean: no mouth opens wider than its widest viseme."""
    segments = [("OO", 0, 0.1), ("AA", 0.1, 0.3), ("M", 0.3, 0.35), ("OO", 0.35, 0.6)]
    names, weights, _ = mouth_controls(segments, np.linspace(-0.5, 1.2, 200), VISEMES)
    for column, name in enumerate(names):
        assert 0 <= weights[:, column].min()
        assert weights[:, column].max() <= max(v.get(name, 0) for v in VISEMES.values()) + 1e-6


def test_training_hears_what_serving_hears(face: Face, served: MuseTalk) -> None:
    """The same audio conditions a frame alike in training and in the server, at any grid phase."""
    audio = speech(3.0)
    chunker = Chunker(served.spec.grid, Fraction(25), 8000)
    chunks = [*chunker.push(audio), *chunker.flush()]
    for frame in (30, 31, 33):
        chunk = next(c for c in chunks if c.first_frame <= frame < c.first_frame + c.frame_count)
        heard = served.condition(served.encode_audio(chunk.windows), chunk, Fraction(25))
        first = 2 * frame - 4
        start = (first - first % BLOCK - LEFT) * STEP
        length = (WINDOW_POSITIONS + 2 * BLOCK) * STEP
        windows = torch.from_numpy(audio[start : start + length].copy())[None].unfold(
            1, WINDOW_POSITIONS * STEP, BLOCK * STEP
        )
        with torch.no_grad():
            learnt = face.condition(windows, torch.tensor([first % BLOCK]))[0]
        assert np.allclose(heard[frame - chunk.first_frame], learnt, atol=2e-3)


def test_training_draws_what_serving_draws(face: Face, served: MuseTalk) -> None:
    """The same crop and condition make the same picture in training and in the server."""
    rng = np.random.default_rng(3)
    crop = np.kron(rng.integers(0, 255, (1, 16, 16, 3)), np.ones((1, 16, 16, 1))).astype(np.uint8)
    condition = rng.standard_normal((1, 50, 192)).astype(np.float32)
    drawn = served.generate(served.encode_crops(crop), condition)[0, TOP:].astype(float)
    pixels = torch.from_numpy(crop).permute(0, 3, 1, 2).float() / 127.5 - 1
    masked = pixels.clone()
    masked[:, :, 128:] = -1
    with torch.no_grad():
        latents = face(face.encode(masked), face.encode(pixels), torch.from_numpy(condition))
        made = face.decode(latents).clamp(-1, 1)
    learnt = ((made[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    # The server keeps latents in float16 and rounds to bytes.
    assert np.abs(drawn - learnt).mean() < 1.0


def test_training_crops_what_preparing_crops() -> None:
    """Training and preparing cut a face inside the picture alike, to one pixel of rounding."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        points = rng.uniform((160, 180), (360, 400), (68, 2))
        points[29] = points.mean(0) - (0, 20)
        ours = crop_box(points)
        theirs = serving_crop_box(points, CropMargin(relative=MARGIN), 4000, 4000)
        assert np.abs(np.array(ours) - theirs).max() <= 1


def test_augmented_speech_is_still_audio() -> None:
    """Whatever happens to a voice, it stays finite, in range and as long as it was."""
    torch.manual_seed(1)
    audio = torch.from_numpy(speech(1.2)).repeat(16, 1)
    strange = augment(audio)
    assert strange.shape == audio.shape and strange.isfinite().all() and strange.abs().max() <= 1


def test_windows_of_one_frame_belong_to_one_voice() -> None:
    """A strange voice is strange in the same way in all three windows of a frame."""
    torch.manual_seed(2)
    mel = torch.rand(1, 80, 100).repeat(12, 1, 1)
    strange = strange_voice(mel, group=3).reshape(4, 3, 80, 100)
    assert (strange == strange[:, :1]).all()
    assert (strange[0] != strange[1]).any() or (strange[0] != strange[2]).any()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three voices whose tone sounds while the jaw is open; one of them is for training."""
    (tmp_path / "audio").mkdir()
    clips = []
    for voice, split in (("seen", "train"), ("dev", "dev_voice"), ("strange", "heldout_voice")):
        segments = [("AA" if k % 2 else "SIL", k * 0.4, k * 0.4 + 0.4) for k in range(7)]
        t = np.arange(round(2.8 * RATE)) / RATE
        tone = 0.3 * np.sin(2 * np.pi * 440 * t) * (np.floor(t / 0.4) % 2)
        soundfile.write(tmp_path / "audio" / f"{voice}.ogg", tone, RATE)
        clips.append(
            dict(clip=voice, seconds=2.8, voice=voice, split=split, labelled=True)
            | dict(segments=segments)
        )
    (tmp_path / "clips.json").write_text(json.dumps(clips))
    return Corpus(tmp_path, VISEMES, torch.device("cpu"))


def test_a_voice_counts_by_the_root_of_its_minutes(corpus: Corpus) -> None:
    """Who speaks four times as long is drawn twice as often, whatever the clips' lengths."""
    long = [dict(corpus.clips[0], voice="long", seconds=2.0) for _ in range(4)]
    spans = corpus._spans([*long, dict(corpus.clips[0], voice="short", seconds=2.0)])
    assert float(spans[:4, 2].sum() / spans[4, 2]) == pytest.approx(2)
    times = corpus.draw(200, spans)
    first = corpus.start["seen"]
    assert first - 0.3 <= float(times.min()) and float(times.max()) <= first + 2.3


def test_only_voices_out_of_training_are_judged_by_voice_and_split(corpus: Corpus) -> None:
    """Who reads the jaw off the sound correlates with the truth, who reads it upside down not."""

    def read(mel: torch.Tensor) -> torch.Tensor:
        positions = mel.amax(1).unflatten(1, (-1, 2)).mean(2)[:, JUDGED]
        controls = torch.zeros(*positions.shape, len(corpus.names))
        controls[..., corpus.names.index("jawOpen")] = positions
        return controls

    test = HearingTest(corpus)
    figures = test.judge(read)
    assert {split: set(voices) for split, voices in figures.items()} == {
        "dev_voice": {"mean", "dev"},
        "heldout_voice": {"mean", "strange"},
    }
    assert figures["dev_voice"]["dev"] > 0.9
    assert test.judge(lambda mel: -read(mel))["dev_voice"]["dev"] < -0.9


def test_models_are_compared_by_how_they_hear(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One command says of each model how well a linear map reads the mouth off it, by voice."""
    (tmp_path / "visemes.json").write_text(json.dumps(VISEMES))
    embedded, out = str(embedded_weights()), tmp_path / "figures.json"
    words = [embedded, "--corpus", str(tmp_path), "--visemes", str(tmp_path / "visemes.json")]
    monkeypatch.setattr("sys.argv", ["hearing", *words, "--json", str(out), "--windows", "300"])
    compare_hearing()
    figures = json.loads(out.read_text())[embedded]
    assert figures["heldout_voice"]["strange"] > 0.9  # a tone sounds while the jaw is open
    assert f"{embedded} [dev_voice] mean" in capsys.readouterr().out


def test_judged_positions_lie_where_the_window_says() -> None:
    """A position is 20 ms of the window, the 25th begins at its centre; a fast voice spans more."""
    times = position_times(torch.tensor([3.0]), torch.tensor([1.0]))[0]
    assert float(times[25 - JUDGED.start]) == pytest.approx(3.01)
    assert times.diff().numpy() == pytest.approx(STEP / RATE, abs=1e-5)
    fast = position_times(torch.tensor([3.0]), torch.tensor([1.5]))[0]
    assert (fast - 3.0).numpy() == pytest.approx(1.5 * (times - 3.0).numpy(), abs=1e-5)


def test_a_jaw_does_not_open_sealed_lips() -> None:
    """The opening is the jaw's, as far as the lips are not sealed."""
    controls = torch.tensor([[0.6, 0.0], [0.6, 1.0], [0.0, 0.0], [0.6, 0.5]])
    assert opening(controls, ["jawOpen", "lipSeal"]).tolist() == pytest.approx([0.6, 0, 0, 0.3])


RATES = dict(ear=1e-3, tune=1e-3, truth=1.0, opening=1.0, teacher=1.0, echo=1.0) | dict(
    dropout=0.1, windows=4
)


@pytest.fixture
def teacher(corpus: Corpus) -> Teacher:
    """An encoder of the teacher's classes, small and random."""
    torch.manual_seed(4)
    shape = dict(d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32)
    return Teacher(shape, corpus)


def test_the_audio_stage_says_how_it_hears(face: Face, corpus: Corpus) -> None:
    """A moment of training moves the encoder and its average, and ends in a figure a voice."""
    student, average = copy.deepcopy(face), copy.deepcopy(face)
    figures = train_audio(student, average, corpus, [], 0.5, RATES)
    assert -1 <= figures["dev_voice"]["mean"] <= 1 and "strange" in figures["heldout_voice"]
    before, after = face.audio.conv1.weight, student.audio.conv1.weight
    assert not torch.equal(before, after) and after.isfinite().all()
    assert not torch.equal(before, average.audio.conv1.weight)
    assert all(layer.dropout == 0 for layer in student.audio.layers)


def test_a_tuned_teacher_is_kept_with_its_reading(
    teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    """Tuning moves a teacher, and what is kept of it, shape and reading too, sees the same mouth in
    the same sound."""
    untuned = copy.deepcopy(teacher)
    figures = train_teacher(teacher, corpus, 0.5, RATES | dict(tune=0.05))
    assert "strange" in figures["heldout_voice"]
    teacher.save(tmp_path / "tuned.safetensors")
    again = Teacher.load(tmp_path / "tuned.safetensors", corpus)
    assert again.tuned and not untuned.tuned
    mel = log_mel(torch.from_numpy(speech(1.0))[None])
    with torch.no_grad():
        mouth, read_again, before = (t.eval()(mel)[1] for t in (teacher, again, untuned))
    assert (mouth - read_again).abs().max() < 0.2 * (mouth - before).abs().max()


def test_teachers_alone_can_teach(face: Face, teacher: Teacher, corpus: Corpus) -> None:
    """Without any truth the encoder follows its teachers, whatever their sizes, who learn nothing
    from it, and whose states count alike, however large their numbers are."""
    other = Teacher(teacher.shape | dict(d_model=8, encoder_layers=1), corpus)
    teacher.tuned = other.tuned = True
    kept = copy.deepcopy(teacher.encoder.state_dict())
    student, average = copy.deepcopy(face), copy.deepcopy(face)
    train_audio(student, average, corpus, [teacher, other], 0.5, RATES | dict(truth=0.0))
    moved = student.audio.conv1.weight
    assert moved.isfinite().all() and not torch.equal(moved, face.audio.conv1.weight)
    assert all(torch.equal(v, kept[k]) for k, v in teacher.encoder.state_dict().items())
    mel = strange_voice(log_mel(augment(torch.from_numpy(speech(1.0))[None].repeat(64, 1) * 0.4)))
    teacher.measure(mel)
    states = teacher.normed(teacher(mel)[0]).flatten(0, 1)
    assert torch.allclose(states.mean(0), torch.zeros(teacher.dim), atol=1e-3)
    assert 0.5 < float(states.std(0).median()) < 1.01


def test_blur_costs_energy_and_a_copy_costs_nothing() -> None:
    """The losses are zero for the truth, and the sharpness loss sees a blur."""
    torch.manual_seed(3)
    true = torch.rand(2, 3, 144, 256) * 2 - 1
    weight = mouth_weight(torch.tensor([[90.0, 160.0, 170.0, 190.0]] * 2))
    blurred = torch.nn.functional.avg_pool2d(true, 3, 1, 1)
    assert float(picture_loss(true, true, weight)) == 0
    assert float(energy_loss(true, true, weight)) == 0
    assert float(energy_loss(blurred, true, weight)) > 1


def test_lips_may_go_where_the_weight_is() -> None:
    """The mouth's weight covers the lips at rest and the space below, into which a jaw opens."""
    weight = mouth_weight(torch.tensor([[90.0, 170.0, 170.0, 190.0]]))[0, 0]
    assert weight[180 - TOP, 130] > 4.5 and weight[210 - TOP, 130] > 4.5
    assert weight[250 - TOP, 130] < 1.1 and weight[180 - TOP, 20] < 1.1


def test_a_lip_meter_reads_three_lengths() -> None:
    """The meter takes the decoded rows of a crop and gives gap, inner and outer width."""
    assert LipMeter(32, 5)(torch.zeros(2, 3, 256 - TOP, 256)).shape == (2, 3)


def test_what_training_saves_can_be_served(face: Face, tmp_path: Path) -> None:
    """A saved model loads as it is, decodes from the trained row on and weighs at most 40 MiB."""
    save(tmp_path, face.vae, face.unet, face.audio, float(face.scale))
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert size <= 40 * 2**20
    model = MuseTalk.load(tmp_path, device="cpu", cpu_backend="torch", cpu_threads=1)
    assert model.spec.decode_from_row == DECODE_FROM_ROW and model.spec.crop_size == 256


def test_an_encoder_that_grows_hears_as_before() -> None:
    """New layers and wider ones change nothing until they learn; what cannot grow is refused."""
    torch.manual_seed(5)
    shape = dict(d_model=16, encoder_attention_heads=2, max_source_positions=50, num_mel_bins=80)
    small = WhisperEncoder(WhisperConfig(**shape, encoder_layers=2, encoder_ffn_dim=24)).eval()
    large = WhisperEncoder(
        WhisperConfig(**shape, encoder_layers=4, encoder_ffn_dim=40, out_indices=[0, 2, 4])
    ).eval()
    large.load_state_dict(grown(small.state_dict(), large))
    mel = log_mel(torch.from_numpy(speech(1.0))[None])
    with torch.no_grad():
        assert torch.allclose(hidden_states(large, mel), hidden_states(small, mel), atol=1e-6)
    odd = WhisperEncoder(WhisperConfig(**shape, encoder_layers=3, encoder_ffn_dim=24))
    with pytest.raises(ValueError, match="2 layers do not grow to 3"):
        grown(small.state_dict(), odd)
    wide = WhisperEncoder(WhisperConfig(**shape | dict(d_model=32), encoder_layers=2))
    with pytest.raises(ValueError, match=r"has \[16, 80, 3\] numbers, not \[32, 80, 3\]"):
        grown(small.state_dict(), wide)


def test_processes_train_one_model(tmp_path: Path) -> None:
    """Two processes begin alike, end at the same step however fast each is, and with one model,
    which has learnt from both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), WORLD_SIZE="2")
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.rank_processes", str(tmp_path)],
            env=os.environ | address | dict(RANK=str(rank)),
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    assert [process.wait(120) for process in running] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second and first["steps"] % 50 == 0
    assert first["weight"] == pytest.approx(1.5, abs=0.3)  # one alone learns 1, the other 2


def test_an_average_lies_between_its_models(tmp_path: Path) -> None:
    """The mean of all weights, in the last one's type; what only the last model has stays."""
    models = [tmp_path / name for name in ("first", "second", "third")]
    for folder, value in zip(models, (1.0, 3.0, 8.0), strict=True):
        folder.mkdir()
        weights = {"w": torch.full((2, 2), value, dtype=torch.float16)}
        save_file(weights, folder / "model.safetensors")
    (models[-1] / "wsavatar.json").write_text("{}")

    def mean(shares: list[float] | None) -> torch.Tensor:
        average(models, tmp_path / "mean", shares)
        return load_file(tmp_path / "mean" / "model.safetensors")["w"]

    assert mean(None).dtype == torch.float16 and (mean(None) == 4).all()
    assert (mean([0.5, 0.25, 0.25]) == 3.25).all()
    assert (tmp_path / "mean" / "wsavatar.json").read_text() == "{}"


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.5, 0.5, 0.5]])
def test_shares_that_do_not_fit_are_refused(shares: list[float], tmp_path: Path) -> None:
    """Too few shares, or shares that are not one in sum, would make no mean."""
    with pytest.raises(ValueError, match="3 models need as many shares"):
        average([tmp_path] * 3, tmp_path / "mean", shares)


def test_a_model_that_is_not_there_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped folder is neither left out of a mean nor compared as a random model."""
    with pytest.raises(FileNotFoundError, match="mistyped"):
        average([tmp_path / "mistyped", tmp_path], tmp_path / "mean")
    words = ["--corpus", str(tmp_path), "--visemes", str(tmp_path / "visemes.json")]
    monkeypatch.setattr("sys.argv", ["hearing", str(tmp_path / "mistyped"), *words])
    with pytest.raises(SystemExit):
        compare_hearing()
    assert "mistyped holds no whisper/model.safetensors" in capsys.readouterr().err


def test_an_idle_blinks_moves_a_little_and_never_speaks() -> None:
    """Nine seconds of every bundled idle hold blinks and small motion, and touch no mouth."""
    for person in BUNDLED:
        motion = idle_motion(person.motion_seed, 225)
        upper = [m[0] for m in motion]
        assert {name for controls in upper for name in controls} == {"eyeBlink", "browInnerUp"}
        blinks = np.array([controls["eyeBlink"] for controls in upper])
        assert blinks.max() > 0.9 and (blinks == 0).mean() > 0.5
        turns = np.array([m[1] for m in motion])
        assert 0.5 < np.ptp(turns, axis=0).max() < 15
        assert np.abs(np.diff(turns, axis=0)).max() < 0.5  # degrees a frame: no jerk
