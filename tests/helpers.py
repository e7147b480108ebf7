"""A server with fakes behind it, and a client that keeps everything it was sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.fake_avatars import FakeAvatars
from tests.fake_dialogue import Dialogues, FakeSpeech
from tests.fake_renderer import FakeRenderer
from tests.protocol.document import check_message
from wsavatar.avatar_jobs.dropped import DroppedFiles
from wsavatar.avatar_jobs.maker import AvatarMaker
from wsavatar.config import ServerSettings, Settings
from wsavatar.dialogue import registry
from wsavatar.dialogue.base import (
    Dialogue,
)
from wsavatar.dialogue.engines import Engines
from wsavatar.protocol.binary import BinaryMessage, MessageType, unpack
from wsavatar.serve.server import AvatarServer
from wsavatar.session.engine import Engine
from wsavatar.videos.jobs import VideoJobs


def fake_engine(
    face: FakeRenderer | None = None,
    avatars: FakeAvatars | None = None,
    create_dialogue: Callable[..., Any] | None = None,
    speech: FakeSpeech | None = None,
    maker: AvatarMaker | None = None,
    dropped: DroppedFiles | None = None,
    videos: VideoJobs | None = None,
) -> Engine:
    return Engine(
        face or FakeRenderer(),
        avatars or FakeAvatars("ada", "bob"),
        create_dialogue or Dialogues().create,
        speech,
        maker,
        videos,
        dropped,
    )


def real_dialogues(**sections: Any) -> Callable[..., Dialogue]:
    """The modes that the product has, with engines by these settings."""
    return partial(registry.create, Engines(Settings(**sections)))


def settings(**sections: dict[str, Any]) -> Settings:
    """Settings for a test: any free port, no engines that this machine may have, and what is
    given."""
    server = {"host": "127.0.0.1", "port": 0, **sections.pop("server", {})}
    for kind in ("asr", "llm"):
        sections.setdefault(kind, {"engine": "none"})
    return Settings(server=ServerSettings(**server), **sections)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running(
    engine: Engine, chosen: Settings | None = None, frontend: Path | None = None
) -> AsyncIterator[AvatarServer]:
    """A server with this engine, listening and ready."""
    server = AvatarServer(chosen or settings(), lambda *_: engine, frontend)
    async with server:
        await server.ready()
        yield server


@dataclass
class Client:
    """A WebSocket client that keeps what it was sent, in order: events, and binary messages."""

    socket: ClientConnection
    log: list[dict[str, Any] | BinaryMessage] = field(default_factory=list)

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def receive(self, timeout_s: float = 30.0) -> dict[str, Any] | BinaryMessage:
        async with asyncio.timeout(timeout_s):
            message = await self.socket.recv()
        got = unpack(message) if isinstance(message, bytes) else json.loads(message)
        if isinstance(got, dict):
            check_message("sendServerEvent", got)
        self.log.append(got)
        return got

    async def until(self, kind: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Read up to the next event of this type; the rest is in ``log``."""
        while True:
            got = await self.receive(timeout_s)
            if isinstance(got, dict) and got["type"] == kind:
                return got

    async def error(self) -> dict[str, Any]:
        """The next error event's content."""
        error: dict[str, Any] = (await self.until("error"))["error"]
        return error

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All events, or those of one type."""
        return [one for one in self.log if isinstance(one, dict) and kind in (None, one["type"])]

    def kinds(self) -> list[str]:
        """The types of all events in order, repeats in a row told once."""
        names = [one["type"] for one in self.events()]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]

    def binary(self, kind: MessageType) -> list[BinaryMessage]:
        return [one for one in self.log if isinstance(one, BinaryMessage) and one.type is kind]

    def binary_only(self) -> bool:
        """Whether audio and frames came as binary messages, and none as JSON."""
        kinds = {one["type"] for one in self.events()}
        as_json = kinds & {"response.output_audio.delta", "response.video.delta"}
        return not as_json and any(isinstance(one, BinaryMessage) for one in self.log)

    def audio(self) -> bytes:
        """All audio of the response, from JSON or binary messages."""
        packed = b"".join(one.payload for one in self.binary(MessageType.AUDIO))
        deltas = self.events("response.output_audio.delta")
        return packed + b"".join(base64.b64decode(one["delta"]) for one in deltas)

    def frames(self) -> list[tuple[int, float, int, bytes]]:
        """(index, pts in ms, generation, JPEG) of every frame, from JSON or binary messages."""
        packed = [
            (one.index, one.pts_us / 1000, one.generation, one.payload)
            for one in self.binary(MessageType.FRAME)
        ]
        return packed + [
            (one["frame_index"], one["pts_ms"], one["generation"], base64.b64decode(one["delta"]))
            for one in self.events("response.video.delta")
        ]


@contextlib.asynccontextmanager
async def client(server: AvatarServer, query: str = "", **options: Any) -> AsyncIterator[Client]:
    """A connected client that has read its session.created."""
    url = f"ws://127.0.0.1:{server.port}/v1/realtime{query}"
    async with connect(url, max_size=None, compression=None, **options) as socket:
        connected = Client(socket)
        await connected.until("session.created")
        yield connected


async def served_well(server: AvatarServer) -> None:
    """A good client gets a whole response."""
    async with client(server) as good:
        await good.send("avatar.speak", text="440 1")
        done = await good.until("response.done")
        assert done["response"]["status"] == "completed"
        assert len(good.frames()) == 25


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def get(
    server: AvatarServer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> Answer:
    def ask() -> Answer:
        asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        with contextlib.closing(asking):
            asking.request(method, path, headers=headers or {})
            return Answer(asking.getresponse())

    return await asyncio.to_thread(ask)
