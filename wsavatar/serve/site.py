"""The content of HTTP answers: health, statistics, avatars, the protocol's description.

`wsavatar.serve.http` makes answers of requests. Routes are called on the event loop and only read
numbers; `AvatarFiles` reads the disk and runs on a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST

from wsavatar import __version__
from wsavatar.config import Settings
from wsavatar.dialogue.engine import EngineStatus
from wsavatar.errors import without_folders
from wsavatar.metrics import Metrics
from wsavatar.protocol.asyncapi import describe
from wsavatar.serve.avatar_files import AvatarFiles
from wsavatar.serve.http import NotFound, Reply, Site, file_reply, json_reply, not_yet
from wsavatar.session.engine import Engine

__all__ = ["ENDPOINT", "build_site"]

ENDPOINT = "/v1/realtime"


def build_site(
    frontend: Path,
    metrics: Metrics,
    engine: Callable[[], Engine | None],
    progress: Callable[[], str],
    settings: Settings,
    may_change_avatars: Callable[[str], bool],
) -> Site:
    """The site of one server. ``engine()`` is None until it is loaded; ``progress()`` says why.

    ``may_change_avatars``: whether a client with this ``Host`` may, over the WebSocket.
    """
    avatars = AvatarFiles(engine, progress, settings, may_change_avatars)

    def ready() -> Reply:
        loaded = engine()
        health = {} if loaded is None else dict(loaded.renderer.health())
        is_ready = not all(health.values())  # without devices: not loaded
        status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        problems = {name: without_folders(problem) for name, problem in health.items() if problem}
        body = {"ready": is_ready, "progress": progress(), "problems": problems}
        return json_reply(body, status)

    def prometheus() -> Reply:
        return Reply(HTTPStatus.OK, metrics.prometheus(), CONTENT_TYPE_LATEST)

    def voices() -> Reply:
        loaded = engine()
        if loaded is None:
            return not_yet(progress())
        if loaded.speech is None:
            return json_reply({"voices": [], "complete": True})
        return json_reply(asdict(loaded.speech.voice_list()))

    def engines() -> Reply:
        loaded = engine()
        if loaded is None:
            return not_yet(progress())
        return json_reply([_told(one) for one in loaded.speech.status()] if loaded.speech else [])

    def endpoint() -> Reply:
        sentence = b"This is a WebSocket: connect to it with a WebSocket client.\n"
        upgrade = {"Upgrade": "websocket", "Cache-Control": "no-store"}
        return Reply(HTTPStatus.UPGRADE_REQUIRED, sentence, headers=upgrade)

    return Site(
        frontend,
        routes={
            ENDPOINT: endpoint,
            "/healthz": lambda: json_reply({"status": "ok", "version": __version__}),
            "/readyz": ready,
            "/metrics": prometheus,
            "/api/engines": engines,
            "/api/voices": voices,
            "/api/stats": lambda: json_reply(metrics.snapshot()),
            "/asyncapi.json": lambda: json_reply(describe()),
        },
        files={
            "/api/avatars": avatars.listing,
            "/videos/": partial(_video, engine),
        },
        queries={"/avatars/": avatars.file},
        origins=settings.server.allowed_origins,
    )


def _video(engine: Callable[[], Engine | None], path: str, headers: Mapping[str, str]) -> Reply:
    """``/videos/<name>``: a finished video, whose name only its client knows."""
    loaded = engine()
    videos = loaded.videos if loaded is not None else None
    file = videos.find(path.removeprefix("/videos/")) if videos is not None else None
    if file is None:
        raise NotFound("no such video: it has expired, or there never was one")
    return file_reply(file, headers)


def _told(engine: EngineStatus) -> dict[str, Any]:
    """An engine as clients read of it."""
    problem, note = without_folders(engine.problem), without_folders(engine.note)
    return asdict(replace(engine, problem=problem, note=note))
