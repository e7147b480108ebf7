"""Networks that were converted for OpenVINO: kept as long as somebody uses them."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

import numpy as np
import pytest

ov = pytest.importorskip("openvino")

from openvino import opset8  # noqa: E402

from wsavatar.converted import ConvertedNetworks  # noqa: E402

DAY_S = 86400


def kept(cache: Path, version: str, *names: str) -> Path:
    """Keep a small network under each name; the version's folder."""
    rows = opset8.parameter([1, 3], np.float32)
    graph = ov.Model([opset8.relu(rows)], [rows])
    networks = ConvertedNetworks(ov.Core(), cache, version)
    for name in names:
        networks.write(name, graph)
    return networks.folder


def aged(folder: Path, days: float) -> Path:
    """The folder, last used so many days ago."""
    os.utime(folder, (time.time() - days * DAY_S,) * 2)
    return folder


def test_versions_that_nobody_uses_are_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """When a new one comes: what no start has used for 30 days, but for the one that was used last,
    and but for other networks."""
    versions = ("last", "old", "older")
    last, old, older = (kept(tmp_path, version, "faces", "mel") for version in versions)
    another = kept(tmp_path, "another", "person")
    for folder, days in ((last, 40), (old, 50), (older, 90), (another, 400)):
        aged(folder, days)
    caplog.set_level(logging.INFO)
    new = kept(tmp_path, "new", "faces", "mel")
    assert set((tmp_path / "openvino").iterdir()) == {new, last, another}
    assert {path.name for path in new.glob("*.json")} == {"faces.json", "mel.json"}
    for folder in (old, older):
        assert f"removing {folder}: it was not used for 30 days" in caplog.text


def test_a_version_that_is_used_is_not_removed(tmp_path: Path) -> None:
    """Each start that reads it counts, of any server that shares the cache."""
    versions = ("used", "recent", "last")
    used, recent, last = (kept(tmp_path, version, "faces") for version in versions)
    for folder, days in ((used, 50), (recent, 20), (last, 10)):
        aged(folder, days)
    assert ConvertedNetworks(ov.Core(), tmp_path, "used").read("faces") is not None
    new = kept(tmp_path, "new", "faces")
    assert set((tmp_path / "openvino").iterdir()) == {new, last, recent, used}
