"""A Realtime server that says what a test tells it, and keeps what it was told.

Both directions are checked against the `openai` package's types, which are generated from the API's
specification; what a client sends also against our own parser, which knows no unknown fields.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

import numpy as np
from openai.types.realtime import RealtimeClientEvent, RealtimeServerEvent
from openai.types.realtime.response_create_event_with_references_param import (
    ResponseCreateEventWithReferencesParam,
)
from pydantic import TypeAdapter
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tests.helpers import Client, client, fake_engine, real_dialogues, running, settings
from wsavatar.protocol.events import parse_client_event
from wsavatar.serve.server import AvatarServer

KEY = "sk-test-0123456789"


def noise(seconds: float, seed: int = 0) -> bytes:
    """PCM16 at 24 kHz with every value, the extremes included."""
    values = np.random.default_rng(seed).integers(-32768, 32768, int(24_000 * seconds))
    values[:2] = (-32768, 32767)
    return values.astype("<i2").tobytes()


def _by_type(union: Any) -> dict[str, Any]:
    members = get_args(union)
    if len(members) == 2 and not hasattr(members[0], "model_fields"):  # Annotated
        members = get_args(members[0])
    return {get_args(one.model_fields["type"].annotation)[0]: one for one in members}


_CREATE = TypeAdapter[Any](ResponseCreateEventWithReferencesParam)
_CLIENT, _SERVER = _by_type(RealtimeClientEvent), _by_type(RealtimeServerEvent)


@dataclass
class Talk:
    """One connection to the scripted server. ``got`` is what the client sent."""

    socket: ServerConnection
    answers: bool
    got: list[dict[str, Any]] = field(default_factory=list)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)
    number: int = 0

    @property
    def headers(self) -> Any:
        assert self.socket.request is not None
        return self.socket.request.headers

    @property
    def query(self) -> dict[str, list[str]]:
        assert self.socket.request is not None
        return parse_qs(urlsplit(self.socket.request.path).query)

    @property
    def audio(self) -> bytes:
        """All that was appended to the input buffer."""
        appended = self.of("input_audio_buffer.append")
        return b"".join(base64.b64decode(one["audio"]) for one in appended)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.got if one["type"] == kind]

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        return await self.when(lambda: self.of(kind)[count - 1 :], kind)

    async def when(self, found: Callable[[], list[dict[str, Any]]], what: str) -> dict[str, Any]:
        try:
            async with asyncio.timeout(30), self.arrived:
                await self.arrived.wait_for(found)
        except TimeoutError:
            raise AssertionError(f"no {what}: {[one['type'] for one in self.got]}") from None
        return found()[0]

    async def heard(self, size: int) -> bytes:
        """The input buffer's audio, once there are so many bytes."""
        await self.when(lambda: self.got if len(self.audio) >= size else [], f"{size} bytes")
        return self.audio

    async def say(self, kind: str, **fields: Any) -> None:
        """Send an event."""
        self.number += 1
        event = {"type": kind, "event_id": f"theirs_{self.number}", **fields}
        _SERVER[kind].model_validate(event)
        await self.socket.send(json.dumps(event))

    async def refuse(self, event: dict[str, Any], code: str, message: str, **more: Any) -> None:
        """Say that an event of the client is wrong."""
        error = {"type": "invalid_request_error", "code": code, "message": message, **more}
        await self.say("error", error={**error, "event_id": event.get("event_id")})

    # -- a response, step by step --

    async def create(self, response_id: str, **more: Any) -> None:
        response = {"id": response_id, "object": "realtime.response", "status": "in_progress"}
        more = {"conversation_id": "conv_1", "output_modalities": ["audio"], "output": [], **more}
        await self.say("response.created", response={**response, **more})

    async def add(self, response_id: str, item: dict[str, Any], index: int = 0) -> None:
        item = {"object": "realtime.item", "status": "in_progress", **item}
        await self.say(
            "response.output_item.added", response_id=response_id, output_index=index, item=item
        )

    async def add_message(self, response_id: str, item_id: str, index: int = 0) -> None:
        item = {"id": item_id, "type": "message", "role": "assistant", "content": []}
        await self.add(response_id, item, index)

    async def add_call(
        self, response_id: str, item_id: str, call_id: str, name: str, index: int = 0
    ) -> None:
        call = {"id": item_id, "type": "function_call", "call_id": call_id, "name": name}
        await self.add(response_id, {**call, "arguments": ""}, index)

    async def delta(self, kind: str, response_id: str, item_id: str, delta: str) -> None:
        """``kind``: output_audio, output_audio_transcript, output_text."""
        await self.say(
            f"response.{kind}.delta",
            response_id=response_id,
            item_id=item_id,
            output_index=0,
            content_index=0,
            delta=delta,
        )

    async def sound(self, response_id: str, item_id: str, pcm: bytes) -> None:
        await self.delta("output_audio", response_id, item_id, base64.b64encode(pcm).decode())

    async def done(self, response_id: str, status: str = "completed", **details: Any) -> None:
        response: dict[str, Any] = {"id": response_id, "status": status, "output": []}
        if details:
            response["status_details"] = {"type": status, **details}
        await self.say("response.done", response=response)

    async def speak(self, response_id: str, item_id: str, words: str, pcm: bytes) -> None:
        """A whole response, in deltas of 100 ms."""
        await self.create(response_id)
        await self.add_message(response_id, item_id)
        await self.delta("output_audio_transcript", response_id, item_id, words)
        for start in range(0, len(pcm), 4800):
            await self.sound(response_id, item_id, pcm[start : start + 4800])
        await self.done(response_id)

    # -- turns --

    async def speech(self, item_id: str, start_ms: int, end_ms: int) -> None:
        """The user has spoken, from one position to another."""
        await self.speech_started(item_id, start_ms)
        kind = "input_audio_buffer.speech_stopped"
        await self.say(kind, audio_end_ms=end_ms, item_id=item_id)
        await self.committed(item_id)

    async def speech_started(self, item_id: str, start_ms: int) -> None:
        kind = "input_audio_buffer.speech_started"
        await self.say(kind, audio_start_ms=start_ms, item_id=item_id)

    async def committed(self, item_id: str) -> None:
        await self.say("input_audio_buffer.committed", previous_item_id=None, item_id=item_id)

    async def read(self) -> None:
        async for message in self.socket:
            event = json.loads(message)
            parse_client_event(message)
            if event["type"] == "response.create":
                _CREATE.validate_python(event)  # the model knows no references
            else:
                _CLIENT[event["type"]].model_validate(event)
            if self.answers and event["type"] == "session.update":
                session = {**event["session"], "id": "sess_1", "object": "realtime.session"}
                await self.say("session.updated", session=session)
            async with self.arrived:
                self.got.append(event)
                self.arrived.notify_all()


class Scripted:
    """The server. ``answers``: it takes every configuration. ``talks``: its connections."""

    def __init__(self) -> None:
        self.answers = True
        self.status: HTTPStatus | None = None
        self.connects = True
        self.last_words: dict[str, Any] | None = None
        self.talks: list[Talk] = []
        self.asked = 0  # requests to connect
        self.port = 0
        self.closing = asyncio.Event()
        self._came = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/realtime"

    async def talk(self, number: int = 1) -> Talk:
        """The connection of this number, once it is there and has its configuration."""
        async with asyncio.timeout(30), self._came:
            await self._came.wait_for(lambda: len(self.talks) >= number)
        await self.talks[number - 1].until("session.update")
        return self.talks[number - 1]

    async def has_been_asked(self, count: int) -> None:
        async with asyncio.timeout(30), self._came:
            await self._came.wait_for(lambda: self.asked >= count)

    async def check(self, connection: ServerConnection, request: Request) -> Response | None:
        async with self._came:
            self.asked += 1
            self._came.notify_all()
        if not self.connects:
            await self.closing.wait()
        if self.status is not None:
            return connection.respond(self.status, f"the key {KEY} is wrong\n")
        return None

    async def handle(self, socket: ServerConnection) -> None:
        talk = Talk(socket, self.answers)
        with contextlib.suppress(ConnectionClosed):
            if self.last_words is not None:
                await talk.say("error", error=self.last_words)
                return
            await talk.say("session.created", session={"type": "realtime", "id": "sess_1"})
            async with self._came:
                self.talks.append(talk)
                self._came.notify_all()
            await talk.read()


@contextlib.asynccontextmanager
async def scripted() -> AsyncIterator[Scripted]:
    server = Scripted()
    async with serve(
        server.handle,
        "127.0.0.1",
        0,
        process_request=server.check,
        max_size=None,
        compression=None,
        close_timeout=0.5,
    ) as listening:
        server.port = next(iter(listening.sockets)).getsockname()[1]
        try:
            yield server
        finally:
            server.closing.set()


@contextlib.asynccontextmanager
async def in_front_of(url: str, **sections: Any) -> AsyncIterator[AvatarServer]:
    """Our server, whose sessions begin in mode upstream."""
    given = {"url": url, "api_key": KEY, "timeout_s": 5.0, **sections.pop("upstream", {})}
    sections["dialogue"] = {"mode": "upstream", **sections.get("dialogue", {})}
    sections.setdefault("tts", {"engines": ("espeak",)})
    engine = fake_engine(create_dialogue=real_dialogues(upstream=given, **sections))
    async with running(engine, settings(upstream=given, **sections)) as server:
        yield server


@contextlib.asynccontextmanager
async def visiting(query: str = "", **sections: Any) -> AsyncIterator[tuple[Client, Talk]]:
    """A client of our server, and our server's connection to the scripted one."""
    async with (
        scripted() as upstream,
        in_front_of(upstream.url, **sections) as server,
        client(server, query) as visitor,
    ):
        yield visitor, await upstream.talk()
