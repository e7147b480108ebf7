"""Makes avatars on a few threads, and changes the list of avatars; tells who wants to know.

Its methods belong to the event loop; what blocks runs on threads. It does not know how a face is
found, nor who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Literal, Protocol, TypeVar, cast

from wsavatar.avatar_jobs.upload import Upload, open_upload
from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.library import uploads_directory
from wsavatar.config import AvatarSettings
from wsavatar.creation import AvatarRequest, CancelledError, Created, SourceLimits, free_id
from wsavatar.faces.base import Progress
from wsavatar.machine import yield_to_others

__all__ = ["AvatarMaker", "BusyError", "CreateAvatar", "Listing", "Made", "Stage", "Step"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
Stage = Literal["wait", "look", "follow", "write", "prepare"]

MAX_WAITING = 64
"""Avatars that are made or wait for it. Full: another one is refused."""
MAX_UPLOADS = 16
"""Files that clients send at the same time. Full: another one is refused."""
_CORES_PER_AVATAR = 4
_CLOSE_S = 5.0
_REST_S = 0.2


class BusyError(AvatarError):
    """Too much is asked of the server at once; later it may do."""


@dataclass(frozen=True, slots=True)
class Step:
    """How far an avatar is: it waits for its turn, or what is done now. ``total`` 0: unknown."""

    stage: Stage
    done: int
    total: int


class Entry(Protocol):
    """An avatar of the list."""

    @property
    def id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Made:
    """A new avatar that is ready. ``notes``: what its user should know; ``preview``: a JPEG of what
    the model sees of its first frame."""

    entry: Entry
    folder: Path
    notes: tuple[str, ...]
    preview: bytes


class Avatars(Protocol):
    """The avatars' files and preparation. Blocking, thread-safe. Raises AvatarError."""

    @property
    def default_id(self) -> str: ...

    def list(self) -> Sequence[Entry]: ...

    def taken(self) -> set[str]: ...

    def get(self, avatar_id: str, progress: Progress | None = None, /) -> object: ...

    def preview(self, avatar_id: str, /) -> bytes: ...

    def rename(self, avatar_id: str, name: str, /) -> None: ...

    def delete(self, avatar_id: str, /) -> None: ...


class CreateAvatar(Protocol):
    """Makes an avatar's folder of a file: `wsavatar.creation.create_avatar` with a detector."""

    def __call__(
        self,
        source: Path,
        directory: Path,
        *,
        request: AvatarRequest,
        progress: Callable[[str, int, int], None],
        limits: SourceLimits,
        cancelled: threading.Event,
    ) -> Created: ...


@dataclass(frozen=True, slots=True)
class Listing:
    """The avatars as they are now. ``default``: empty where there is none."""

    avatars: Sequence[Entry]
    default: str


class AvatarMaker:
    """Makes avatars of files, prepares, renames and deletes them. `close` it once.

    ``is_busy``: while it is true, the work rests for a moment after each step, for the sessions.
    """

    def __init__(
        self,
        settings: AvatarSettings,
        avatars: Avatars,
        create: CreateAvatar,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._is_busy = is_busy
        self._settings = settings
        self._avatars = avatars
        self._create = create
        parallel = settings.parallel or max(1, (os.cpu_count() or 1) // _CORES_PER_AVATAR)
        self._threads = ThreadPoolExecutor(
            parallel, thread_name_prefix="make avatar", initializer=yield_to_others
        )
        self._turn = asyncio.Semaphore(parallel)
        self._ids: set[str] = set()  # of the avatars that are being made
        self._uploads: set[object] = set()
        self._naming = threading.Lock()
        self._listeners: list[Callable[[Listing], None]] = []
        self._told: Listing | None = None
        self._stopping = threading.Event()

    def on_change(self, listener: Callable[[Listing], None]) -> None:
        """Call ``listener`` on the event loop whenever the list of avatars has changed."""
        self._listeners.append(listener)

    async def make(
        self,
        source: Path,
        directory: Path,
        request: AvatarRequest,
        limits: SourceLimits,
        tell: Callable[[Step], None] = lambda step: None,
    ) -> Made:
        """Make an avatar of ``source`` in ``directory`` and prepare it.

        Its id is that of the request, or made of the file's name. Where this is cancelled, so is
        the work, and nothing is left of it. Raises AvatarError.
        """
        if len(self._ids) >= MAX_WAITING:
            raise BusyError(f"{MAX_WAITING} avatars are being made; try again later")
        reserve = partial(self._reserve, request.id, source, directory)
        id = await _on_thread(reserve, undo=self._ids.discard)
        try:
            if self._turn.locked():
                tell(Step("wait", 0, 0))
            async with self._turn:
                made = await self._work(source, directory, request, id, limits, tell)
        finally:
            self._ids.discard(id)
        await self.changed()
        return made

    async def prepare(self, most: int) -> None:
        """Prepare the first ``most`` avatars of the list, so that no session waits for one. Those
        that cannot be are logged."""
        for entry in (await self.listing()).avatars[:most]:
            async with self._turn:
                if self._stopping.is_set():
                    return
                loop = asyncio.get_running_loop()
                await loop.run_in_executor(self._threads, self._prepare, entry.id)

    async def open_upload(self, file_name: str, size: int) -> Upload:
        """Begin to receive a client's file; give it back to `end_upload`. Raises AvatarError."""
        if len(self._uploads) >= MAX_UPLOADS:
            raise BusyError(f"{MAX_UPLOADS} clients upload files; try again later")
        place = object()
        self._uploads.add(place)
        try:
            begin = partial(open_upload, self._settings, file_name, size)
            upload = await _on_thread(begin, undo=Upload.discard)
        finally:
            self._uploads.discard(place)
        self._uploads.add(upload)
        return upload

    async def make_of(
        self, upload: Upload, request: AvatarRequest, tell: Callable[[Step], None]
    ) -> Made:
        """Make an avatar of a client's file, as `make` does, within the limits of clients."""
        settings = self._settings
        limits = SourceLimits(
            file_bytes=settings.max_upload_mb << 20,
            pixels=settings.max_upload_megapixels * 1_000_000,
            seconds=settings.max_upload_s,
        )
        path = await asyncio.to_thread(upload.complete)
        return await self.make(path, uploads_directory(settings), request, limits, tell)

    async def end_upload(self, upload: Upload) -> None:
        """Delete the client's file."""
        self._uploads.discard(upload)
        await asyncio.to_thread(upload.discard)

    async def rename(self, avatar_id: str, name: str) -> None:
        """Give an avatar that a client made another name. Raises AvatarError."""
        await asyncio.to_thread(self._avatars.rename, avatar_id, name)
        await self.changed()

    async def delete(self, avatar_id: str) -> None:
        """Delete an avatar that a client made. Raises AvatarError."""
        await asyncio.to_thread(self._avatars.delete, avatar_id)
        _log.info("avatar %s: deleted by a client", avatar_id)
        await self.changed()

    async def listing(self) -> Listing:
        """The avatars as they are now."""
        return await asyncio.to_thread(self._list)

    async def changed(self) -> None:
        """Tell the listeners the list as it is now."""
        self._tell(await self.listing())

    async def look(self) -> None:
        """Tell the listeners the list if it is another one, whoever has changed the files."""
        listing = await self.listing()
        if self._told is None:
            self._told = listing
        elif listing != self._told:
            self._tell(listing)

    def _tell(self, listing: Listing) -> None:
        self._told = listing
        for listener in self._listeners:
            listener(listing)

    async def close(self) -> None:
        """Stop what is being made, and wait a while for it: another process may do the work."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await asyncio.to_thread(self._threads.shutdown, cancel_futures=True)

    # -- on threads -------------------------------------------------------------------------------

    def _reserve(self, wish: str, source: Path, directory: Path) -> str:
        with self._naming:
            taken = self._avatars.taken() | self._ids
            if wish in taken:
                raise AvatarError(f"the id {wish!r} is or was another avatar's; choose another")
            id = wish or free_id(source, directory, taken)
            self._ids.add(id)
            return id

    async def _work(
        self,
        source: Path,
        directory: Path,
        request: AvatarRequest,
        id: str,
        limits: SourceLimits,
        tell: Callable[[Step], None],
    ) -> Made:
        loop = asyncio.get_running_loop()
        cancelled = threading.Event()

        def report(stage: str, done: int, total: int) -> None:
            if cancelled.is_set() or self._stopping.is_set():
                cancelled.set()
                raise CancelledError(f"{source.name}: cancelled")
            if self._is_busy():
                _rest(cancelled)
            loop.call_soon_threadsafe(tell, Step(cast(Stage, stage), done, total))

        named = replace(request, id=id)
        work = loop.run_in_executor(
            self._threads, self._make, source, directory, named, limits, report, cancelled
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.wait({work})
            if not work.cancelled() and work.exception() is None:  # it had just been done
                with contextlib.suppress(AvatarError):
                    await asyncio.to_thread(self._avatars.delete, id)
            raise

    def _make(
        self,
        source: Path,
        directory: Path,
        request: AvatarRequest,
        limits: SourceLimits,
        report: Callable[[str, int, int], None],
        cancelled: threading.Event,
    ) -> Made:
        try:
            created = self._create(
                source,
                directory,
                request=request,
                progress=report,
                limits=limits,
                cancelled=cancelled,
            )
            try:
                self._avatars.get(created.id, lambda done, total: report("prepare", done, total))
                preview = self._avatars.preview(created.id)
                entry = [one for one in self._avatars.list() if one.id == created.id][0]
            except BaseException:
                rmtree(created.folder, ignore_errors=True)
                raise
        except AvatarError:
            raise
        except Exception as error:  # a file may break a reader in any way: the server goes on
            _log.exception("%s: no avatar could be made of it", source.name)
            raise AvatarError(
                f"{source.name}: no avatar could be made of it ({type(error).__name__}); "
                "try another picture or video"
            ) from error
        return Made(entry, created.folder, created.notes, preview)

    def _prepare(self, id: str) -> None:
        def report(done: int, total: int) -> None:
            if self._stopping.is_set():
                raise CancelledError(f"{id}: cancelled")
            if self._is_busy():
                _rest(self._stopping)

        started_s = time.monotonic()
        try:
            self._avatars.get(id, report)
        except CancelledError:
            return
        except AvatarError as error:
            _log.warning("avatar %s cannot be used: %s", id, error)
            return
        _log.info("avatar %s: prepared in %.1f s", id, time.monotonic() - started_s)

    def _list(self) -> Listing:
        avatars = self._avatars.list()
        try:
            return Listing(avatars, self._avatars.default_id)
        except AvatarError:
            return Listing(avatars, "")


async def _on_thread(work: Callable[[], T], *, undo: Callable[[T], object]) -> T:
    """The result of ``work`` on a thread. Where this is cancelled meanwhile, it is undone."""
    working = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        if working.exception() is None:
            undo(working.result())
        raise


def _rest(cancelled: threading.Event) -> None:
    cancelled.wait(_REST_S)
