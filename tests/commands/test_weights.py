"""Weights: loading, checks and downloads."""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from wsavatar.commands import weights
from wsavatar.config import Settings
from wsavatar.faces.musetalk.checkpoint import CheckpointError, find_problems, load_modules
from wsavatar.faces.musetalk.random import write_random_model
from wsavatar.faces.musetalk.spec import CropMargin, SpecError, read_extras

UNET = "musetalkV15/unet.safetensors"
VAE = "sd-vae/diffusion_pytorch_model.safetensors"
WHISPER = "whisper/model.safetensors"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("weights") / "mini"
    write_random_model(directory, size="mini")
    return directory


@pytest.fixture
def mini(pristine: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pristine, tmp_path / "mini")


def rename_tensors(directory: Path, name: str, old: str, new: str) -> None:
    tensors = load_file(directory / name)
    save_file({key.replace(old, new): value for key, value in tensors.items()}, directory / name)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def state(directory: Path, version: str = "v15") -> dict[str, torch.Tensor]:
    loaded = load_modules(directory, version, torch.float32)
    parts = {"unet": loaded.unet, "vae": loaded.vae, "audio": loaded.audio}
    return {f"{p}.{k}": v for p, module in parts.items() for k, v in module.state_dict().items()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


# What loads


def test_a_complete_directory_has_no_problems(pristine: Path) -> None:
    """No problem is found, and sizes come from the config files."""
    assert find_problems(pristine, "v15") == []
    spec = load_modules(pristine, "v15", torch.float32).spec
    assert (spec.crop_size, spec.latent_size, spec.latent_channels) == (256, 16, 4)
    assert (spec.layers, spec.dim) == (3, 32)


@pytest.mark.parametrize("prefix", ["model.encoder.", "encoder.", ""])
def test_whispers_encoder_loads_under_any_prefix(pristine: Path, mini: Path, prefix: str) -> None:
    """Of a file with the whole Whisper model only the encoder's tensors are loaded."""
    rename_tensors(mini, WHISPER, "model.encoder.", prefix)
    if prefix:
        tensors = load_file(mini / WHISPER)
        save_file(tensors | {"model.decoder.layer_norm.weight": torch.ones(3)}, mini / WHISPER)
    assert same(state(mini), state(pristine))


def test_version_1_loads_from_torch_files(pristine: Path, mini: Path) -> None:
    """.bin and .pth are read weights-only; both versions share VAE and Whisper."""
    (mini / "musetalk").mkdir()
    shutil.copy(mini / "musetalkV15/musetalk.json", mini / "musetalk/musetalk.json")
    torch.save(load_file(mini / UNET), mini / "musetalk/pytorch_model.bin")
    torch.save(load_file(mini / VAE), mini / "sd-vae/diffusion_pytorch_model.bin")
    (mini / VAE).unlink()
    old_format = partial(torch.save, _use_new_zipfile_serialization=False)
    old_format(load_file(mini / WHISPER), mini / "whisper/pytorch_model.bin")
    (mini / WHISPER).unlink()
    assert find_problems(mini, "v1") == []
    assert same(state(mini, "v1"), state(pristine))
    assert load_modules(mini, "v1", torch.float32).spec.version == "v1"


def test_files_that_change_while_they_are_read_are_refused(mini: Path, monkeypatch) -> None:
    """A mixture of old and new weights is an error and is not cached."""
    from wsavatar.faces.musetalk import checkpoint

    real = checkpoint._fill

    def changed_meanwhile(opened: checkpoint._Opened, dtype: torch.dtype) -> None:
        real(opened, dtype)
        if opened.files.part == "vae":
            tensors = load_file(mini / UNET)
            save_file({name: tensor + 1 for name, tensor in tensors.items()}, mini / UNET)

    monkeypatch.setattr(checkpoint, "_fill", changed_meanwhile)
    with pytest.raises(CheckpointError, match="changed while they were read"):
        load_modules(mini, "v15", torch.float32)


def test_the_small_decoder_is_used_only_when_configured(mini: Path) -> None:
    """It is loaded and checked only with ``model.decoder: tiny``."""
    assert load_modules(mini, "v15", torch.float32).tiny is None
    assert load_modules(mini, "v15", torch.float32, "tiny").tiny is not None
    edit(mini / "taesd/config.json", latent_channels=8)
    (problem,) = find_problems(mini, "v15", "tiny")
    assert problem.startswith("taesd/diffusion_pytorch_model.safetensors: ")
    shutil.rmtree(mini / "taesd")
    assert find_problems(mini, "v15") == []
    assert len(find_problems(mini, "v15", "tiny")) == 2


def test_old_attention_names_of_the_published_vae_load(mini: Path) -> None:
    """sd-vae-ft-mse has the attention names and shapes of older diffusers."""
    edit(mini / "sd-vae/config.json", mid_block_add_attention=True)
    with torch.device("meta"):
        from diffusers import AutoencoderKL

        vae = AutoencoderKL.from_config(json.loads((mini / "sd-vae/config.json").read_text()))
    tensors = {k: torch.randn(v.shape) for k, v in vae.state_dict().items()}
    names = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
    old = {}
    for key, value in tensors.items():
        renamed = key
        for new, before in names.items():
            renamed = renamed.replace(new, before)
        is_linear = renamed != key and value.ndim == 2
        old[renamed] = value[:, :, None, None].clone() if is_linear else value
    assert old.keys() != tensors.keys()
    save_file(old, mini / VAE)
    assert find_problems(mini, "v15") == []
    loaded = state(mini)
    assert all(torch.equal(loaded[f"vae.{key}"], value) for key, value in tensors.items())


def test_the_fingerprint_follows_the_weights(pristine: Path, mini: Path) -> None:
    """A changed number gives another fingerprint, a copy the same."""
    first = load_modules(pristine, "v15", torch.float32).spec.fingerprint
    assert load_modules(mini, "v15", torch.float16).spec.fingerprint == first
    tensors = load_file(mini / VAE)
    tensors["decoder.conv_out.bias"][0] += 1
    save_file(tensors, mini / VAE)
    assert load_modules(mini, "v15", torch.float32).spec.fingerprint != first


# What is said about what does not


def test_every_problem_is_reported_by_file(mini: Path) -> None:
    """Missing, misnamed, damaged and wrongly shaped files are all reported together."""
    (mini / "whisper/model.safetensors").rename(mini / "whisper/Model.safetensors")
    (mini / "sd-vae").rename(mini / "sd-vae-ft-mse")
    tensors = load_file(mini / UNET)
    tensors["conv_in.weight"] = torch.zeros(16, 9, 3, 3)
    del tensors["conv_out.bias"]
    save_file(tensors | {"surplus": torch.zeros(1)}, mini / UNET)
    with pytest.raises(CheckpointError) as caught:
        load_modules(mini, "v15", torch.float32)
    text = "\n".join(caught.value.problems)
    assert caught.value.problems == find_problems(mini, "v15")
    assert "whisper/Model.safetensors: rename it to model.safetensors" in text
    assert "found sd-vae-ft-mse/: rename it to sd-vae/" in text
    assert "conv_in.weight is [16, 9, 3, 3], its config says [16, 8, 3, 3]" in text
    assert f"{UNET}: 1 tensors missing: conv_out.bias" in text
    assert f"{UNET}: 1 tensors that the config has no place for: surplus" in text
    assert "weights --check" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (UNET, b"\x10\x00\x00\x00\x00\x00\x00\x00{", "cannot be read, download it again"),
        ("musetalkV15/musetalk.json", b"{not json", "does not describe a unet"),
        ("musetalkV15/musetalk.json", b"[1]", "does not describe a unet"),
        ("whisper/config.json", b'{"d_model": -4}', "does not describe a whisper"),
        ("whisper/preprocessor_config.json", b'{"n_fft": 512}', "n_fft must be 400, not 512"),
        ("wsavatar.json", b'{"crop": 1}', "expected an object with keys among"),
    ],
)
def test_a_damaged_file_is_a_problem_not_a_crash(
    mini: Path, name: str, content: bytes, said: str
) -> None:
    """Any content gives one line that names the file."""
    (mini / name).write_bytes(content)
    problems = find_problems(mini, "v15")
    assert any(said in problem and problem.startswith(name) for problem in problems), problems


def test_an_incomplete_file_is_a_problem(mini: Path) -> None:
    """The check finds an incomplete download."""
    whole = (mini / VAE).read_bytes()
    (mini / VAE).write_bytes(whole[: len(whole) // 2])
    (problem,) = find_problems(mini, "v15")
    assert problem.startswith(VAE)


def test_nothing_is_unpickled(mini: Path, tmp_path: Path) -> None:
    """A .pth with code is refused, and the code does not run."""
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (Path.touch, (marker,))

    (mini / UNET).unlink()
    (mini / "musetalkV15/unet.pth").write_bytes(pickle.dumps({"conv_in.weight": Evil()}))
    (problem,) = find_problems(mini, "v15")
    assert problem.startswith("musetalkV15/unet.pth: cannot be read")
    assert not marker.exists()


def test_weights_that_are_not_numbers_are_refused(mini: Path) -> None:
    """NaN, and a float32 too large for float16, are errors: they would give black frames."""
    tensors = load_file(mini / VAE)
    tensors["decoder.conv_out.bias"][0] = 1e30
    save_file(tensors, mini / VAE)
    assert load_modules(mini, "v15", torch.float32)
    with pytest.raises(CheckpointError, match="not finite in torch.float16"):
        load_modules(mini, "v15", torch.float16)


def test_parts_of_different_models_are_named(mini: Path, tmp_path: Path) -> None:
    """Where each part is complete but of another model, the message names the wrong size."""
    write_random_model(tmp_path / "compact", size="compact")
    shutil.rmtree(mini / "sd-vae")
    shutil.copytree(tmp_path / "compact/sd-vae", mini / "sd-vae")
    problems = find_problems(mini, "v15")
    assert (
        "musetalkV15/musetalk.json: the UNet's in_channels is 8, the other parts need 32"
        in problems
    )


def test_a_missing_directory_is_one_problem(tmp_path: Path) -> None:
    """A missing path is reported as such, not as nine missing files."""
    assert find_problems(tmp_path / "nowhere", "v15") == [
        f"{tmp_path / 'nowhere'}: no such directory"
    ]


# wsavatar.json


def test_official_models_need_no_extra_file(tmp_path: Path) -> None:
    """Without wsavatar.json: crop 256, 30 s windows, 10 px under the chin for v1.5, 0 for v1.0."""
    extras = read_extras(tmp_path, "v15")
    assert (extras.crop_size, extras.window_positions, extras.decode_from_row) == (256, 1500, 0)
    assert extras.extra_margin.below_chin(500) == 10
    assert read_extras(tmp_path, "v1").extra_margin.below_chin(500) == 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"crop_size": "256"}, "crop_size"),
        ({"crop_size": True}, "crop_size"),
        ({"extra_margin": -1}, "extra_margin"),
        ({"extra_margin": {"relative": 0.1, "also": 1}}, "extra_margin"),
        ({"grid": {"block_positions": 0, "left_positions": 1, "right_positions": 1}}, "block"),
        ({"grid": {"block_positions": 5}}, "exactly the keys"),
        ({"window_positions": 10}, "does not fit"),
        ({"bfloat16": 1}, "bfloat16 must be true or false"),
        ([], "keys among"),
    ],
)
def test_a_wrong_extra_is_named(tmp_path: Path, values: object, said: str) -> None:
    """The message names the wrong key."""
    (tmp_path / "wsavatar.json").write_text(json.dumps(values))
    with pytest.raises(SpecError, match=said):
        read_extras(tmp_path, "v15")


def test_a_margin_may_be_relative() -> None:
    """A relative margin is a share of the face box's height, so all faces are cropped alike."""
    assert CropMargin(relative=0.1).below_chin(240) == 24


# The command


def run(*arguments: str, **settings: object) -> int:
    parser = argparse.ArgumentParser()
    weights.add_arguments(parser)
    return weights.run(parser.parse_args(arguments), Settings(**settings))


def test_check_prints_each_problem_and_fails(mini: Path, capsys: pytest.CaptureFixture) -> None:
    """A complete directory gives 0 and how to serve it; others 2 and a line for each file."""
    assert run("--check", str(mini)) == 0
    assert f"--set model.path={mini}" in capsys.readouterr().out
    (mini / UNET).unlink()
    assert run("--check", str(mini)) == 2
    said = capsys.readouterr().err
    assert f"error: {UNET}: missing (or musetalkV15/unet.pth)" in said
    assert "1 problem" in said


def test_random_writes_a_model_that_checks(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The result of --random passes --check."""
    assert run("--random", str(tmp_path / "made"), "--size", "mini") == 0
    assert run("--check", str(tmp_path / "made")) == 0


class Hub(ThreadingHTTPServer):
    """A hub with a directory for each repository. It can end early or refuse, and counts bytes."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), HubRequest)
        self.files = files
        self.bytes_left: int | None = None  # then every connection breaks off
        self.status = 200
        self.sent: dict[str, int] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class HubRequest(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: object) -> None:
        """Quiet."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0].lstrip("/").replace("/resolve/main/", "/")
        content = self.server.files.get(path)
        if content is None or self.server.status != 200:
            self.send_response(404 if self.server.status == 200 else self.server.status)
            if content is None:
                self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(self.headers.get("Range", "bytes=0-").split("=")[1].split("-")[0])
        body = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if with_body:
            sent = body[: self.server.bytes_left]
            if self.server.bytes_left is not None:
                self.server.bytes_left -= len(sent)
            # Counted first: who has the last byte goes on at once.
            self.server.sent[path] = self.server.sent.get(path, 0) + len(sent)
            self.wfile.write(sent)


@pytest.fixture
def hub(pristine: Path) -> Iterator[Hub]:
    def read(name: str) -> bytes:
        return (pristine / name).read_bytes()

    torch_file = pristine.parent / "unet.pth"
    torch.save(load_file(pristine / UNET), torch_file)
    server = Hub(
        {
            "TMElyralab/MuseTalk/musetalkV15/musetalk.json": read("musetalkV15/musetalk.json"),
            "TMElyralab/MuseTalk/musetalkV15/unet.pth": torch_file.read_bytes(),
            "stabilityai/sd-vae-ft-mse/config.json": read("sd-vae/config.json"),
            "stabilityai/sd-vae-ft-mse/diffusion_pytorch_model.safetensors": read(VAE),
            "openai/whisper-tiny/config.json": read("whisper/config.json"),
            "openai/whisper-tiny/preprocessor_config.json": read(
                "whisper/preprocessor_config.json"
            ),
            "openai/whisper-tiny/model.safetensors": read(WHISPER),
        }
    )
    thread = threading.Thread(target=server.serve_forever, name="hub", daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def quiet(text: str) -> None:
    """A progress bar without output."""


def test_a_download_has_the_official_layout(hub: Hub, tmp_path: Path, pristine: Path) -> None:
    """Files of three repositories become one directory that passes the check."""
    weights.download(tmp_path, "v15", endpoint=hub.url, say=quiet)
    shutil.copy(pristine / "wsavatar.json", tmp_path)  # the mini model is not of official size
    assert find_problems(tmp_path, "v15") == []
    loaded, expected = state(tmp_path), state(pristine)
    assert same(loaded, expected)


def test_existing_files_are_not_downloaded_again(hub: Hub, tmp_path: Path) -> None:
    """The second run reads metadata only."""
    weights.download(tmp_path, "v15", endpoint=hub.url, say=quiet)
    hub.sent.clear()
    weights.download(tmp_path, "v15", endpoint=hub.url, say=quiet)
    assert hub.sent == {}


def test_an_interrupted_download_is_resumed(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first part is kept; the next run downloads the rest, and the file is complete."""
    path = "TMElyralab/MuseTalk/musetalkV15/unet.pth"
    content = np.random.default_rng(0).bytes(3_000_000)
    hub.files[path] = content
    target = tmp_path / "musetalkV15" / "unet.pth"
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 50_000)  # not 10 MB
    hub.bytes_left = 1_020_000
    with pytest.raises(weights.WeightsError, match="run the same command again to resume"):
        weights.download(tmp_path, "v15", endpoint=hub.url, say=quiet)
    assert not target.exists()
    (part,) = target.parent.glob("unet.pth.*.part")
    came = part.stat().st_size
    assert came >= 900_000
    hub.bytes_left = None
    hub.sent.clear()
    weights.download(tmp_path, "v15", endpoint=hub.url, say=quiet)
    assert target.read_bytes() == content
    assert hub.sent[path] == len(content) - came
    assert not list(tmp_path.rglob("*.part"))


def test_a_damaged_part_is_removed(hub: Hub, tmp_path: Path) -> None:
    """Bytes that changed in transit or on disk fail the published SHA-256."""
    path = "TMElyralab/MuseTalk/musetalkV15/unet.pth"
    version = hashlib.sha256(hub.files[path]).hexdigest()[:16]
    (tmp_path / "musetalkV15").mkdir()
    part = tmp_path / "musetalkV15" / f"unet.pth.{version}.part"
    part.write_bytes(b"not what was published")
    with pytest.raises(weights.WeightsError, match="was damaged"):
        weights.download(tmp_path, "v15", endpoint=hub.url, say=quiet)
    assert not part.exists()
    weights.download(tmp_path, "v15", endpoint=hub.url, say=quiet)


def test_a_users_own_file_is_not_overwritten(hub: Hub, tmp_path: Path) -> None:
    """A file of another size than the published one is kept and named."""
    mine = tmp_path / "musetalkV15" / "unet.pth"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    with pytest.raises(weights.WeightsError, match="move it away"):
        weights.download(tmp_path, "v15", endpoint=hub.url, say=quiet)
    assert mine.read_bytes() == b"mine"


def test_without_a_network_the_message_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names proxy, mirror, another machine, and the check."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with pytest.raises(weights.WeightsError) as caught:
        weights.download(tmp_path, "v15", endpoint="http://127.0.0.1:9", say=quiet)
    for word in ("HTTPS_PROXY", "HF_ENDPOINT", "weights --check", "python run.py"):
        assert word in str(caught.value)


def test_a_file_that_moved_is_named(hub: Hub, tmp_path: Path) -> None:
    """A file that its repository no longer has is not reported as a network error."""
    del hub.files["openai/whisper-tiny/model.safetensors"]
    with pytest.raises(weights.WeightsError, match="does not offer model.safetensors"):
        weights.download(tmp_path, "v15", endpoint=hub.url, say=quiet)
    assert (tmp_path / "musetalkV15" / "unet.pth").is_file()


def test_a_hub_that_refuses_is_named(hub: Hub, tmp_path: Path) -> None:
    """An error of the hub is reported as such, with the hint that a retry resumes."""
    hub.status = 403
    with pytest.raises(weights.WeightsError) as caught:
        weights.download(tmp_path, "v15", endpoint=hub.url, say=quiet)
    assert "musetalk.json" in str(caught.value)
