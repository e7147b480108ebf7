"""Avatars of photos and videos that are named in place of an id: made when wanted, then deleted.

It knows neither what they say nor how they are rendered.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

from tqdm import tqdm

from wsavatar.avatars.cache import FaceCache
from wsavatar.avatars.library import AvatarLibrary
from wsavatar.commands.progress import AVATAR_STEPS, StepBar
from wsavatar.config import Settings
from wsavatar.creation import AvatarRequest, create_avatar, free_id
from wsavatar.landmarks.base import LandmarkDetector
from wsavatar.landmarks.registry import load_landmarks
from wsavatar.resources import cache_directory

__all__ = ["AvatarsOfFiles"]


class AvatarsOfFiles:
    """Makes an avatar of each file once, in a folder that is deleted in the end. Thread-safe.

    ``uses``: how often each file is wanted; after so many `release` its avatar is deleted.
    ``settings`` (the attribute) are those given, with that folder among the avatars' directories.
    """

    def __init__(self, settings: Settings, uses: Counter[Path]) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="wsavatar-avatars-"))
        places = settings.avatars.more_directories + (self._folder,)
        avatars = settings.avatars.model_copy(update={"more_directories": places})
        self.settings = settings.model_copy(update={"avatars": avatars})
        self._uses = uses
        self._ids: dict[Path, str] = {}
        self._making = threading.Lock()
        self._detector: LandmarkDetector | None = None
        self._cache = FaceCache(settings.avatars.cache or cache_directory())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for path in list(self._ids):
            self._delete(path)
        shutil.rmtree(self._folder, ignore_errors=True)

    def id_of(self, path: Path) -> str:
        """The id of the avatar of a photo or video, which takes seconds. Raises AvatarError."""
        with self._making:
            if path not in self._ids:
                self._ids[path] = self._make(path)
            return self._ids[path]

    def release(self, path: Path) -> None:
        """One of those that wanted the file's avatar does not want it any more."""
        with self._making:
            self._uses[path] -= 1
            if self._uses[path] <= 0:
                self._delete(path)

    def _make(self, path: Path) -> str:
        if self._detector is None:
            self._detector = load_landmarks(self.settings)
        # In the end all that is kept of the id is deleted: it must be nobody's, here or elsewhere.
        taken = AvatarLibrary(self.settings.avatars).taken() | self._cache.ids()
        request = AvatarRequest(id=free_id(path, self._folder, taken))
        with tqdm(desc=path.name, leave=False, unit="frame", disable=None) as bar:
            steps = StepBar(bar, path.name, AVATAR_STEPS)
            created = create_avatar(path, self._folder, self._detector, request, steps)
        for note in created.notes:
            tqdm.write(f"{path.name}: {note}", file=sys.stderr)
        return created.id

    def _delete(self, path: Path) -> None:
        if id := self._ids.pop(path, ""):
            self._cache.forget(id)
            shutil.rmtree(self._folder / id, ignore_errors=True)
