"""A real HTTP server with OpenAI's endpoints for chat, speech and transcription, by a script.

Each endpoint takes its answers from a list, in order; the last one is given again. Or a function
makes each chat answer of the request. An answer is a series of steps, so that it can be slow, cut
off, or nonsense. `python -m` serves it by hand.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import web

__all__ = [
    "CUT",
    "HANG",
    "Answer",
    "Asked",
    "Pause",
    "ScriptedEndpoint",
    "call_delta",
    "finish",
    "pcm_tone",
    "scripted_endpoint",
]


@dataclass(frozen=True)
class Pause:
    """Nothing is sent for so long."""

    seconds: float


class _Step:
    pass


CUT = _Step()
"""The connection is reset here."""
HANG = _Step()
"""Nothing more is sent, until the client goes away or the server stops."""

OfText = Callable[[str], dict[str, Any] | bytes]
Step = str | bytes | dict[str, Any] | Pause | asyncio.Event | _Step
"""A text delta; raw bytes (of sound, or nonsense); a ``delta`` of chat completions, or a whole
chunk that has ``choices``; a pause; an event to wait for; an end."""


class Answer:
    """How one request is answered. ``status`` other than 200: the steps' texts are the message.

    ``ends`` False: the finish reason and ``[DONE]`` are left out.
    """

    def __init__(
        self,
        *steps: Step,
        status: int = 200,
        finish: str = "stop",
        ends: bool = True,
        content_type: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.steps = steps
        self.status = status
        self.finish = finish
        self.ends = ends
        self.content_type = content_type
        self.headers = dict(headers or {})

    @property
    def text(self) -> str:
        return "".join(step for step in self.steps if isinstance(step, str))


@dataclass(frozen=True)
class Asked:
    """A request that came. ``body``: its JSON, or the fields of its form."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


def call_delta(
    index: int, *, call_id: str | None = None, name: str | None = None, arguments: str | None = None
) -> dict[str, Any]:
    """A ``delta`` with a piece of a function call, as OpenAI streams it."""
    function = {"name": name, "arguments": arguments}
    call: dict[str, Any] = {
        "index": index,
        "function": {key: value for key, value in function.items() if value is not None},
    }
    if call_id is not None:
        call |= {"id": call_id, "type": "function"}
    return {"tool_calls": [call]}


def finish(reason: str) -> dict[str, Any]:
    """A whole chunk that has only a finish reason."""
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def pcm_tone(seconds: float, rate: int = 24_000) -> bytes:
    """A 440 Hz tone, 16 bit mono."""
    wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    return (wave * 32767).astype("<i2").tobytes()


@dataclass
class ScriptedEndpoint:
    """What it answers, and what it was asked. Change it at any time.

    ``key``: the only bearer token that is allowed; empty: all are.
    """

    chat: list[Answer] | Callable[[dict[str, Any]], Answer] = field(
        default_factory=lambda: [Answer("Hello", ". I am", " a script.")]
    )
    speech: list[Answer] = field(default_factory=lambda: [Answer(pcm_tone(0.5))])
    transcriptions: list[Answer] = field(default_factory=lambda: [Answer("Hello there.")])
    models: list[str] = field(default_factory=lambda: ["scripted-1", "scripted-2"])
    models_status: int = 200
    ollama: bool = False
    """Whether it looks like an Ollama."""
    key: str = ""
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    """TCP connections that were opened so far."""
    port: int = 0
    _abandoned: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _given: dict[str, int] = field(default_factory=dict)

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The ``base_url`` of clients."""
        return f"{self.root}/v1"

    def requests(self, path: str) -> list[Asked]:
        """Those whose path ends with this, in order."""
        return [one for one in self.asked if one.path.endswith(path)]

    async def until_asked(self, path: str, count: int = 1) -> Asked:
        """Wait for the ``count``-th request to this path."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: len(self.requests(path)) >= count)
        return self.requests(path)[count - 1]

    async def until_abandoned(self, count: int = 1) -> None:
        """Wait until clients have gone away from so many answers that were not complete."""
        async with asyncio.timeout(30), self._changed:
            await self._changed.wait_for(lambda: self._abandoned >= count)

    # -- requests ---------------------------------------------------------------------------------

    def application(self) -> web.Application:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/v1/models", self._on(self._models))
        app.router.add_post("/v1/chat/completions", self._on(self._chat))
        app.router.add_post("/v1/audio/speech", self._on(self._speech))
        app.router.add_post("/v1/audio/transcriptions", self._on(self._transcription))
        app.router.add_get("/api/version", self._on(self._version))
        app.router.add_get("/api/tags", self._on(self._tags))
        app.router.add_post("/api/generate", self._on(self._generate))
        return app

    def _on(
        self, handle: Callable[[web.Request, dict[str, Any]], Awaitable[web.StreamResponse]]
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def answer(request: web.Request) -> web.StreamResponse:
            body = await _body(request)
            self.asked.append(Asked(request.path, dict(request.headers), body))
            await self._notify()
            if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
                return _error(401, "Incorrect API key provided.")
            try:
                return await handle(request, body)
            except (asyncio.CancelledError, ConnectionError):
                self._abandoned += 1
                await self._notify()
                raise

        return answer

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _next(self, path: str, answers: list[Answer]) -> Answer:
        given = self._given.get(path, 0)
        self._given[path] = given + 1
        return answers[min(given, len(answers) - 1)]

    async def _models(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        if self.models_status != 200:
            return _error(self.models_status, "no")
        data = [{"id": one, "object": "model", "owned_by": "tests"} for one in self.models]
        return web.json_response({"object": "list", "data": data})

    async def _version(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"version": "0.5.0"}) if self.ollama else _error(404, "no")

    async def _tags(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        models = [
            {"name": one, "details": {"family": one.partition(":")[0]}} for one in self.models
        ]
        return web.json_response({"models": models}) if self.ollama else _error(404, "no")

    async def _generate(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        return web.json_response({"model": body.get("model"), "done": True})

    async def _chat(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        answer = self.chat(body) if callable(self.chat) else self._next("chat", self.chat)
        if answer.status == 200 and not body.get("stream"):
            return web.json_response(_completion(body, answer))
        end = (finish(answer.finish), b"data: [DONE]\n\n") if answer.ends else ()
        return await _stream(request, answer, "text/event-stream", _text_delta, end)

    async def _speech(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        answer = self._next("speech", self.speech)
        return await _stream(request, answer, "audio/pcm", str.encode)

    async def _transcription(
        self, request: web.Request, body: dict[str, Any]
    ) -> web.StreamResponse:
        answer = self._next("transcriptions", self.transcriptions)
        if body.get("stream") == "true" and body.get("response_format") != "text":
            done = {"type": "transcript.text.done", "text": answer.text}
            return await _stream(request, answer, "text/event-stream", _transcript_delta, (done,))
        whole = answer  # bytes are the whole answer
        if answer.status == 200 and not any(isinstance(step, bytes) for step in answer.steps):
            waits = (step for step in answer.steps if not isinstance(step, str))
            whole = Answer(*waits, json.dumps({"text": answer.text}))
        return await _stream(request, whole, "application/json", str.encode)


async def _body(request: web.Request) -> dict[str, Any]:
    if request.content_type.startswith("multipart/"):
        form = await request.post()
        fields: dict[str, Any] = {}
        for name, one in form.items():
            if isinstance(one, web.FileField):
                with one.file:
                    fields[name] = one.file.read()
            else:
                fields[name] = one
        return fields
    text = await request.text()
    body: dict[str, Any] = json.loads(text) if text else {}
    return body


def _event(step: str | bytes | dict[str, Any], of_text: OfText) -> bytes:
    """A step as it goes over the wire."""
    made = of_text(step) if isinstance(step, str) else step
    if isinstance(made, bytes):
        return made
    if not {"choices", "type", "error"} & set(made):
        made = _chunk(made)
    return f"data: {json.dumps(made)}\n\n".encode()


async def _stream(
    request: web.Request,
    answer: Answer,
    content_type: str,
    of_text: OfText,
    end: Sequence[bytes | dict[str, Any]] = (),
) -> web.StreamResponse:
    if answer.status != 200:
        reply = _error(answer.status, answer.text or "no")
        reply.headers.update(answer.headers)
        return reply
    reply = web.StreamResponse(headers=answer.headers)
    reply.content_type = answer.content_type or content_type
    started = False
    for step in itertools.chain(answer.steps, end):
        if isinstance(step, (str, bytes, dict)):
            if not started:
                await reply.prepare(request)
                started = True
            await reply.write(_event(step, of_text))
        elif isinstance(step, Pause):
            await asyncio.sleep(step.seconds)
        elif isinstance(step, asyncio.Event):
            await step.wait()
        elif step is CUT:
            assert request.transport is not None
            request.transport.abort()
            return reply
        else:
            await asyncio.Event().wait()
    if not started:
        await reply.prepare(request)
    await reply.write_eof()
    return reply


def _text_delta(text: str) -> dict[str, Any]:
    return {"content": text}


def _transcript_delta(text: str) -> dict[str, Any]:
    return {"type": "transcript.text.delta", "delta": text}


def _chunk(delta: dict[str, Any]) -> dict[str, Any]:
    """A chunk of a chat completion."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "scripted",
        "choices": [{"index": 0, "delta": delta, "finish_reason": None}],
    }


def _completion(body: dict[str, Any], answer: Answer) -> dict[str, Any]:
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "message": message, "finish_reason": answer.finish}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": body.get("model", ""),
        "choices": [choice],
    }


def _error(status: int, message: str) -> web.Response:
    error = {"message": message, "type": "scripted_error", "param": None, "code": None}
    return web.json_response({"error": error}, status=status)


@asynccontextmanager
async def scripted_endpoint(**fields: Any) -> AsyncIterator[ScriptedEndpoint]:
    """A running server. ``fields`` are those of `ScriptedEndpoint`; ``port`` 0: any."""
    endpoint = ScriptedEndpoint(**fields)
    # A handler is cancelled when its client goes away, so that a test can see it.
    runner = web.AppRunner(
        endpoint.application(), handler_cancellation=True, access_log=None, shutdown_timeout=0.01
    )
    await runner.setup()
    assert runner.server is not None
    make_protocol = runner.server

    def connected() -> asyncio.Protocol:
        endpoint.connections += 1
        return make_protocol()

    server = await asyncio.get_running_loop().create_server(connected, "127.0.0.1", endpoint.port)
    endpoint.port = server.sockets[0].getsockname()[1]
    try:
        yield endpoint
    finally:
        server.close()
        await runner.cleanup()


async def _serve_by_hand() -> None:
    async with scripted_endpoint(port=8123) as endpoint:
        print(endpoint.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve_by_hand())
