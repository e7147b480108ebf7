"""A stand-in for `wsavatar.creation.create_avatar`: quick, and held where a test wants it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from tests.fake_avatars import FakeAvatars
from wsavatar.avatar_jobs.maker import AvatarMaker
from wsavatar.config import AvatarSettings
from wsavatar.creation import (
    AvatarRequest,
    CancelledError,
    Created,
    SourceLimits,
    UnfitFileError,
)

__all__ = ["FakeCreation", "making"]


class FakeCreation:
    """Makes an empty folder of a file; of one that says "no face" none, and "crash" is a fault.

    While ``held`` is set it stands in the middle, and looks whether it was cancelled.
    """

    def __init__(self) -> None:
        self.held = threading.Event()
        self.go_on = threading.Event()
        self.at_once = self.most = 0
        self.limits: list[SourceLimits] = []
        self.made: list[bytes] = []
        self._guard = threading.Lock()

    def __call__(
        self,
        source: Path,
        directory: Path,
        *,
        request: AvatarRequest,
        progress: Callable[[str, int, int], None],
        limits: SourceLimits,
        cancelled: threading.Event,
    ) -> Created:
        with self._guard:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            self.limits.append(limits)
        try:
            progress("look", 0, 1)
            data = source.read_bytes()
            if data == b"no face":
                raise UnfitFileError(f"{source}: no face was found; --face 2 does not help")
            if data == b"crash":
                raise ZeroDivisionError
            while self.held.is_set() and not self.go_on.wait(0.002):
                if cancelled.is_set():
                    raise CancelledError(f"{source}: cancelled")
            progress("write", 1, 2)
            folder = directory / request.id
            folder.mkdir(parents=True)
            self.made.append(data)
            return Created(folder, request.id, (f"{source}: --face 2 takes the other.",))
        finally:
            with self._guard:
                self.at_once -= 1


def making(
    tmp_path: Path, create: FakeCreation | None = None, **settings: int
) -> tuple[AvatarMaker, FakeAvatars, AvatarSettings]:
    """A maker whose clients' avatars are in ``tmp_path/uploads``; ``ada`` is there already."""
    places = AvatarSettings(uploads_directory=tmp_path / "uploads", **settings)
    avatars = FakeAvatars("ada", uploads=tmp_path / "uploads")
    return AvatarMaker(places, avatars, create or FakeCreation()), avatars, places
