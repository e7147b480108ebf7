"""Where the page, the configurations and the avatars are found: source tree or installed wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from wsavatar import resources
from wsavatar.resources import embedded_weights, resource_dir

ROOT = Path(__file__).parents[1]


def test_a_source_tree_uses_its_own_folders() -> None:
    """What a developer edits is what runs, without installing again."""
    assert resource_dir("configs") == ROOT / "configs"
    assert (resource_dir("frontend") / "index.html").is_file()


def test_an_installed_wheel_uses_its_bundle(tmp_path: Path, monkeypatch) -> None:
    """Beside an installed package lie other packages, never its resources."""
    package = tmp_path / "site-packages" / "wsavatar"
    (package / "_bundle" / "configs").mkdir(parents=True)
    (package.parent / "configs").mkdir()  # another package's
    monkeypatch.setattr(resources, "_PACKAGE", package)
    assert resource_dir("configs") == package / "_bundle" / "configs"
    assert embedded_weights() == package / "embedded"


def test_a_broken_installation_says_how_to_mend_it(tmp_path: Path, monkeypatch) -> None:
    """A bundle that is not there is named, with the command that installs it."""
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "wsavatar")
    with pytest.raises(FileNotFoundError, match="pip install"):
        resource_dir("avatars")


def test_the_wheel_carries_every_folder_that_is_looked_up() -> None:
    """pyproject.toml puts each resource where `resource_dir` looks for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {name: f"wsavatar/_bundle/{name}" for name in included}
    assert set(included) == {"frontend", "configs", "avatars"}
