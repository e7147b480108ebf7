"""Makes avatars of the photos and videos that someone puts into the avatars' directories.

A file that has become an avatar is moved into its folder, as ``source.jpg``. One of which none can
be made stays, and is tried again when it changes, not at each start. Of several servers that watch
a directory one takes a file; the others find the avatar in the list. It knows neither sessions nor
clients.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from wsavatar.avatar_jobs.claim import claimed
from wsavatar.avatar_jobs.failures import KnownFailures
from wsavatar.avatar_jobs.maker import MAX_WAITING, AvatarMaker, Made
from wsavatar.avatar_jobs.watch import FolderWatch
from wsavatar.avatars.format import AvatarError
from wsavatar.creation import AvatarRequest, CancelledError, SourceLimits, UnfitFileError
from wsavatar.errors import without_folders

__all__ = ["DroppedFiles"]

_log = logging.getLogger(__name__)

EVERY_S = 3.0
_MAX_AT_ONCE = MAX_WAITING // 2  # clients must find a place too


async def _pause() -> None:
    await asyncio.sleep(EVERY_S)


class DroppedFiles:
    """`run` it as a task. ``is_busy``: while it is true nothing new is begun. ``known``: what
    failed before, perhaps in another process."""

    def __init__(
        self,
        maker: AvatarMaker,
        directories: Sequence[Path],
        is_busy: Callable[[], bool],
        known: KnownFailures,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[], Awaitable[None]] = _pause,
    ) -> None:
        self._maker = maker
        self._watch = FolderWatch(directories, clock)
        self._is_busy = is_busy
        self._known = known
        self._pause = pause
        self._begun = 0
        self._failures: dict[Path, str] = {}

    @property
    def failures(self) -> dict[str, str]:
        """By file name: why no avatar could be made of a file that is still there."""
        return {path.name: why for path, why in self._failures.items()}

    async def run(self) -> None:
        """Look for files, until cancelled."""
        await asyncio.to_thread(self._known.clean_up)
        async with asyncio.TaskGroup() as tasks:
            while True:
                if not self._is_busy():
                    await self._look(tasks)
                    await self._maker.look()
                await self._pause()

    async def _look(self, tasks: asyncio.TaskGroup) -> None:
        files = await asyncio.to_thread(self._watch.look, _MAX_AT_ONCE - self._begun)
        self._failures = {
            path: why for path, why in self._failures.items() if self._watch.is_there(path)
        }
        for file in files:
            self._begun += 1
            tasks.create_task(self._take(file), name=f"make avatar of {file.name}")

    async def _take(self, file: Path) -> None:
        try:
            with claimed(file) as is_mine:
                if is_mine:
                    await self._make_of(file)
                else:  # another server has it, and may fail
                    self._watch.put_back(file)
        finally:
            self._begun -= 1

    async def _make_of(self, file: Path) -> None:
        self._failures.pop(file, None)
        try:
            why, before = await asyncio.to_thread(self._known.recall, file), " (as before)"
            if not why:
                await self._make(file)
                return
        except CancelledError:  # the server stops
            return
        except AvatarError as error:
            why, before = str(error), ""
        self._failures[file] = without_folders(why)
        _log.warning("no avatar: %s%s", why, before)

    async def _make(self, file: Path) -> None:
        started_s = time.monotonic()
        _log.info("%s: an avatar is made of it", file)
        stamp = await asyncio.to_thread(self._known.stamp, file)
        try:
            made = await self._maker.make(file, file.parent, AvatarRequest(), SourceLimits())
        except UnfitFileError as error:
            await asyncio.to_thread(self._known.remember, file, stamp, str(error))
            raise
        await asyncio.to_thread(_move_in, file, made)
        for note in made.notes:
            _log.info("avatar %s: %s", made.entry.id, note)
        seconds = time.monotonic() - started_s
        _log.info("avatar %s: ready, made of %s in %.1f s", made.entry.id, file.name, seconds)


def _move_in(file: Path, made: Made) -> None:
    """Keep the file in the avatar's folder, so that no second avatar is made of it."""
    try:
        file.rename(made.folder / f"source{file.suffix.lower()}")
    except OSError as error:
        _log.warning("%s: stays where it is (%s)", file, error.strerror)
