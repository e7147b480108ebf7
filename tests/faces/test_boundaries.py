"""A face model is a package of its own: nothing else knows which one it is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "wsavatar"

MUSETALKS_OWN = (
    "bench/ceiling.py",  # what the chip could do, with MuseTalk's networks
    "bench/command.py",  # its stages, one by one
    "bench/precision.py",  # its arithmetic, in float32 and less
    "bench/reference.py",  # the official script's way to run it
    "commands/weights.py",  # the official files and their layout
    "training",  # trains a MuseTalk
)
"""Who may import MuseTalk beside the registry, and why."""

WORDS = re.compile(r"latents|musetalk|\bvae\b|\bunet\b", re.IGNORECASE)


def imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(*packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (ROOT / package).rglob("*.py"))


def test_only_the_registry_names_a_face_model() -> None:
    """Who draws faces is a line of the registry; the exceptions are MuseTalk's own tools."""
    allowed = [ROOT / name for name in ("faces", *MUSETALKS_OWN)]
    for path in files("."):
        if any(path == one or one in path.parents for one in allowed):
            continue
        assert not [m for m in imported(path) if m.startswith("wsavatar.faces.musetalk")], path


@pytest.mark.parametrize(
    "package",
    ["avatars", "config", "creation", "dialogue", "integrations", "landmarks", "media", "protocol"]
    + ["render", "serve", "session", "speech", "videos"],
)
def test_the_words_of_a_model_stay_in_its_package(package: str) -> None:
    """Neither code nor prose elsewhere speaks of one model's insides."""
    for path in files(package):
        found = WORDS.search(path.read_text("utf-8"))
        assert found is None, f"{path}: {found}"


def test_the_renderers_packages_do_not_know_sessions_or_the_wire() -> None:
    """Imports point downwards."""
    for path in files("faces", "render", "avatars"):
        above = ("wsavatar.session", "wsavatar.protocol", "wsavatar.serve", "wsavatar.dialogue")
        assert not [module for module in imported(path) if module.startswith(above)], path


def test_what_a_session_needs_of_a_model_is_read_without_torch() -> None:
    """The modules that describe a model import no network library."""
    light = ["base", "avatar_face", "registry", "musetalk/spec", "musetalk/configured"]
    heavy = ("torch", "diffusers", "transformers", "openvino")
    for name in light:
        tree = ast.parse((ROOT / "faces" / f"{name}.py").read_text("utf-8"))
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        named = [node.module or "" for node in top if isinstance(node, ast.ImportFrom)]
        named += [a.name for node in top if isinstance(node, ast.Import) for a in node.names]
        assert not [module for module in named if module.split(".")[0] in heavy], name
