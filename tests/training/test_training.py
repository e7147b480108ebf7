"""What training promises the model that serves: the same sound, crop and arithmetic."""

from __future__ import annotations

import copy
import json
import os
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

from wsavatar.bench.server_process import free_port
from wsavatar.faces.musetalk.features import hidden_states
from wsavatar.faces.musetalk.geometry import crop_box as serving_crop_box
from wsavatar.faces.musetalk.losses import energy_loss, picture_loss
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.spec import CropMargin
from wsavatar.resources import embedded_weights
from wsavatar.speech.chunker import Chunker
from wsavatar.speech.front_end import FrontEnd
from wsavatar.training.architecture import BLOCK, DECODE_FROM_ROW, LEFT, WINDOW_POSITIONS, save
from wsavatar.training.audio_encoder import Teacher, train_audio, train_teacher
from wsavatar.training.average import average
from wsavatar.training.checkpoint import grow_encoder, load_checkpoint
from wsavatar.training.data import RATE, STEP, Corpus, augment, log_mel, vary_timbre
from wsavatar.training.evaluate_audio import EVALUATED, OpeningTest, opening, position_times
from wsavatar.training.evaluate_audio import main as evaluate_audio
from wsavatar.training.lip_estimator import LipEstimator
from wsavatar.training.losses import mouth_weight
from wsavatar.training.mouth import mouth_controls
from wsavatar.training.networks import TOP, Networks
from wsavatar.training.pair_styles import restyle_pairs
from wsavatar.training.synthesis import MARGIN, Speech, crop_box
from wsavatar.training.synthetic_people import BUNDLED, idle_motion, turned
from wsavatar.training.train import amounts

VISEMES = {
    "SIL": {"lipSeal": 0.9},
    "M": {"lipSeal": 1.0, "mouthPress": 0.3},
    "AA": {"jawOpen": 0.6},
    "OO": {"mouthPucker": 1.0, "jawOpen": 0.05},
}


@pytest.fixture(scope="module")
def networks() -> Networks:
    torch.manual_seed(0)
    networks = Networks()
    load_checkpoint(networks, [], embedded_weights())
    return networks.eval()


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


def test_training_and_serving_condition_a_frame_alike(networks: Networks, served: MuseTalk) -> None:
    """What the server's front end leaves of the audio gives the same condition in training and in
    the server, at any grid phase."""
    audio = speech(3.0)
    front_end = FrontEnd(RATE)
    front_end.push(audio)
    front_end.flush()
    chunker = Chunker(served.spec.grid, Fraction(25), 8000)
    chunks = [*chunker.push(audio), *chunker.flush()]
    for frame in (30, 31, 33):
        chunk = next(c for c in chunks if c.first_frame <= frame < c.first_frame + c.frame_count)
        condition = served.condition(served.encode_audio(chunk.windows), chunk)
        first = 2 * frame - 4
        start = (first - first % BLOCK - LEFT) * STEP
        starts = [start + block * BLOCK * STEP for block in range(3)]
        windows = np.stack([front_end.window(at, at + WINDOW_POSITIONS * STEP) for at in starts])
        with torch.no_grad():
            phase = torch.tensor([first % BLOCK])
            trained = networks.condition(torch.from_numpy(windows)[None], phase)[0]
        assert np.allclose(condition[frame - chunk.first_frame], trained, atol=2e-3)


def test_training_and_serving_draw_the_same_picture(networks: Networks, served: MuseTalk) -> None:
    """The same crop and condition make the same picture in training and in the server."""
    rng = np.random.default_rng(3)
    crop = np.kron(rng.integers(0, 255, (1, 16, 16, 3)), np.ones((1, 16, 16, 1))).astype(np.uint8)
    condition = rng.standard_normal((1, 50, 192)).astype(np.float32)
    served_picture = served.generate(served.encode_crops(crop), condition)[0, TOP:].astype(float)
    pixels = torch.from_numpy(crop).permute(0, 3, 1, 2).float() / 127.5 - 1
    masked = pixels.clone()
    masked[:, :, 128:] = -1
    with torch.no_grad():
        latents = networks(
            networks.encode(masked), networks.encode(pixels), torch.from_numpy(condition)
        )
        made = networks.decode(latents).clamp(-1, 1)
    trained_picture = ((made[0].permute(1, 2, 0) + 1) * 127.5).numpy()
    # The server keeps latents in float16 and rounds to bytes.
    assert np.abs(served_picture - trained_picture).mean() < 1.0


def test_training_and_preparing_crop_alike() -> None:
    """Training and preparing crop a face inside the picture alike, to one pixel of rounding."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        points = rng.uniform((160, 180), (360, 400), (68, 2))
        points[29] = points.mean(0) - (0, 20)
        ours = crop_box(points)
        theirs = serving_crop_box(points, CropMargin(relative=MARGIN), 4000, 4000)
        assert np.abs(np.array(ours) - theirs).max() <= 1


def test_augmented_speech_is_still_audio() -> None:
    """Augmentation keeps audio finite, in range and of the same length."""
    torch.manual_seed(1)
    audio = torch.from_numpy(speech(1.2)).repeat(16, 1)
    changed = augment(audio)
    assert changed.shape == audio.shape and changed.isfinite().all() and changed.abs().max() <= 1


def test_windows_of_one_frame_belong_to_one_voice() -> None:
    """All three windows of a frame get the same change of timbre."""
    torch.manual_seed(2)
    mel = torch.rand(1, 80, 100).repeat(12, 1, 1)
    changed = vary_timbre(mel, group=3).reshape(4, 3, 80, 100)
    assert (changed == changed[:, :1]).all()
    assert (changed[0] != changed[1]).any() or (changed[0] != changed[2]).any()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Three voices whose tone sounds while the jaw is open; one of them is for training."""
    (tmp_path / "audio").mkdir()
    clips = []
    for voice, split in (("seen", "train"), ("dev", "dev_voice"), ("held_out", "heldout_voice")):
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


def test_a_voice_is_drawn_by_the_root_of_its_minutes(corpus: Corpus) -> None:
    """A voice with four times the minutes is drawn twice as often, whatever its clips' lengths."""
    long = [dict(corpus.clips[0], voice="long", seconds=2.0) for _ in range(4)]
    spans = corpus._spans([*long, dict(corpus.clips[0], voice="short", seconds=2.0)])
    assert float(spans[:4, 2].sum() / spans[4, 2]) == pytest.approx(2)
    times = corpus.sample_times(200, spans)
    first = corpus.start["seen"]
    assert first - 0.3 <= float(times.min()) and float(times.max()) <= first + 2.3


def test_held_out_voices_are_evaluated_by_voice_and_split(corpus: Corpus) -> None:
    """A correct prediction of the jaw correlates with the truth, its negative does not."""

    def read(mel: torch.Tensor) -> torch.Tensor:
        positions = mel.amax(1).unflatten(1, (-1, 2)).mean(2)[:, EVALUATED]
        controls = torch.zeros(*positions.shape, len(corpus.names))
        controls[..., corpus.names.index("jawOpen")] = positions
        return controls

    test = OpeningTest(corpus)
    figures = test.evaluate(read)
    assert {split: set(voices) for split, voices in figures.items()} == {
        "dev_voice": {"mean", "dev"},
        "heldout_voice": {"mean", "held_out"},
    }
    assert figures["dev_voice"]["dev"] > 0.9
    assert test.evaluate(lambda mel: -read(mel))["dev_voice"]["dev"] < -0.9


def test_encoders_are_compared_by_a_linear_probe(
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One command prints, for each model, how well a linear probe predicts the mouth, by voice."""
    (tmp_path / "visemes.json").write_text(json.dumps(VISEMES))
    embedded, out = str(embedded_weights()), tmp_path / "figures.json"
    words = [embedded, "--corpus", str(tmp_path), "--visemes", str(tmp_path / "visemes.json")]
    monkeypatch.setattr(
        "sys.argv", ["evaluate_audio", *words, "--json", str(out), "--windows", "300"]
    )
    evaluate_audio()
    figures = json.loads(out.read_text())[embedded]
    assert figures["heldout_voice"]["held_out"] > 0.9  # a tone sounds while the jaw is open
    assert f"{embedded} [dev_voice] mean" in capsys.readouterr().out


def test_times_of_the_evaluated_positions() -> None:
    """A position is 20 ms of the window, the 25th begins at its centre; a fast voice spans more."""
    times = position_times(torch.tensor([3.0]), torch.tensor([1.0]))[0]
    assert float(times[25 - EVALUATED.start]) == pytest.approx(3.01)
    assert times.diff().numpy() == pytest.approx(STEP / RATE, abs=1e-5)
    fast = position_times(torch.tensor([3.0]), torch.tensor([1.5]))[0]
    assert (fast - 3.0).numpy() == pytest.approx(1.5 * (times - 3.0).numpy(), abs=1e-5)


def test_sealed_lips_have_no_opening() -> None:
    """The opening is the jaw's, reduced by how far the lips are sealed."""
    controls = torch.tensor([[0.6, 0.0], [0.6, 1.0], [0.0, 0.0], [0.6, 0.5]])
    assert opening(controls, ["jawOpen", "lipSeal"]).tolist() == pytest.approx([0.6, 0, 0, 0.3])


RATES = dict(student=1e-3, tune=1e-3, truth=1.0, opening=1.0, teacher=1.0)
RATES |= dict(teacher_mouth=1.0, dropout=0.1, windows=4)


@pytest.fixture
def teacher(corpus: Corpus) -> Teacher:
    """An encoder of the teacher's classes, small and random."""
    torch.manual_seed(4)
    shape = dict(d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32)
    return Teacher(shape, corpus)


def test_the_audio_stage_returns_its_correlations(networks: Networks, corpus: Corpus) -> None:
    """Training changes the encoder and its average, and returns a figure for each voice."""
    student, average = copy.deepcopy(networks), copy.deepcopy(networks)
    figures = train_audio(student, average, corpus, [], 0.5, RATES)
    assert -1 <= figures["dev_voice"]["mean"] <= 1 and "held_out" in figures["heldout_voice"]
    before, after = networks.audio.conv1.weight, student.audio.conv1.weight
    assert not torch.equal(before, after) and after.isfinite().all()
    assert not torch.equal(before, average.audio.conv1.weight)
    assert all(layer.dropout == 0 for layer in student.audio.layers)


def test_a_tuned_teacher_is_saved_with_its_probe(
    teacher: Teacher, corpus: Corpus, tmp_path: Path
) -> None:
    """Tuning changes a teacher, and a saved one predicts the same mouth for the same sound."""
    untuned = copy.deepcopy(teacher)
    figures = train_teacher(teacher, corpus, 0.5, RATES | dict(tune=0.05))
    assert "held_out" in figures["heldout_voice"]
    teacher.save(tmp_path / "tuned.safetensors")
    again = Teacher.load(tmp_path / "tuned.safetensors", corpus)
    assert again.tuned and not untuned.tuned
    mel = log_mel(torch.from_numpy(speech(1.0))[None])
    with torch.no_grad():
        mouth, loaded_mouth, before = (t.eval()(mel)[1] for t in (teacher, again, untuned))
    assert (mouth - loaded_mouth).abs().max() < 0.2 * (mouth - before).abs().max()


def test_an_encoder_can_learn_from_teachers_alone(
    networks: Networks, teacher: Teacher, corpus: Corpus
) -> None:
    """Without labels the encoder follows its teachers, whatever their sizes. The teachers do not
    change, and their states have equal weight whatever their scale."""
    other = Teacher(teacher.shape | dict(d_model=8, encoder_layers=1), corpus)
    teacher.tuned = other.tuned = True
    kept = copy.deepcopy(teacher.encoder.state_dict())
    student, average = copy.deepcopy(networks), copy.deepcopy(networks)
    train_audio(student, average, corpus, [teacher, other], 0.5, RATES | dict(truth=0.0))
    moved = student.audio.conv1.weight
    assert moved.isfinite().all() and not torch.equal(moved, networks.audio.conv1.weight)
    assert all(torch.equal(v, kept[k]) for k, v in teacher.encoder.state_dict().items())
    mel = vary_timbre(log_mel(augment(torch.from_numpy(speech(1.0))[None].repeat(64, 1) * 0.4)))
    teacher.measure(mel)
    states = teacher.normalised(teacher(mel)[0]).flatten(0, 1)
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


def test_the_mouth_weight_covers_the_lips_and_the_opening_jaw() -> None:
    """The weight covers the lips at rest and the area below, into which the jaw opens."""
    weight = mouth_weight(torch.tensor([[90.0, 170.0, 170.0, 190.0]]))[0, 0]
    assert weight[180 - TOP, 130] > 4.5 and weight[210 - TOP, 130] > 4.5
    assert weight[250 - TOP, 130] < 1.1 and weight[180 - TOP, 20] < 1.1


def test_the_lip_estimator_gives_three_lengths() -> None:
    """The estimator takes the decoded rows of a crop and gives gap, inner and outer width."""
    assert LipEstimator(32, 5)(torch.zeros(2, 3, 256 - TOP, 256)).shape == (2, 3)


def test_what_training_saves_can_be_served(networks: Networks, tmp_path: Path) -> None:
    """A saved model loads as it is, decodes from the trained row on and weighs at most 40 MiB."""
    save(tmp_path, networks.vae, networks.unet, networks.audio, float(networks.scale))
    size = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert size <= 40 * 2**20
    model = MuseTalk.load(tmp_path, device="cpu", cpu_backend="torch", cpu_threads=1)
    assert model.spec.decode_from_row == DECODE_FROM_ROW and model.spec.crop_size == 256


def test_an_enlarged_encoder_gives_the_same_output() -> None:
    """New and wider layers change nothing until trained; sizes that do not fit are refused."""
    torch.manual_seed(5)
    shape = dict(d_model=16, encoder_attention_heads=2, max_source_positions=50, num_mel_bins=80)
    small = WhisperEncoder(WhisperConfig(**shape, encoder_layers=2, encoder_ffn_dim=24)).eval()
    large = WhisperEncoder(
        WhisperConfig(**shape, encoder_layers=4, encoder_ffn_dim=40, out_indices=[0, 2, 4])
    ).eval()
    large.load_state_dict(grow_encoder(small.state_dict(), large))
    mel = log_mel(torch.from_numpy(speech(1.0))[None])
    with torch.no_grad():
        assert torch.allclose(hidden_states(large, mel), hidden_states(small, mel), atol=1e-6)
    odd = WhisperEncoder(WhisperConfig(**shape, encoder_layers=3, encoder_ffn_dim=24))
    with pytest.raises(ValueError, match="2 layers do not grow to 3"):
        grow_encoder(small.state_dict(), odd)
    wide = WhisperEncoder(WhisperConfig(**shape | dict(d_model=32), encoder_layers=2))
    with pytest.raises(ValueError, match=r"has \[16, 80, 3\] numbers, not \[32, 80, 3\]"):
        grow_encoder(small.state_dict(), wide)


def test_a_misspelt_rate_is_refused() -> None:
    """A name that no stage knows ends the command and is not ignored."""
    assert amounts("audio=1", "audio=400,face=600") == {"audio": 1.0}
    with pytest.raises(SystemExit, match="unknown name 'ear'.*student"):
        amounts("tune=1,ear=2", "tune=1e-4,student=1e-3")


def test_processes_train_one_model(tmp_path: Path) -> None:
    """Two processes begin alike, end at the same step however fast each is, and with one model,
    which has learnt from both; the group is gone then: its threads could abort Python's end."""
    address = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()), WORLD_SIZE="2")
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.distributed_processes", str(tmp_path)],
            env=os.environ | address | dict(RANK=str(rank)),
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    assert [process.wait(300) for process in running] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert first == second and first["steps"] % 50 == 0
    assert first["group_is_gone"]
    assert first["weight"] == pytest.approx(1.5, abs=0.3)  # one alone learns 1, the other 2


def test_an_average_is_between_its_models(tmp_path: Path) -> None:
    """The mean of all weights, in the last one's type; files that only the last has are kept."""
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
def test_unfit_shares_are_refused(shares: list[float], tmp_path: Path) -> None:
    """Too few shares, or shares whose sum is not 1, are an error."""
    with pytest.raises(ValueError, match="3 models need as many shares"):
        average([tmp_path] * 3, tmp_path / "mean", shares)


def test_a_missing_model_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped folder is neither left out of a mean nor evaluated as a random model."""
    with pytest.raises(FileNotFoundError, match="mistyped"):
        average([tmp_path / "mistyped", tmp_path], tmp_path / "mean")
    words = ["--corpus", str(tmp_path), "--visemes", str(tmp_path / "visemes.json")]
    monkeypatch.setattr("sys.argv", ["evaluate_audio", str(tmp_path / "mistyped"), *words])
    with pytest.raises(SystemExit):
        evaluate_audio()
    assert "mistyped holds no whisper/model.safetensors" in capsys.readouterr().err


def test_idle_motion_blinks_and_never_moves_the_mouth() -> None:
    """Nine seconds of every bundled idle have blinks and small motion, and no mouth controls."""
    for person in BUNDLED:
        motion = idle_motion(person.motion_seed, 225)
        upper = [m[0] for m in motion]
        assert {name for controls in upper for name in controls} == {"eyeBlink", "browInnerUp"}
        blinks = np.array([controls["eyeBlink"] for controls in upper])
        assert blinks.max() > 0.9 and (blinks == 0).mean() > 0.5
        turns = np.array([m[1] for m in motion])
        assert 0.5 < np.ptp(turns, axis=0).max() < 15
        assert np.abs(np.diff(turns, axis=0)).max() < 0.5  # degrees a frame: no jerk


def test_a_pair_keeps_one_style_and_one_light() -> None:
    """Reference and target come from one source: what changes one changes the other alike.

    A good part stays as rendered, and colours change little, so that teeth and lips keep theirs.
    """
    torch.manual_seed(3)
    picture = torch.rand(96, 3, 64, 64) * 2 - 1
    first, second, plain = restyle_pairs(picture, picture.clone())
    assert torch.allclose(first, second, atol=1e-4)
    assert first.shape == picture.shape and first.min() >= -1 and first.max() <= 1
    change = (first - picture).abs().mean((1, 2, 3))
    assert 0.3 < (change > 0.01).float().mean() < 0.8
    colour = (first - picture).mean((2, 3))
    assert (colour - colour.mean(1, keepdim=True)).abs().mean() < 0.02
    assert set(plain.tolist()) == {0.0, 1.0}


def test_some_sources_have_an_open_mouth(tmp_path: Path) -> None:
    """About a third of the references speak a little, so that a talking source does not leak."""
    clip = dict(
        clip="a", seconds=4.0, voice="v", split="train", labelled=True, segments=[["AA", 0, 4]]
    )
    (tmp_path / "clips.json").write_text(json.dumps([clip]))
    speech = Speech(tmp_path, VISEMES, ("train",))
    rng = np.random.default_rng(5)
    opened = np.array([speech.source(rng).get("jawOpen", 0.0) for _ in range(300)])
    assert 0.2 < (opened > 0.01).mean() < 0.45
    assert opened.max() <= VISEMES["AA"]["jawOpen"] + 1e-6


def test_a_turned_head_keeps_its_moment() -> None:
    """Only the yaw changes."""
    upper, pose, shift = moment = idle_motion(1, 3)[2]
    assert turned(moment, 30) == (upper, (pose[0], pose[1] + 30, pose[2]), shift)


def test_every_bundled_person_has_a_light_of_the_renderer() -> None:
    """The renderer's lights have these names; another one stops the person's clips and shards."""
    assert {person.light for person in BUNDLED} <= {"studio", "warm", "window", "soft"}
