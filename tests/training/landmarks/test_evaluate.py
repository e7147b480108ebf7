"""Judging detectors and masks: the pictures that are asked for, and what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from wsavatar.training.landmarks.evaluate import given_pictures
from wsavatar.training.person import evaluate as person


def test_given_pictures_come_with_their_points(tmp_path: Path) -> None:
    """By name; null means that there is no face; a missing picture is named."""
    points = {"b": [[1, 2]] * 68, "a": None}
    (tmp_path / "landmarks.json").write_text(json.dumps(points))
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 6, 3), (10, 20, 30), np.uint8))
    pictures = given_pictures(tmp_path)
    name, picture, face = next(pictures)
    assert name == "a" and picture.shape == (4, 6, 3) and face is None
    assert picture[0, 0].tolist() == [30, 20, 10]
    with pytest.raises(SystemExit, match="no picture 'b'"):
        next(pictures)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name --heads, --faces or both"),
        (["--faces", "f"], "--faces needs --overlays"),
        (["--heads", "h"], "--heads needs --negatives"),
        (["--heads", ".", "--negatives", "n"], "has no rendered people"),
    ],
)
def test_a_mask_is_judged_on_something(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    """Too little said is an error that says what is needed, before a network is loaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
    monkeypatch.setattr(person, "load_person_mask", None)
    with pytest.raises(SystemExit):
        person.main()
    assert said in capsys.readouterr().err
