"""The ``doctor`` command: reports what is installed, what is missing, and how to install it.

Checks report only; they change nothing. This module knows what serving needs, not how it works.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from wsavatar import machine
from wsavatar.config import Settings
from wsavatar.resources import resource_dir

__all__ = ["Finding", "add_arguments", "examine", "run"]

_log = logging.getLogger(__name__)

Status = Literal["ok", "missing", "optional"]

NEEDED_PACKAGES = (
    "websockets",
    "torch",
    "diffusers",
    "transformers",
    "numpy",
    "opencv-python-headless",
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
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the report. ``missing``: serving is impossible; ``optional``: a feature is."""

    topic: str
    status: Status
    detail: str
    remedy: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``doctor``."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Print the findings. Returns 1 if something that serving needs is missing, else 0."""
    findings = list(examine(settings))
    if args.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print("\n".join(_lines(findings)))
    return 1 if any(finding.status == "missing" for finding in findings) else 0


def examine(settings: Settings) -> Iterator[Finding]:
    """Run every check. A check that raises gives a finding; the others go on."""
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _python,
        _packages,
        _devices,
        _jpeg,
        _voice,
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


def _lines(findings: list[Finding]) -> Iterator[str]:
    marks: dict[Status, str] = {"ok": "ok      ", "missing": "MISSING ", "optional": "optional"}
    for finding in findings:
        yield f"{marks[finding.status]}  {finding.topic:<12} {finding.detail}"
        if finding.remedy:
            yield f"{'':24}-> {finding.remedy}"
    missing = sum(finding.status == "missing" for finding in findings)
    yield ""
    yield f"{missing} missing: serving is not possible yet" if missing else "nothing missing"


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


def _voice(settings: Settings) -> Iterator[Finding]:
    try:
        import espeakng_loader  # type: ignore[import-untyped]

        library, data = espeakng_loader.get_library_path(), espeakng_loader.get_data_path()
    except (ImportError, OSError, RuntimeError) as error:
        remedy = "pip install espeakng-loader"
        yield Finding("voice", "optional", f"no offline voice: {error}", remedy)
        return
    if Path(library).is_file() and Path(data).is_dir():
        yield Finding("voice", "ok", f"espeak-ng at {library}")
    else:
        remedy = "pip install --force-reinstall espeakng-loader"
        yield Finding("voice", "optional", f"espeak-ng is incomplete at {library}", remedy)


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
        yield Finding("weights", "ok", f"{settings.model.version} in {directory}")


def _avatars(settings: Settings) -> Iterator[Finding]:
    from wsavatar.avatars.format import AvatarError, read_avatar_file
    from wsavatar.avatars.library import avatar_directory
    from wsavatar.resources import cache_directory

    directory = avatar_directory(settings.avatars)
    cache = (settings.avatars.cache or cache_directory()) / "avatars"
    folders = [path for path in sorted(directory.iterdir()) if path.is_dir()]
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
