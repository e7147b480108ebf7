"""The doctor: what it finds, what it says mends it, and when it says that serving is impossible."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import socket
import tomllib
from pathlib import Path

import pytest

from wsavatar import machine
from wsavatar.commands import doctor
from wsavatar.commands.doctor import NEEDED_PACKAGES, OPTIONAL_PACKAGES, Finding
from wsavatar.config import Settings, load_settings

ROOT = Path(__file__).parents[2]


def found(check, settings: Settings | None = None) -> list[Finding]:
    return list(check(settings or load_settings()))


def run(capsys, findings: list[Finding], monkeypatch, *, as_json: bool = False) -> tuple[int, str]:
    monkeypatch.setattr(doctor, "examine", lambda settings: iter(findings))
    status = doctor.run(argparse.Namespace(json=as_json), load_settings())
    return status, capsys.readouterr().out


def test_every_runtime_dependency_is_examined() -> None:
    """The packages that pyproject.toml asks for are those the doctor looks for, none forgotten."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = {line.split(">")[0].split("=")[0].split("<")[0] for line in project["dependencies"]}
    assert asked == {*NEEDED_PACKAGES, *OPTIONAL_PACKAGES}


def test_a_missing_package_comes_with_its_command(monkeypatch) -> None:
    """What serving needs is missing, what makes it better is optional; both say the remedy."""

    def version(name: str) -> str:
        if name in ("websockets", "openvino"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    unmet = {f.remedy: f.status for f in found(doctor._packages) if f.status != "ok"}
    assert unmet == {"pip install websockets": "missing", "pip install openvino": "optional"}


def test_a_port_in_use_is_found() -> None:
    """Before serving fails with it, the doctor says which port is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        [finding] = found(doctor._port, load_settings(None, {"server.port": port}))
    assert finding.status == "missing" and str(port) in finding.detail
    assert "--port" in finding.remedy
    [finding] = found(doctor._port, load_settings(None, {"server.port": port}))
    assert finding.status == "ok"


def test_missing_weights_are_named_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    """An absent directory and an empty one are told apart, and both are mended the same way."""
    absent = tmp_path / "models"
    [finding] = found(doctor._weights, load_settings(None, {"model.path": str(absent)}))
    assert finding.status == "missing" and "no directory" in finding.detail
    assert finding.remedy == f"python run.py weights --download {absent}"
    absent.mkdir()
    findings = found(doctor._weights, load_settings(None, {"model.path": str(absent)}))
    told = " ".join(finding.detail for finding in findings)
    assert "musetalk.json" in told and "sd-vae" in told and "whisper" in told


def test_a_directory_without_avatars_is_found(tmp_path: Path) -> None:
    """No avatar at all makes serving impossible; a broken one is named and only optional."""
    (tmp_path / "broken").mkdir()
    findings = found(doctor._avatars, load_settings(None, {"avatars.directory": str(tmp_path)}))
    assert [(f.status, f.detail.split(":")[0].split(" ")[0]) for f in findings] == [
        ("optional", "broken"),
        ("missing", str(tmp_path)),
    ]


def test_a_device_that_is_not_there_is_found(monkeypatch) -> None:
    """`model.devices` may only name devices that exist; the remedy names one that does."""
    monkeypatch.setattr(machine, "cuda_devices", lambda: [])
    settings = load_settings(None, {"model.devices": "cpu,cuda:7"})
    missing = [f for f in found(doctor._devices, settings) if f.status == "missing"]
    assert [(f.detail, f.remedy) for f in missing] == [
        ("model.devices asks for cuda:7", "--set model.devices=cpu")
    ]


def test_the_machine_is_described() -> None:
    """Processor and cores are there on any system."""
    this = machine.describe()
    assert this.cpu and this.cores >= 1 and this.python.startswith("3.")


def test_a_check_that_fails_is_a_finding(monkeypatch) -> None:
    """One broken check does not hide what the others found."""

    def broken() -> machine.Machine:
        raise RuntimeError("no /proc here")

    monkeypatch.setattr(machine, "describe", broken)
    findings = list(doctor.examine(load_settings()))
    assert Finding(
        "devices", "missing", "could not be examined: no /proc here", "see --verbose"
    ) in (findings)
    assert {"python", "package", "page", "weights", "port"} <= {f.topic for f in findings}


@pytest.mark.parametrize(("status", "code"), [("ok", 0), ("optional", 0), ("missing", 1)])
def test_the_exit_code_says_whether_serving_is_possible(
    status, code: int, capsys, monkeypatch
) -> None:
    """0 where all that serving needs is there, 1 where something is missing."""
    finding = Finding("jpeg", status, "detail", "the remedy")
    got, text = run(capsys, [finding], monkeypatch)
    assert got == code and "detail" in text and "-> the remedy" in text


def test_json_is_the_same_findings(capsys, monkeypatch) -> None:
    """A script reads topic, status, detail and remedy."""
    _, text = run(capsys, [Finding("cpu", "ok", "x86")], monkeypatch, as_json=True)
    assert json.loads(text) == [{"topic": "cpu", "status": "ok", "detail": "x86", "remedy": ""}]
