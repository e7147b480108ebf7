"""A session without a socket or a clock, and a client in memory that keeps what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.exceptions import ConnectionClosedOK

from tests.fake_avatars import FakeAvatars
from tests.fake_dialogue import Dialogues, FakeSpeech
from tests.fake_renderer import FakeRenderer
from tests.helpers import fake_engine, settings
from tests.protocol.document import check_message
from wsavatar.metrics import Metrics
from wsavatar.serve.sessions import Sessions
from wsavatar.serve.websocket import Goodbye
from wsavatar.session.session import Session


class Clock:
    """Time stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Line:
    """A socket in memory. ``say`` is what the client sends, ``got`` what it was sent."""

    def __init__(self, *, reads: bool = True) -> None:
        self.inbox: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.got: list[Any] = []
        self.arrived = asyncio.Condition()
        self.reads = reads
        self.read = asyncio.Event()
        self.answers = True

    async def recv(self) -> str | bytes:
        message = await self.inbox.get()
        if message is None:
            raise ConnectionClosedOK(None, None)
        return message

    async def send(self, message: str | bytes) -> None:
        if not self.reads:
            await self.read.wait()
        got = json.loads(message) if isinstance(message, str) else message
        if isinstance(got, dict):
            check_message("sendServerEvent", got)
        async with self.arrived:
            self.got.append(got)
            self.arrived.notify_all()

    async def ping(self) -> asyncio.Future[float]:
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        if self.answers:
            answer.set_result(0.0)
        return answer

    def say(self, kind: str, **fields: Any) -> None:
        self.inbox.put_nowait(json.dumps({"type": kind, **fields}))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.got if isinstance(one, dict) and one["type"] == kind]

    async def until(self, kind: str, count: int = 1) -> dict[str, Any]:
        async with asyncio.timeout(30), self.arrived:
            await self.arrived.wait_for(lambda: len(self.of(kind)) >= count)
        return self.of(kind)[count - 1]

    async def caught_up(self) -> None:
        """Everything that was said so far has been worked through."""
        before = len(self.of("input_audio_buffer.cleared"))
        self.say("input_audio_buffer.clear")
        await self.until("input_audio_buffer.cleared", before + 1)

    def kinds(self) -> list[str]:
        """The types of all events, in order."""
        return [one["type"] for one in self.got if isinstance(one, dict)]


class Held:
    """A session that runs, and all that belongs to it."""

    def __init__(
        self,
        line: Line,
        face: FakeRenderer | None = None,
        dialogues: Dialogues | None = None,
        speech: FakeSpeech | None = None,
        avatars: FakeAvatars | None = None,
        **chosen: Any,
    ) -> None:
        self.line = line
        self.clock = Clock()
        self.face = face or FakeRenderer()
        self.dialogues = dialogues or Dialogues()
        self.metrics = Metrics()
        engine = fake_engine(self.face, avatars, self.dialogues.create, speech)
        self.session = Session(engine, settings(**chosen), self.metrics, clock=self.clock)
        self.access = self.session.dialogue_access
        self.sessions = Sessions(600, self.metrics)
        self.task: asyncio.Task[Goodbye] = asyncio.create_task(
            self.sessions.begin(line, self.session), name="session"
        )


@contextlib.asynccontextmanager
async def holding(
    line: Line | None = None,
    face: FakeRenderer | None = None,
    dialogues: Dialogues | None = None,
    **chosen: Any,
) -> AsyncIterator[Held]:
    """``chosen``: ``speech``, ``avatars``, and sections of the settings."""
    held = Held(line or Line(), face, dialogues, **chosen)
    await held.line.until("session.created")
    try:
        yield held
    finally:
        held.line.inbox.put_nowait(None)
        await asyncio.wait_for(held.task, 30)


@contextlib.asynccontextmanager
async def reading_nothing(line: Line, **chosen: Any) -> AsyncIterator[Held]:
    """As `holding`, with a client that does not read until ``line.read`` is set."""
    held = Held(line, **chosen)
    try:
        yield held
    finally:
        line.inbox.put_nowait(None)
        await asyncio.wait_for(held.task, 30)
