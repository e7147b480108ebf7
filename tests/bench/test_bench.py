"""The bench: its figures are those of the server's renderer, and failed frames do not count."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.fake_model import FakeModel, make_avatar
from tests.page_server import light_settings
from wsavatar.avatars.store import AvatarStore
from wsavatar.bench import ceiling, command, overload, precision, reference, renderer
from wsavatar.bench.command import parse_parts
from wsavatar.bench.report import (
    BenchError,
    Ceiling,
    ConvolutionRate,
    ReferenceSpeed,
    Report,
    Throughput,
    compare,
    table,
)
from wsavatar.bench.resized import parse_size, write_resized
from wsavatar.bench.timing import stopwatch
from wsavatar.cli import main
from wsavatar.config import AvatarSettings, RenderSettings
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.random import _ARCHITECTURES
from wsavatar.faces.musetalk.spec import OFFICIAL_GRID, CropMargin, ModelSpec
from wsavatar.faces.registry import FACES
from wsavatar.render.pool import FacePool

FULL = ModelSpec("v15", 256, 4, 32, 5, 384, OFFICIAL_GRID, CropMargin(), "")


def inputs_for(model: FakeModel, seconds: float = 1.0, **settings: int) -> renderer.BenchInput:
    return renderer.BenchInput.of(make_avatar(), RenderSettings(**settings), model.windows, seconds)


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings of a small random model and drawn avatars, as words for the command line."""
    settings = light_settings(tmp_path_factory.mktemp("light"))
    settings += ["model.cpu_backend=torch", "render.batch_size=2", "render.max_batch_size=2"]
    return [word for setting in settings for word in ("--set", setting)]


def value(words: list[str], name: str) -> Path:
    """The path that a setting among ``words`` names."""
    return Path(next(word for word in words if word.startswith(f"{name}=")).partition("=")[2])


@pytest.fixture(scope="module")
def directory(light: list[str]) -> Path:
    """The folder of the small model."""
    return value(light, "model.path")


@pytest.fixture(scope="module")
def mini(directory: Path) -> MuseTalk:
    return MuseTalk.load(directory, cpu_backend="torch")


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest measurements: tests check which figures exist, not their values."""
    monkeypatch.setattr(renderer, "BATCHES", 1)
    monkeypatch.setattr(renderer, "REPETITIONS", 1)
    monkeypatch.setattr(renderer, "LATENCY_CHUNKS", 1)
    monkeypatch.setattr(reference, "BATCHES", 1)
    monkeypatch.setattr(reference, "REPETITIONS", 1)


@pytest.mark.usefixtures("brief")
def test_the_json_has_every_part_asked_for(light: list[str], capsys) -> None:
    """Each part has figures at every batch size, and standard output holds nothing but JSON."""
    parts = "stages,throughput,latency,reference,scaling"
    words = ["bench", "--json", "--batch-size", "2", "--seconds", "1", "--parts", parts]
    assert main([*words, *light]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert [row["batch_size"] for row in report["stages_ms"]] == [1, 2]
    for row in report["stages_ms"]:
        stages = [row[name] for name in ("features", "generate", "paste", "jpeg")]
        assert min(stages) > 0 and row["total"] == pytest.approx(sum(stages), abs=0.01)
    assert [row["batch_size"] for row in report["throughput"]] == [1, 2]
    assert report["first_frame"]["chunks"] >= 2
    assert 0 < report["first_frame"]["p50_ms"] <= report["first_frame"]["p95_ms"]
    [other], [compared] = report["reference"], report["comparison"]
    assert 0 < other["with_jpeg_frames_per_s"] <= other["frames_per_s"]
    ours = report["throughput"][1]["frames_per_s"]
    assert compared["times_reference"] == pytest.approx(ours / other["frames_per_s"], abs=0.01)
    assert [row["devices"] for row in report["scaling"]] == [1]
    for row in (*report["throughput"], other):  # said as they came, for a run that is cut short
        assert f"batch {row['batch_size']}: {row['frames_per_s']} frames/s" in err
    assert f"1 device: {report['scaling'][0]['frames_per_s']} frames/s" in err
    assert report["ceiling"] is None


def test_precision_compares_pictures_of_the_same_speech(light: list[str], capsys) -> None:
    """Float32 comes first and equals itself; bfloat16 has its speed and its distance beside it."""
    words = ["bench", "--json", "--batch-size", "2", "--seconds", "1", "--parts", "precision"]
    assert main([*words, *light]) == 0
    whole, half = json.loads(capsys.readouterr().out)["precision"]
    assert (whole["dtype"], half["dtype"]) == ("float32", "bfloat16")
    assert whole["psnr_db"] == precision.SAME_DB and whole["greatest_difference"] == 0
    assert 20 < half["worst_frame_db"] <= half["psnr_db"] < precision.SAME_DB
    assert min(whole["frame_ms"], half["frame_ms"], whole["block_ms"], half["block_ms"]) > 0


def test_overload_begins_with_the_best_load(
    light: list[str], capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each load has its sessions, and what they got together and each."""
    monkeypatch.setattr(command, "OVERLOAD_S", 1.0)
    monkeypatch.setattr(overload, "SETTLE_S", 0.0)
    monkeypatch.setattr(overload, "TIMES", (2.0,))
    words = ["bench", "--json", "--batch-size", "2", "--seconds", "1", "--parts", "overload"]
    assert main([*words, *light]) == 0
    best, twice = json.loads(capsys.readouterr().out)["overload"]
    assert (best["times"], best["share_of_best"], twice["times"]) == (1.0, 1.0, 2.0)
    assert twice["sessions"] == max(1, round(2 * best["frames_per_s"] / 25))
    assert 0 <= twice["least"] <= twice["most"] <= 25 and best["frames_per_s"] > 0


def test_a_level_of_255_everywhere_is_48_db() -> None:
    """The unit of the pictures' distance: 20 log10 255."""
    assert precision.psnr_db(1.0) == pytest.approx(48.13, abs=0.01)


@pytest.mark.usefixtures("brief")
def test_an_avatar_of_another_size_is_measured(light: list[str], capsys) -> None:
    """`--avatar-size` renders the avatar at that size, and the table states it."""
    words = ["bench", "--parts", "stages", "--batch-size", "1", "--seconds", "1"]
    assert main([*words, "--avatar", "noor", "--avatar-size", "640x360", *light]) == 0
    shown = capsys.readouterr().out
    assert "noor-640x360, 640x360" in shown and "UNet and VAE" in shown and "frames/s" not in shown


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--parts", "stages,speed"], "expected stages, throughput"),
        (["--batch-size", "65"], "from 1 to 64"),
        (["--seconds", "0.5"], "from 1 to 600"),
        (["--avatar-size", "big"], "WIDTHxHEIGHT"),
        (["--parts", "reference", "--set", "model.decoder=tiny"], "decodes with the VAE only"),
        (["--reference", "--set", "model.decoder=tiny"], "decodes with the VAE only"),
        (["--audio", "a.wav"], "need --sessions"),
        (["--sessions", "0"], "from 1 to 1000"),
        (["--sessions", "1", "--url", "http://localhost"], "expected ws://"),
        (["--sessions", "1", "--url", "ws://h", "--avatar-size", "640x360"], "leave --url out"),
    ],
)
def test_a_wrong_option_is_an_error_before_anything_is_loaded(
    words: list[str], expected: str, capsys
) -> None:
    """The error names the allowed values."""
    assert main(["bench", *words]) == 2
    assert expected in capsys.readouterr().err


@pytest.mark.usefixtures("brief")
def test_another_face_model_is_measured_too(
    light: list[str], capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is about MuseTalk's own networks is refused."""
    monkeypatch.setitem(FACES, "drawn", "tests.faces.drawn_mouth")
    model = ["--set", "model.name=drawn", "--set", "model.devices=cpu"]
    for name in ("directory", "cache"):
        model += ["--set", f"avatars.{name}={value(light, f'avatars.{name}')}"]
    words = ["bench", "--json", "--batch-size", "1", "--seconds", "1", *model]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["throughput"][0]["frames_per_s"] > 0 and report["first_frame"]["p50_ms"] > 0
    assert main([*words, "--parts", "ceiling,stages"]) == 2
    assert "ceiling is of musetalk only" in capsys.readouterr().err


def test_parts_are_separated_by_commas() -> None:
    """Spaces are ignored."""
    assert parse_parts("stages, ceiling") == {"stages", "ceiling"}


# -- the renderer ---------------------------------------------------------------------------------


def test_the_batch_asked_for_is_the_batch_that_runs() -> None:
    """Figures at batch 4 are measured in batches of 4, which do not grow as on a server."""
    model = FakeModel()
    inputs = inputs_for(model, batch_size=16, max_batch_size=32)
    assert renderer.measure_throughput([model], inputs, 4).frames_per_s > 0
    assert max(map(len, model.batches)) == 4


def test_stages_run_full_batches_only() -> None:
    """The frames left at the end are not measured, because they would be padded."""
    model = FakeModel()
    renderer.measure_stages(model, inputs_for(model), 4)
    assert set(map(len, model.batches)) == {4}


def test_the_first_frame_is_measured_in_configured_batches() -> None:
    """Latency uses the configured batch size, whatever sizes throughput was measured at."""
    model = FakeModel()
    first = renderer.measure_first_frame(model, inputs_for(model, batch_size=2, max_batch_size=2))
    assert max(map(len, model.batches)) == 2
    assert 0 < first.p50_ms <= first.p95_ms


def test_small_batches_render_fewer_frames() -> None:
    """A repetition has fifty batches, whatever their size."""
    inputs = inputs_for(FakeModel(), 10.0)
    assert inputs.frames == 250
    assert 50 <= sum(chunk.frame_count for chunk in inputs.chunks_for(50)) < 50 + 13
    assert sum(chunk.frame_count for chunk in inputs.chunks_for(9999)) == 250


def test_a_model_that_fails_gives_no_figures() -> None:
    """A dropped frame is an error and does not count as a fast one."""
    model = FakeModel()
    model.bad_frames = {3}
    with pytest.raises(BenchError, match="1 of 25 frames could not be rendered"):
        renderer.measure_throughput([model], inputs_for(model), 4)


def test_scaling_uses_every_device() -> None:
    """Of two devices each renders about half of the frames."""
    models = [FakeModel("one"), FakeModel("two")]
    inputs = inputs_for(models[0], 4.0)
    pool = FacePool(models, inputs.at_batch(4))
    one, two = renderer.measure_scaling(pool, 2, inputs, 4)
    assert (one.devices, one.ratio, two.devices) == (1, 1.0, 2)
    assert two.ratio == pytest.approx(two.frames_per_s / one.frames_per_s, abs=0.01)
    alone = renderer.REPETITIONS * 100
    shares = [sum(map(len, model.batches)) for model in models]
    assert shares[1] > alone // 3 and sum(shares) == 2 * alone


def test_scaling_prints_each_figure_at_once() -> None:
    """An aborted run keeps the figures that it has measured."""
    models = [FakeModel("one"), FakeModel("two")]
    inputs = inputs_for(models[0])
    pool = FacePool(models, inputs.at_batch(4))
    heard: list[tuple[str, int]] = []
    one, two = renderer.measure_scaling(
        pool, 2, inputs, 4, lambda text: heard.append((text, len(models[1].batches)))
    )
    [(first, second_ran), (last, _)] = heard
    assert first == f"1 device: {one.frames_per_s:.1f} frames/s, 1.00 times one"
    assert second_ran == 0
    assert last == f"2 devices: {two.frames_per_s:.1f} frames/s, {two.ratio:.2f} times one"


@pytest.mark.parametrize(("greatest", "sizes"), [(1, [1]), (4, [1, 2, 4]), (6, [1, 2, 4, 6])])
def test_batch_sizes_double_up_to_the_largest(greatest: int, sizes: list[int]) -> None:
    """1, 2, 4, … and the size asked for."""
    assert renderer.batch_sizes(greatest) == sizes


# -- the reference path ---------------------------------------------------------------------------


def test_the_reference_path_gives_our_pictures(directory: Path, tmp_path: Path) -> None:
    """With equal weights and conditions the patches differ by rounding only."""
    shutil.copytree(directory, tmp_path / "model")
    extras = json.loads((directory / "wsavatar.json").read_text("utf-8"))
    whole = extras | {"decode_from_row": 0}  # the script knows no part of a picture
    (tmp_path / "model" / "wsavatar.json").write_text(json.dumps(whole), "utf-8")
    model = MuseTalk.load(tmp_path / "model", cpu_backend="torch")
    path = reference.ReferencePath(tmp_path / "model", "v15", model.device, model.dtype)
    spec, rng = model.spec, np.random.default_rng(1)
    shape = (2, 2 * spec.latent_channels, spec.latent_size, spec.latent_size)
    latents = rng.normal(size=shape).astype(np.float16)
    tokens = spec.grid.frame_positions * spec.layers
    conditions = list(rng.normal(size=(2, tokens, spec.dim)).astype(np.float32))
    ours = np.asarray(model.generate(latents, conditions)).astype(int)
    theirs = path.patches(latents, conditions).astype(int)
    assert ours.std() > 1 and np.abs(ours - theirs).max() <= 1


def test_the_reference_pastes_inside_the_mask_only() -> None:
    """At mask 0 the frame is kept, at 255 it is the patch, between them a blend."""
    frame = np.full((40, 40, 3), 100, np.uint8)
    patch = np.full((8, 8, 3), 200, np.uint8)
    mask = np.zeros((24, 24), np.uint8)
    mask[10:20, 4:20] = 255
    mask[9, 4:20] = 128
    pasted = reference.paste_by_pil(frame, patch, (8, 8, 24, 24), (4, 4, 28, 28), mask)
    assert (pasted[14:24, 8:24] == 200).all() and (pasted[13, 8:24] == 150).all()
    pasted[13:24, 8:24] = 100
    assert (pasted == 100).all() and (frame == 100).all()


def test_the_reference_resizes_like_the_official_script() -> None:
    """Bilinear: an edge becomes a ramp between its two levels, without Lanczos' overshoot."""
    frame, mask = np.zeros((24, 24, 3), np.uint8), np.full((24, 24), 255, np.uint8)
    patch = np.full((6, 6, 3), 50, np.uint8)
    patch[:, 3:] = 200
    pasted = reference.paste_by_pil(frame, patch, (0, 0, 24, 24), (0, 0, 24, 24), mask)
    ramp = [69, 106, 144, 181]  # an eighth, three, five and seven of the way
    assert np.abs(pasted[:, :, 0] - np.array([50] * 10 + ramp + [200] * 10)).max() <= 1


# -- ceiling and comparison -----------------------------------------------------------------------


def test_a_full_size_frame_is_800_gflop(tmp_path: Path) -> None:
    """UNet 178 and decoder 622, counted on modules without weights."""
    names = {
        "unet": "musetalkV15/musetalk.json",
        "vae": "sd-vae/config.json",
        "tiny": "taesd/config.json",
    }
    for part, name in names.items():
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(json.dumps(_ARCHITECTURES["full"][part]), "utf-8")
    assert ceiling.frame_flops(tmp_path, FULL) / 1e9 == pytest.approx(800, abs=1)
    lower_half = replace(FULL, decode_from_row=16)
    assert 450 < ceiling.frame_flops(tmp_path, lower_half) / 1e9 < 520  # of the decoder, half
    assert 200 < ceiling.frame_flops(tmp_path, FULL, "tiny") / 1e9 < 300  # TAESD decodes


def test_the_ceiling_is_measured_on_this_device(mini: MuseTalk, directory: Path) -> None:
    """Every shape has a rate, and cuDNN's setting is restored."""
    before = torch.backends.cudnn.benchmark
    load = ceiling.Load(1, ((64, 32), (32, 32)), 64, 2**16, groups=3, calls=2)
    found = ceiling.measure_ceiling(directory, mini.spec, "cpu", "float32", load)
    assert [(one.channels, one.side) for one in found.convolutions] == [(64, 32), (32, 32)]
    assert found.tflops > 0 and found.copy_gb_per_s > 0 and found.gflop_per_frame > 0
    assert torch.backends.cudnn.benchmark == before


def test_memory_of_graphs_counts_as_reserved() -> None:
    """The table has the memory in tensors and the reserved memory, which includes CUDA graphs."""
    rows = [Throughput(1, 232.0, 3400, 3900)]
    machine, avatar = {"cpu": "a", "cores": 2, "cuda": []}, {"id": "a", "width": 2, "height": 2}
    model = {"directory": "m", "dtype": "float16", "devices": ["cuda:0"]}
    report = Report(machine, model, avatar, 1, 1, throughput=tuple(rows))
    shown = table(report)
    assert "MiB in tensors  MiB reserved" in shown and "in use" not in shown


def test_the_comparison_with_the_reference_and_the_ceiling() -> None:
    """Ratios at batch sizes that both ran; the ceiling is the best convolution's rate."""
    rates = (ConvolutionRate(512, 64, 700.0), ConvolutionRate(128, 256, 600.0))
    chip = Ceiling(16, rates, 720.0, 3900.0, 800.0)
    assert chip.frames_per_s == pytest.approx(875)
    ours = [Throughput(2, 200.0), Throughput(4, 437.5)]
    two, four = compare(ours, [ReferenceSpeed(4, 87.5, 70.0)], chip)
    assert (two.times_reference, two.share_of_ceiling) == (None, pytest.approx(0.229))
    assert (four.times_reference, four.times_reference_with_jpeg) == (5.0, 6.25)
    assert four.share_of_ceiling == 0.5
    assert compare(ours, [], None) == ()


# -- avatars and clocks ---------------------------------------------------------------------------


def test_landmarks_of_a_resized_avatar_move_with_the_face(light: list[str], tmp_path: Path) -> None:
    """The picture fits, its edges fill the rest, and landmarks are on the same features."""
    source = value(light, "avatars.directory")
    id = write_resized(source / "ada", 1280, 720, tmp_path)
    store = AvatarStore(AvatarSettings(directory=tmp_path), None)  # type: ignore[arg-type]
    [info] = store.list()
    assert (info.id, info.width, info.height, info.frame_count) == (id, 1280, 720, 50)
    before = np.array(json.loads((source / "ada" / "landmarks.json").read_text("utf-8")))
    after = np.array(json.loads((tmp_path / id / "landmarks.json").read_text("utf-8")))
    assert np.abs(after - (before * 720 / 512 + (280, 0))).max() <= 0.11


@pytest.mark.parametrize("text", ["1280", "1280x", "1281x720", "64x64", "5000x720", "1280×720"])
def test_a_size_must_be_possible_for_videos(text: str) -> None:
    """Even numbers from 128 to 4096."""
    with pytest.raises(BenchError, match="WIDTHxHEIGHT"):
        parse_size(text)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_work_is_timed_until_the_device_has_finished() -> None:
    """A kernel that is still queued when the call returns counts in full."""
    device = torch.device("cuda")
    left = torch.randn(4096, 4096, device=device)
    elapsed_ms = stopwatch(device)
    elapsed_ms(lambda: left @ left)
    once = min(elapsed_ms(lambda: left @ left) for _ in range(3))
    assert elapsed_ms(lambda: [left @ left for _ in range(50)]) > 10 * once
