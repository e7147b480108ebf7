"""The ``doctor`` command: reports what is installed, what is missing, and how to install it.

Checks report only; they change nothing, but engines that have to prepare a model do so. This module
knows what serving needs, not how it works.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.metadata
import json
import logging
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from wsavatar import machine
from wsavatar.config import Settings
from wsavatar.resources import resource_dir

if TYPE_CHECKING:
    from wsavatar.dialogue.engine import SharedEngine
    from wsavatar.dialogue.tts import Voices

__all__ = ["Finding", "add_arguments", "examine", "run"]

_log = logging.getLogger(__name__)

Status = Literal["ok", "missing", "failed", "optional"]

NEEDED_PACKAGES = (
    "websockets",
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "soxr",
    "av",
    "safetensors",
    "pydantic",
    "pydantic-settings",
    "PyYAML",
    "prometheus-client",
    "tqdm",
    "silero-vad",
)
OPTIONAL_PACKAGES = {
    "openvino": "the embedded model runs several times slower on a CPU without it",
    "PyTurboJPEG": "without it JPEGs are encoded by OpenCV, which is slower",
    "huggingface-hub": "needed by weights --download",
    "edge-tts": "the online voices of avatar.speak",
    "espeakng-loader": "the offline voice of avatar.speak",
}
_ENGINE_S = 180.0
"""For one engine, with the preparation of a model at its first use."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report. ``missing``: serving is impossible; ``failed``: a feature that is
    configured does not work; ``optional``: one that is not configured."""

    topic: str
    status: Status
    detail: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``doctor``."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the findings. Returns 1 if something that serving needs is missing, or something that
    is configured does not work, else 0."""
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not args.json:
            print("\n".join(_lines(finding)), flush=True)  # the next check may take long
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(["", *_summary(findings)]))
    return 1 if any(finding.status in ("missing", "failed") for finding in findings) else 0


def examine(settings: Settings) -> Iterator[Finding]:
    """Run every check. A check that raises gives a finding; the others go on."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _devices,
        _jpeg,
        _engines,
        _page,
        _weights,
        _avatars,
        _port,
        _browser,
    )
    for check in checks:
        try:
            yield from check(settings)
        except Exception as error:
            _log.debug("a check failed", exc_info=True)
            topic = check.__name__.lstrip("_")
            yield Finding(topic, "missing", f"could not be examined: {error}", "see --verbose")


_MARKS: dict[Status, str] = {
    "ok": "ok      ",
    "missing": "MISSING ",
    "failed": "FAILED  ",
    "optional": "optional",
}


def _lines(finding: Finding) -> Iterator[str]:
    yield f"{_MARKS[finding.status]}  {finding.topic:<12} {finding.detail}"
    if finding.remedy:
        yield f"{'':24}-> {finding.remedy}"


def _summary(findings: list[Finding]) -> Iterator[str]:
    missing = sum(finding.status == "missing" for finding in findings)
    failed = sum(finding.status == "failed" for finding in findings)
    yield f"{missing} missing: serving is not possible yet" if missing else "nothing missing"
    if failed:
        yield f"{failed} failed: what is configured does not work"


def _python(settings: Settings) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] < (3, 13)
    yield Finding(
        "python",
        "ok" if fits else "missing",
        f"{version} at {sys.executable}",
        "" if fits else "make a virtual environment with Python 3.11 or 3.12",
    )


def _packages(settings: Settings) -> Iterator[Finding]:
    for name in (*NEEDED_PACKAGES, *OPTIONAL_PACKAGES):
        try:
            yield Finding("package", "ok", f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            why = OPTIONAL_PACKAGES.get(name)
            status: Status = "optional" if why else "missing"
            detail = f"{name} is not installed" + (f": {why}" if why else "")
            yield Finding("package", status, detail, f"pip install {name}")


def _devices(settings: Settings) -> Iterator[Finding]:
    this = machine.describe()
    memory = f", {this.memory_gib} GiB memory" if this.memory_gib else ""
    features = f" ({', '.join(this.features)})" if this.features else ""
    yield Finding("cpu", "ok", f"{this.cpu}, {this.cores} cores{memory}{features}")
    found = machine.cuda_devices()
    for device in found:
        detail = f"{device.title}, {device.free_gib} of {device.memory_gib} GiB free"
        yield Finding(device.name, "ok", detail)
    if not found:
        yield Finding("cuda", "optional", "no CUDA device: the model runs on the CPU")
    there = {"auto", "cpu", "cuda", *(device.name for device in found)}
    for name in settings.model.devices:
        if name not in there:
            remedy = f"--set model.devices={','.join(d.name for d in found) or 'cpu'}"
            yield Finding("device", "missing", f"model.devices asks for {name}", remedy)


def _jpeg(settings: Settings) -> Iterator[Finding]:
    from wsavatar.media import jpeg

    log = logging.getLogger(jpeg.__name__)
    before, log.disabled = log.disabled, True  # its warning is a finding here
    try:
        encoder = jpeg.encoder_name()
    finally:
        log.disabled = before
    if encoder == "turbojpeg":
        yield Finding("jpeg", "ok", "libturbojpeg")
    else:
        detail = "no libturbojpeg: JPEGs are encoded by OpenCV, which is slower"
        yield Finding("jpeg", "optional", detail, "apt-get install libturbojpeg0")


def _engines(settings: Settings) -> Iterator[Finding]:
    """Uses each engine of a conversation once."""
    yield from asyncio.run(_use_engines(settings))


async def _use_engines(settings: Settings) -> list[Finding]:
    from wsavatar.dialogue.engines import Engines

    engines = Engines(settings)
    absent = {one.kind: one.problem for one in engines.status()}
    try:
        recognition = await _use(
            "recognition", engines.recognizer, settings.asr.engine, absent["asr"]
        )
        model = await _use("model", engines.language_model, settings.llm.engine, absent["llm"])
        return [recognition, model, *await _use_voices(engines.voices, absent["tts"])]
    finally:
        await engines.close()


async def _use(topic: str, engine: SharedEngine | None, chosen: str, absent: str) -> Finding:
    """``chosen``: the engine of the settings; ``absent``: why there is none."""
    from wsavatar.dialogue.engine import EngineError

    if engine is None:
        by_itself = chosen in ("auto", "none")
        return Finding(topic, "optional" if by_itself else "failed", absent)
    try:
        async with asyncio.timeout(_ENGINE_S):
            await engine.start()
            return Finding(topic, "ok", f"{engine.name}: {await engine.check()}")
    except TimeoutError:
        return Finding(topic, "failed", f"{engine.name} did nothing in {_ENGINE_S:g} s")
    except EngineError as error:
        not_set_up = chosen == "auto" and error.code == "engine_missing"
        return Finding(topic, "optional" if not_set_up else "failed", str(error))


async def _use_voices(voices: Voices | None, absent: str) -> list[Finding]:
    """A line for each; one that fails is no failure where another one speaks."""
    if voices is None:
        return [Finding("voice", "failed", absent)]
    checks = await voices.check_each()
    none = all(one.problem for one in checks)
    return [
        Finding("voice", "failed" if none else "optional", one.problem)
        if one.problem
        else Finding("voice", "ok", f"{one.name} spoke a word, first after {one.seconds:.2f} s")
        for one in checks
    ]


def _page(settings: Settings) -> Iterator[Finding]:
    remedy = "install wsavatar again: pip install ."
    try:
        page = resource_dir("frontend") / "index.html"
    except FileNotFoundError as error:
        yield Finding("page", "missing", str(error), remedy)
        return
    there = page.is_file()
    yield Finding("page", "ok" if there else "missing", str(page), "" if there else remedy)


def _weights(settings: Settings) -> Iterator[Finding]:
    from wsavatar.faces.registry import find_problems, model_directory

    directory = model_directory(settings)
    remedy = (
        "install wsavatar again: pip install ."
        if settings.model.path == "embedded"
        else f"python run.py weights --download {directory}"
    )
    if not directory.is_dir():
        yield Finding("weights", "missing", f"no directory {directory}", remedy)
        return
    problems = find_problems(settings)
    for problem in problems:
        yield Finding("weights", "missing", f"{directory}: {problem}", remedy)
    if not problems:
        yield Finding("weights", "ok", f"all in {directory}")


def _avatars(settings: Settings) -> Iterator[Finding]:
    from wsavatar.avatars.format import AvatarError, read_avatar_file
    from wsavatar.avatars.library import avatar_directory
    from wsavatar.resources import cache_directory, cache_fault

    directory = avatar_directory(settings.avatars)
    cache = (settings.avatars.cache or cache_directory()) / "avatars"
    if fault := cache_fault(cache):
        remedy = "set avatars.cache to a folder that can be written to; else starts take longer"
        yield Finding("cache", "optional", f"{cache} cannot be used ({fault})", remedy)
    folders = [path for path in sorted(directory.glob("[!.]*")) if path.is_dir()]
    fit = 0
    for folder in folders:
        try:
            read_avatar_file(folder)
        except AvatarError as error:
            remedy = "correct it, or see python run.py prepare --help"
            yield Finding("avatar", "optional", f"{folder.name}: {error}", remedy)
            continue
        fit += 1
        if any(cache.glob(f"{folder.name}.*.safetensors")):
            yield Finding("avatar", "ok", f"{folder.name}, prepared in {cache}")
        else:
            remedy = "python run.py prepare; otherwise the first start takes longer"
            yield Finding("avatar", "ok", f"{folder.name}, not prepared yet", remedy)
    if not fit:
        remedy = "see python run.py prepare --help"
        yield Finding("avatar", "missing", f"{directory} has no avatar", remedy)


def _port(settings: Settings) -> Iterator[Finding]:
    host, port = settings.server.host, settings.server.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            detail = f"cannot listen on {host}:{port}: {error.strerror or error}"
            remedy = "stop the program that uses it, or python run.py serve --port N"
            yield Finding("port", "missing", detail, remedy)
            return
    yield Finding("port", "ok", f"{host}:{port} is free")


def _browser(settings: Settings) -> Iterator[Finding]:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        detail = "no Chromium: the browser tests are skipped"
        yield Finding("browser", "optional", detail, "apt-get install chromium")
    try:
        version = importlib.metadata.version("playwright")
    except importlib.metadata.PackageNotFoundError:
        detail = "no Playwright: the browser tests are skipped"
        yield Finding("browser", "optional", detail, "pip install '.[test]'")
    else:
        if found is not None:
            yield Finding("browser", "ok", f"{found}, playwright {version} (for the tests)")
