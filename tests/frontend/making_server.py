"""A server in this process whose clients may make avatars: quick, and honest about their files.

Files are read, followed and written as the product does it; the faces are drawn ones, and so is
what finds them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from tests.creation.drawn import DrawnFaceDetector
from tests.drawn_faces import face_video
from tests.faces.drawn_mouth import DrawnMouth
from tests.fake_renderer import FakeRenderer
from tests.helpers import fake_engine, settings
from wsavatar.avatar_jobs.dropped import DroppedFiles
from wsavatar.avatar_jobs.failures import KnownFailures
from wsavatar.avatar_jobs.maker import AvatarMaker
from wsavatar.avatars.store import AvatarStore
from wsavatar.avatars.writing import write_avatar
from wsavatar.config import AvatarSettings
from wsavatar.creation import create_avatar
from wsavatar.serve.server import AvatarServer
from wsavatar.session.engine import Engine

__all__ = ["MakingServer"]


class MakingServer:
    """`start` it; ``url`` is its page, ``directory`` has ``avatars`` and ``uploads``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        frames, landmarks = face_video(256, 256, 10, size=120)
        write_avatar(directory / "avatars", "ada", "Ada", frames, 25, landmarks)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="making server")
        self._server: AvatarServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.port}/"

    def start(self) -> None:
        self._thread.start()
        self._run(self._open())

    def stop(self) -> None:
        assert self._server is not None
        self._run(self._server.__aexit__())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self) -> None:
        places = AvatarSettings(
            directory=self.directory / "avatars",
            uploads_directory=self.directory / "uploads",
            cache=self.directory / "cache",
        )
        self._server = AvatarServer(settings(avatars=places), lambda *_: self._engine(places))
        await self._server.__aenter__()
        await self._server.ready()

    @staticmethod
    def _engine(places: AvatarSettings) -> Engine:
        assert places.directory is not None
        store = AvatarStore(places, DrawnMouth(widest=1.0))
        create = partial(create_avatar, detector=DrawnFaceDetector())
        maker = AvatarMaker(places, store, create)
        known = KnownFailures(places.directory, "")
        dropped = DroppedFiles(maker, [places.directory], lambda: False, known)
        return fake_engine(FakeRenderer(), store, maker=maker, dropped=dropped)  # type: ignore[arg-type]

    def _run(self, work: Coroutine[Any, Any, Any]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(60)
