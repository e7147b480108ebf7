"""The doctor: its findings, their remedies, and its exit code."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib.metadata
import json
import queue
import re
import socket
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dialogue.scripted_endpoint import scripted_endpoint
from wsavatar import machine
from wsavatar.commands import doctor
from wsavatar.commands.doctor import NEEDED_PACKAGES, OPTIONAL_PACKAGES, Finding
from wsavatar.config import AsrSettings, LlmSettings, Settings, TtsSettings, load_settings

ROOT = Path(__file__).parents[2]
NO_ENGINES = {"asr.engine": "none", "llm.engine": "none", "tts.engines": "espeak"}


def found(check, settings: Settings | None = None) -> list[Finding]:
    return list(check(settings or load_settings()))


@contextlib.contextmanager
def endpoint_in_a_thread() -> Iterator[str]:
    """A scripted endpoint beside a command that has an event loop of its own."""
    ready: queue.Queue[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()

    async def serve() -> None:
        over = asyncio.Event()
        async with scripted_endpoint() as endpoint:
            ready.put((endpoint.url, asyncio.get_running_loop(), over))
            await over.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="endpoint")
    thread.start()
    url, loop, over = ready.get(timeout=30)
    try:
        yield url
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join()


def run(capsys, findings: list[Finding], monkeypatch, *, as_json: bool = False) -> tuple[int, str]:
    monkeypatch.setattr(doctor, "examine", lambda settings: iter(findings))
    status = doctor.run(argparse.Namespace(json=as_json), load_settings())
    return status, capsys.readouterr().out


def test_every_runtime_dependency_is_examined() -> None:
    """The doctor looks for exactly the dependencies of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = {line.split(">")[0].split("=")[0].split("<")[0] for line in project["dependencies"]}
    assert asked == {*NEEDED_PACKAGES, *OPTIONAL_PACKAGES}


def test_a_missing_package_has_its_install_command(monkeypatch) -> None:
    """A needed package is missing, another is optional; both have a remedy."""

    def version(name: str) -> str:
        if name in ("websockets", "openvino"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(importlib.metadata, "version", version)
    unmet = {f.remedy: f.status for f in found(doctor._packages) if f.status != "ok"}
    assert unmet == {"pip install websockets": "missing", "pip install openvino": "optional"}


def test_a_port_in_use_is_found() -> None:
    """The doctor names the port that is in use."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        [finding] = found(doctor._port, load_settings(None, {"server.port": port}))
    assert finding.status == "missing" and str(port) in finding.detail
    assert "--port" in finding.remedy
    [finding] = found(doctor._port, load_settings(None, {"server.port": port}))
    assert finding.status == "ok"


def test_missing_weights_have_their_download_command(tmp_path: Path) -> None:
    """A missing directory and an empty one have different details and the same remedy."""
    absent = tmp_path / "models"
    [finding] = found(doctor._weights, load_settings(None, {"model.path": str(absent)}))
    assert finding.status == "missing" and "no directory" in finding.detail
    assert finding.remedy == f"python run.py weights --download {absent}"
    absent.mkdir()
    findings = found(doctor._weights, load_settings(None, {"model.path": str(absent)}))
    details = " ".join(finding.detail for finding in findings)
    assert "musetalk.json" in details and "sd-vae" in details and "whisper" in details


def test_a_directory_without_avatars_is_found(tmp_path: Path) -> None:
    """Without any avatar serving is impossible; a damaged one is named and optional, one that is
    being made is not named."""
    for name in ("broken", ".ada-being-made"):
        (tmp_path / name).mkdir()
    findings = found(doctor._avatars, load_settings(None, {"avatars.directory": str(tmp_path)}))
    assert [(f.status, f.detail.split(":")[0].split(" ")[0]) for f in findings] == [
        ("optional", "broken"),
        ("missing", str(tmp_path)),
    ]


def test_a_cache_that_cannot_be_used_is_found(tmp_path: Path) -> None:
    """Everything works without one; starts take longer, which the remedy says."""
    (tmp_path / "cache").touch()
    settings = load_settings(None, {"avatars.cache": str(tmp_path / "cache")})
    finding = found(doctor._avatars, settings)[0]
    assert (finding.topic, finding.status) == ("cache", "optional")
    assert "Not a directory" in finding.detail and "avatars.cache" in finding.remedy


def test_a_configured_device_that_does_not_exist_is_found(monkeypatch) -> None:
    """`model.devices` may only name devices that exist; the remedy names one that does."""
    monkeypatch.setattr(machine, "cuda_devices", lambda: [])
    settings = load_settings(None, {"model.devices": "cpu,cuda:7"})
    missing = [f for f in found(doctor._devices, settings) if f.status == "missing"]
    assert [(f.detail, f.remedy) for f in missing] == [
        ("model.devices asks for cuda:7", "--set model.devices=cpu")
    ]


def test_the_machine_is_described() -> None:
    """Processor and cores are known on any system."""
    this = machine.describe()
    assert this.cpu and this.cores >= 1 and this.python.startswith("3.")


def test_a_check_that_fails_is_a_finding(monkeypatch) -> None:
    """A check that raises does not hide the other findings."""

    def broken() -> machine.Machine:
        raise RuntimeError("no /proc here")

    monkeypatch.setattr(machine, "describe", broken)
    findings = list(doctor.examine(load_settings(None, NO_ENGINES)))
    assert Finding(
        "devices", "missing", "could not be examined: no /proc here", "see --verbose"
    ) in (findings)
    assert {"python", "package", "page", "weights", "port"} <= {f.topic for f in findings}


def test_each_engine_of_a_conversation_is_used() -> None:
    """What the recogniser understood, the model said and the voice took, a line each."""
    with endpoint_in_a_thread() as url:
        chosen = {"base_url": url, "engine": "openai"}
        settings = Settings(
            asr=AsrSettings(**chosen),  # type: ignore[arg-type]
            llm=LlmSettings(**chosen),  # type: ignore[arg-type]
            tts=TtsSettings(engines=("openai", "espeak"), base_url=url),
        )
        findings = found(doctor._engines, settings)
    assert [(one.topic, one.status) for one in findings] == [
        ("recognition", "ok"),
        ("model", "ok"),
        ("voice", "ok"),
        ("voice", "ok"),
    ]
    heard, model, *voices = [one.detail for one in findings]
    assert "understood 'Hello there.' in " in heard
    assert "It says 'Hello. I am a script.', first after " in model
    assert all(re.search(r"spoke a word, first after \d", one) for one in voices)


def test_an_engine_that_is_not_set_up_is_no_failure() -> None:
    """`none` and what `auto` does not find are optional; the line says what to type."""
    findings = found(doctor._engines, load_settings(None, NO_ENGINES))
    assert [one.status for one in findings] == ["optional", "optional", "ok"]
    assert "pip install" in findings[0].detail and "llm.engine" in findings[1].detail


def test_an_engine_that_is_configured_and_fails_is_a_failure() -> None:
    """Named in the settings: not there, not reachable, or unknown."""
    chosen = {
        "asr.engine": "ears",
        "llm.engine": "openai",
        "llm.base_url": "http://127.0.0.1:9/v1",
        "tts.engines": "flite",
    }
    findings = found(doctor._engines, load_settings(None, chosen))
    assert [one.status for one in findings] == ["failed"] * 3
    assert "127.0.0.1:9" in findings[1].detail and "faster-whisper" in findings[0].detail


@pytest.mark.parametrize(
    ("status", "code"), [("ok", 0), ("optional", 0), ("missing", 1), ("failed", 1)]
)
def test_the_exit_code_says_whether_serving_is_possible(
    status, code: int, capsys, monkeypatch
) -> None:
    """0 if nothing that serving needs is missing, else 1."""
    finding = Finding("jpeg", status, "detail", "the remedy")
    got, text = run(capsys, [finding], monkeypatch)
    assert got == code and "detail" in text and "-> the remedy" in text


def test_json_is_the_same_findings(capsys, monkeypatch) -> None:
    """A script reads topic, status, detail and remedy."""
    _, text = run(capsys, [Finding("cpu", "ok", "x86")], monkeypatch, as_json=True)
    assert json.loads(text) == [{"topic": "cpu", "status": "ok", "detail": "x86", "remedy": ""}]
