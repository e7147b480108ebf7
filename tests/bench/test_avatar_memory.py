"""The measurement of an avatar's memory has every figure, and refuses in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.avatars.drawn_avatar import make_avatar
from wsavatar.bench.avatar_memory import main
from wsavatar.faces import registry


@pytest.mark.parametrize("decoded_mb", [0, 256])
def test_each_avatar_has_a_line_of_figures(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    decoded_mb: int,
) -> None:
    """Whether its pictures are in memory or decoded when they are wanted."""
    monkeypatch.setitem(registry.FACES, "drawn", "tests.faces.drawn_mouth")
    make_avatar(tmp_path / "avatars")
    chosen = ["model.name=drawn", "model.devices=cpu", f"avatars.decoded_mb={decoded_mb}"]
    chosen += [f"avatars.directory={tmp_path / 'avatars'}", f"avatars.cache={tmp_path / 'cache'}"]
    words = [word for setting in chosen for word in ("--set", setting)]
    assert main(["ada", *words]) == 0
    line = capsys.readouterr().out
    figures = re.fullmatch(
        r"ada: 160x128, 6 frames: (-?\d+) MB, peak (\d+) MB, prepared in [\d.]+ s, "
        r"mouth ([\d.]+) ms, whole ([\d.]+) ms\n",
        line,
    )
    assert figures is not None, line
    assert int(figures[2]) >= int(figures[1])
    assert main(["eva", *words]) == 2
    assert "no avatar 'eva'; known: ada" in capsys.readouterr().err
