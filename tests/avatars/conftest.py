"""An avatar to copy from, and a directory with a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.avatars.drawn_avatar import copy_avatar, make_avatar


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One written avatar, to copy from: encoding video is the slow part."""
    return make_avatar(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def home(tmp_path: Path, drawn: Path) -> Path:
    """A directory of avatars with one of them, ``ada``, in it."""
    copy_avatar(drawn, tmp_path / "avatars" / "ada")
    return tmp_path
