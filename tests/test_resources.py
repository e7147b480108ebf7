"""Folders of page, configurations and avatars, in a source tree and in an installed wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tests.avatars.drawn_avatar import full_disk
from wsavatar import resources
from wsavatar.resources import cache_fault, embedded_weights, resource_dir

ROOT = Path(__file__).parents[1]


def test_a_source_tree_uses_its_own_folders() -> None:
    """A developer's edits are used without installing again."""
    assert resource_dir("configs") == ROOT / "configs"
    assert (resource_dir("frontend") / "index.html").is_file()


def test_an_installed_wheel_uses_its_bundle(tmp_path: Path, monkeypatch) -> None:
    """An installed package uses its own bundle, not the folders beside it."""
    package = tmp_path / "site-packages" / "wsavatar"
    (package / "_bundle" / "configs").mkdir(parents=True)
    (package.parent / "configs").mkdir()  # another package's
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resource_dir("configs") == package / "_bundle" / "configs"
    assert embedded_weights() == package / "embedded"


def test_a_broken_installation_says_how_to_repair_it(tmp_path: Path, monkeypatch) -> None:
    """The error names the missing bundle and the command that installs it."""
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "wsavatar")
    with pytest.raises(FileNotFoundError, match="pip install"):
        resource_dir("avatars")


def test_the_wheel_has_every_resource_folder() -> None:
    """pyproject.toml puts each resource where `resource_dir` looks for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {name: f"wsavatar/_bundle/{name}" for name in included}
    assert set(included) == {"frontend", "configs", "avatars"}


def test_a_cache_that_cannot_be_used_is_found_by_writing_into_it(tmp_path: Path) -> None:
    """A file in its place, a place where nobody may write and a full disk each have their words."""
    (tmp_path / "file").touch()
    assert cache_fault(tmp_path / "file") == "File exists"
    assert cache_fault(tmp_path / "file" / "avatars") == "Not a directory"
    assert cache_fault(Path("/proc/nowhere")) == "No such file or directory"
    with full_disk():
        assert cache_fault(tmp_path / "full") == "File too large"
    assert cache_fault(tmp_path / "cache") == ""
    assert not list((tmp_path / "cache").iterdir())
