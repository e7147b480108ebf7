"""What a start costs: where everything was converted before, no library of networks is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tests.drawn_faces import face_video
from wsavatar import machine
from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.writing import write_avatar
from wsavatar.config import load_settings
from wsavatar.faces.musetalk.files import CheckpointError
from wsavatar.faces.musetalk.random import write_random_model
from wsavatar.serve import assembly
from wsavatar.serve.assembly import configured_devices, load_engine

pytest.importorskip("openvino")

ROOT = Path(__file__).parents[2]

START = """
import asyncio, json, sys
from wsavatar.config import load_settings
from wsavatar.serve.assembly import load_engine

async def start():
    engine = load_engine(load_settings(None, json.loads(sys.argv[1])))
    await engine.renderer.start()
    await engine.renderer.close()
    heavy = ("torch", "diffusers", "transformers")
    print(json.dumps([name for name in heavy if name in sys.modules]))

asyncio.run(start())
"""


def overrides(folder: Path) -> dict[str, Any]:
    """A server with the smallest model and one avatar, which keeps all it makes in ``folder``."""
    write_random_model(folder / "model", size="mini")
    frames, landmarks = face_video(160, 160, 6, size=90)
    write_avatar(folder / "avatars", "ada", "Ada", frames, 25, landmarks)
    return {
        "model.path": str(folder / "model"),
        "model.cpu_threads": 1,
        "avatars.directory": str(folder / "avatars"),
        "avatars.uploads_directory": str(folder / "uploads"),
        "avatars.cache": str(folder / "cache"),
        "tts.engines": ["espeak"],
    }


def test_a_second_start_imports_no_library_of_networks(tmp_path: Path) -> None:
    """Torch, diffusers and transformers take seconds and memory: they only convert the model."""
    settings = overrides(tmp_path)
    load_engine(load_settings(None, settings))
    done = subprocess.run(
        [sys.executable, "-c", START, json.dumps(settings)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_directory_without_avatars_shows_those_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wants to drop photos into it first sees a server that works."""
    settings = overrides(tmp_path)
    packaged = tmp_path / "avatars"
    monkeypatch.setattr(assembly, "resource_dir", lambda name: packaged)
    (tmp_path / "none").mkdir()
    settings["avatars.directory"] = str(tmp_path / "none")
    engine = load_engine(load_settings(None, settings))
    assert engine.avatars.default_id == "ada"
    frames, landmarks = face_video(160, 160, 2, size=90)
    write_avatar(tmp_path / "none", "zoe", "Zoe", frames, 25, landmarks)
    assert engine.avatars.default_id == "zoe", "one of the directory goes first"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("avatars.directory", "/nowhere/at/all", "there is no folder /nowhere/at/all: make it"),
        ("avatars.default", "bob", "no avatar 'bob'; known: ada"),
    ],
)
def test_what_is_wrong_with_the_avatars_is_said_before_the_model_is_loaded(
    tmp_path: Path, name: str, value: str, says: str
) -> None:
    """Not after the minute that loading may take: here the model would be the next fault."""
    settings = overrides(tmp_path) | {"model.path": str(tmp_path), name: value}
    progress: list[str] = []
    with pytest.raises(AvatarError, match=says):
        load_engine(load_settings(None, settings), progress.append)
    assert not progress


def test_an_unusable_cache_is_said_before_the_model_is_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning, which names the setting and the reason; what keeps files says nothing then."""
    settings = overrides(tmp_path) | {"model.path": str(tmp_path)}
    (tmp_path / "cache").write_text("a file where a directory should be")
    with pytest.raises(CheckpointError):
        load_engine(load_settings(None, settings))
    (warning,) = caplog.messages
    assert f"avatars.cache: {tmp_path / 'cache'} cannot be used (Not a directory)" in warning


STOPPED = """
import argparse, os, signal, sys
import numpy as np
import openvino as ov
from openvino import opset8
from wsavatar.config import load_settings
from wsavatar.serve import assembly, server

def load(settings, progress):
    rows = opset8.parameter([1024, 1024], np.float32)
    graph = ov.Model([opset8.matmul(rows, rows, False, True)], [rows])
    network = ov.Core().compile_model(graph, "CPU")
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        network(np.zeros((1024, 1024), np.float32))

assembly.load_engine = load
sys.exit(server.run(argparse.Namespace(host="127.0.0.1", port=0), load_settings(None, {})))
"""


def test_a_server_can_be_stopped_while_it_loads() -> None:
    """Ctrl-C ends it at once and without a fault, whatever a library is doing."""
    done = subprocess.run(
        [sys.executable, "-c", STOPPED], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "wsavatar: stopping" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere torch is always asked")
def test_torch_is_asked_for_devices_only_where_a_driver_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` is the CPU without one, and with one the devices that torch sees."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    settings = load_settings(None, {"model.devices": "auto"})

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(machine, "ctypes", SimpleNamespace(CDLL=absent))
    if not Path("/dev/kfd").exists():
        assert configured_devices(settings) == ["cpu"]
    monkeypatch.setattr(machine, "ctypes", SimpleNamespace(CDLL=lambda name: object()))
    assert configured_devices(settings) == ["cuda:0", "cuda:1"]
