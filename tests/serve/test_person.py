"""Persons' masks while a server runs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from wsavatar.config import Settings
from wsavatar.serve import person
from wsavatar.serve.person import mask_maker

SCRIPT = """
import threading
import numpy as np
from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.serve.person import mask_maker

begun = threading.Event()

class Mask:
    def masks(self, pictures, faces):
        begun.set()
        threading.Event().wait(0.02)
        return [np.zeros((64, 64), np.uint8)]

maker = mask_maker(Settings())
maker.make._mask = lambda: Mask()

def work():
    try:
        pictures = [np.zeros((64, 64, 3), np.uint8)] * 100_000
        for _ in maker.make(pictures, np.zeros((100_000, 68, 2))):
            pass
    except WsavatarError as error:
        print(error)

threading.Thread(target=work).start()
begun.wait()
"""


def test_a_server_that_ends_does_not_wait_for_masks() -> None:
    """Nor is it aborted, in the middle of a clip that takes minutes."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "the server stops"), ended.stderr


class Brightness:
    """A picture's brightness as its mask; the first one takes until the second one is made."""

    def __init__(self) -> None:
        self.second = threading.Event()
        self.looked_at: set[int] = set()

    def masks(self, pictures: Sequence[np.ndarray], _: Sequence[np.ndarray], /) -> list[np.ndarray]:
        level = int(pictures[0][0, 0, 0])
        self.looked_at.add(level)
        if level == 1:
            self.second.set()
        elif level == 0:
            assert self.second.wait(30)
        return [pictures[0][..., 0]]


def brightness_clip(
    monkeypatch: pytest.MonkeyPatch, frames: int, cores: int
) -> tuple[Brightness, Iterator[np.ndarray]]:
    mask = Brightness()
    maker = mask_maker(Settings())
    monkeypatch.setattr(maker.make, "_mask", lambda: mask)
    monkeypatch.setattr(person, "usable_cores", lambda: cores)
    pictures = [np.full((16, 16, 3), level, np.uint8) for level in range(frames)]
    return mask, iter(maker.make(pictures, np.zeros((frames, 68, 2))))


def test_masks_of_a_clip_are_made_at_once_and_come_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One on each core, whichever is ready first, no further ahead than is needed for that."""
    mask, made = brightness_clip(monkeypatch, 24, cores=2)
    first = next(made)
    assert max(mask.looked_at) <= 2
    levels = [int(first[0, 0]), *(int(one[0, 0]) for one in made)]
    assert levels == sorted(levels) and len(levels) == 24


def test_an_error_in_one_mask_ends_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the error of that picture, and nothing hangs."""
    mask, made = brightness_clip(monkeypatch, 24, cores=2)

    def broken(*_: object) -> list[np.ndarray]:
        raise ValueError("no face")

    monkeypatch.setattr(mask, "masks", broken)
    with pytest.raises(ValueError, match="no face"):
        list(made)
