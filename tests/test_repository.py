"""What the repository holds and what its wheel gives: no large files, and a server that runs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]

LARGE_FILES = {
    "avatars/leo/idle.mp4",
    "wsavatar/embedded/landmarks/networks.safetensors",
    "wsavatar/embedded/musetalkV15/unet.safetensors",
    "wsavatar/embedded/person/network.safetensors",
    "wsavatar/embedded/sd-vae/diffusion_pytorch_model.safetensors",
    "wsavatar/embedded/whisper/model.safetensors",
    "wsavatar/training/lip_estimator.safetensors",
}
"""The tracked files of more than 1 MiB. Git keeps every version of each for ever: weights are
committed once, when a training is accepted."""


def test_no_large_file_is_tracked_but_those_listed() -> None:
    """A file of more than 1 MiB is committed only after its name was added here."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    paths = [name for name in listed.stdout.split("\0") if (ROOT / name).is_file()]
    large = {name for name in paths if (ROOT / name).stat().st_size > 1024 * 1024}
    assert large == LARGE_FILES


def test_the_package_asks_for_no_more_than_users_need() -> None:
    """torch has a lower bound only; which build CI takes is a constraint of CI's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    [torch] = [one for one in project["dependencies"] if re.match(r"torch\b", one)]
    assert torch == "torch>=2.11"
    assert re.search(r"^torch==", (ROOT / ".ci" / "constraints.txt").read_text("utf-8"), re.M)


# -- the wheel ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that this tree makes."""
    target = tmp_path_factory.mktemp("wheel")
    _run("-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(target), str(ROOT))
    [path] = target.glob("wsavatar-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel, and sees what it depends on."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    _run("-m", "venv", "--without-pip", str(home))
    python = home / ("Scripts" if os.name == "nt" else "bin") / "python"
    site = Path(
        subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    _run("-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel))
    # The dependencies come after the environment's own packages, so the wheel is found first.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def _run(*arguments: str) -> None:
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_wheel_carries_what_the_server_needs(wheel: Path) -> None:
    """The page, the configurations, the avatars and the weights are inside, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in ("frontend", "configs", "avatars"):
        there = {path for path in (ROOT / folder).rglob("*") if path.is_file()}
        assert there
        assert {f"wsavatar/_bundle/{path.relative_to(ROOT).as_posix()}" for path in there} <= names
    assert {name for name in LARGE_FILES if name.startswith("wsavatar/")} <= names
    tops = {name.split("/")[0] for name in names}
    assert {top.partition("-")[0] for top in tops} == {"wsavatar"}


@pytest.mark.slow
def test_the_readme_states_the_wheels_size(wheel: Path) -> None:
    """Its megabytes stand in the README, within a tenth."""
    [stated] = re.findall(r"wheel of (\d+) MB", (ROOT / "README.md").read_text("utf-8"))
    assert wheel.stat().st_size / 1e6 == pytest.approx(int(stated), rel=0.1)


@pytest.mark.slow
def test_the_installed_wheel_serves(installed: Path, tmp_path: Path) -> None:
    """From an empty directory, without the source tree: the server gets ready and has its page."""
    with _served(installed, tmp_path) as address:
        assert _json(f"{address}/readyz")["ready"] is True
        known = {path.parent.name for path in (ROOT / "avatars").glob("*/avatar.json")}
        assert {one["id"] for one in _json(f"{address}/api/avatars")["avatars"]} == known
        with urllib.request.urlopen(f"{address}/", timeout=30) as page:
            assert b"<canvas" in page.read()


@contextlib.contextmanager
def _served(python: Path, directory: Path) -> Iterator[str]:
    """`wsavatar serve` in this directory; gives its address once it is ready."""
    found = subprocess.check_output(
        [python, "-c", "import wsavatar; print(wsavatar.__file__)"], cwd=directory, text=True
    )
    assert ROOT not in Path(found.strip()).parents
    process = subprocess.Popen(
        [python.parent / "wsavatar", "serve", "--host", "127.0.0.1", "--port", "0"],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        log = ""
        for line in process.stdout:  # ends where the server does
            log += line
            if "wsavatar: ready" in line:
                break
        address = re.search(r"http://\S+", log)
        assert process.poll() is None and address is not None, log
        yield address[0]
    finally:
        process.terminate()
        process.communicate(timeout=120)  # it ends once the avatar is prepared that it was at


def _json(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=30) as got:
        return json.load(got)
