"""A dropped connection, over real sockets: the next one goes on, and nothing said is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.fake_dialogue import Dialogues, tone
from tests.fake_renderer import FakeRenderer
from tests.helpers import Client, client, fake_engine, running, served_well, settings
from tests.protocol.document import check_message
from wsavatar.media.audio import encode
from wsavatar.protocol.binary import MessageType, unpack
from wsavatar.serve.server import AvatarServer
from wsavatar.serve.sessions import CANNOT_RESUME, TAKEN_OVER
from wsavatar.session import replay


@dataclass
class Caller(Client):
    """A client that may lose its connection and come back. ``log`` is of all connections."""

    server: AvatarServer | None = None
    token: str = ""
    received: int = 0
    sent: list[str | bytes] = field(default_factory=list)

    async def receive(self, timeout_s: float = 30.0) -> Any:
        async with asyncio.timeout(timeout_s):
            message = await self.socket.recv()
        self.received += 1
        got = unpack(message) if isinstance(message, bytes) else json.loads(message)
        if isinstance(got, dict):
            check_message("sendServerEvent", got)
            if got["type"] == "avatar.resumable":
                self.token = got["token"]
        self.log.append(got)
        return got

    async def send(self, kind: str, **fields: Any) -> None:
        self.sent.append(json.dumps({"type": kind, **fields}))
        with contextlib.suppress(ConnectionClosed):  # it is sent again later
            await self.socket.send(self.sent[-1])

    def lose(self) -> None:
        """The network goes: no close frame, and what was not read here is lost."""
        self.socket.transport.abort()

    async def return_(self, **options: Any) -> dict[str, Any]:
        """Connect again; returns avatar.resumed, after sending again what did not arrive."""
        assert self.server is not None
        self.socket = await dial(self.server, resume=self.token, received=self.received, **options)
        resumed: dict[str, Any] = await self.receive()
        assert resumed["type"] == "avatar.resumed"
        for message in self.sent[resumed["received"] :]:
            await self.socket.send(message)
        return resumed


async def dial(server: AvatarServer, query: str = "", **named: Any) -> ClientConnection:
    options = {key: named.pop(key) for key in ("additional_headers", "origin") if key in named}
    query = query or "?" + "&".join(f"{key}={value}" for key, value in named.items())
    url = f"ws://127.0.0.1:{server.port}/v1/realtime{query}"
    return await connect(url, max_size=None, compression=None, **options)


@contextlib.asynccontextmanager
async def calling(
    server: AvatarServer, avatar: str = "ada", **options: Any
) -> AsyncIterator[Caller]:
    """A caller that knows how to come back."""
    caller = Caller(await dial(server, f"?avatar={avatar}", **options), server=server)
    try:
        await caller.until("avatar.resumable")
        yield caller
    finally:
        await caller.socket.close()


async def refused(server: AvatarServer, **query: Any) -> tuple[int, str]:
    """The code and reason with which a connection that would go on is closed."""
    socket = await dial(server, **query)
    with pytest.raises(ConnectionClosed) as closed:
        async with asyncio.timeout(30):
            await socket.recv()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code, closed.value.rcvd.reason


async def waits(server: AvatarServer) -> None:
    """The server has noticed that a connection is lost."""
    await until(lambda: any(not session._downlink.is_connected for session in server._sessions))


async def until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


def audio_starts(caller: Caller) -> list[int]:
    return [one.index for one in caller.binary(MessageType.AUDIO)]


# -- nothing is lost ------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["json", "binary"])
@pytest.mark.parametrize("reads", [1, 9, 30])
async def test_every_sample_arrives_once_wherever_the_connection_breaks(
    encoding: str, reads: int
) -> None:
    """Cut twice in the middle of a response, with messages on their way: the audio of all three
    connections together is what was said, in order, and the events are one sequence."""
    async with running(fake_engine()) as server, calling(server) as caller:
        await caller.send("session.update", session={"avatar": {"video": {"encoding": encoding}}})
        await caller.send("avatar.speak", text="440 8")
        await caller.until("response.created")
        for _ in range(2):
            for _ in range(reads):
                await caller.receive()
            caller.lose()
            await caller.return_()
        done = await caller.until("response.done")
        assert done["response"]["status"] == "completed"
        assert caller.audio() == encode(tone(8, 440), "audio/pcm")
        if encoding == "binary":
            assert audio_starts(caller) == sorted(set(audio_starts(caller)))
        ids = [one["event_id"] for one in caller.events()]
        assert len(ids) == len(set(ids))
        assert len(caller.events("response.created")) == 1
        indices = [index for index, *_ in caller.frames()]
        assert indices == sorted(set(indices))
        assert (
            len(indices) + sum(one["frames_dropped"] for one in caller.events("avatar.resumed"))
            >= 8 * 25
        )


async def test_what_the_client_said_meanwhile_arrives_once() -> None:
    """avatar.resumed says how many of its messages the server has; the client sends the rest."""
    made = Dialogues()
    async with running(fake_engine(create_dialogue=made.create)) as server:
        async with calling(server) as caller:
            for _ in range(3):
                await caller.send("input_audio_buffer.append", audio="AAAA" * 1600)
            await caller.send("input_audio_buffer.clear")
            await caller.until("input_audio_buffer.cleared")
            caller.lose()
            for _ in range(2):  # the microphone goes on
                await caller.send("input_audio_buffer.append", audio="AAAA" * 1600)
            resumed = await caller.return_()
            assert resumed["received"] == 4
            await caller.send("input_audio_buffer.clear")
            await caller.until("input_audio_buffer.cleared")
            ((_, dialogue),) = made.made
            assert dialogue.heard_samples == 5 * 2400


async def test_the_conversation_goes_on_where_it_was() -> None:
    """Configuration, items and the response in progress are as they were; no session is begun."""
    async with running(fake_engine()) as server, calling(server) as caller:
        await caller.send("session.update", session={"instructions": "Be kind."})
        await caller.send("avatar.speak", text="hum 300")
        item = (await caller.until("conversation.item.added"))["item"]["id"]
        caller.lose()
        await waits(server)
        await caller.return_()
        await caller.send("conversation.item.retrieve", item_id=item)
        found = await caller.until("conversation.item.retrieved")
        assert found["item"]["status"] == "in_progress"
        await caller.send("response.cancel")
        done = await caller.until("response.done")
        assert done["response"]["status"] == "cancelled"
        assert len(caller.events("session.created")) == 1
        assert len(server._sessions) == 1


async def test_a_connection_that_breaks_again_and_again_loses_nothing() -> None:
    """Twenty connections of three messages each: every message once, in order."""
    async with running(fake_engine()) as server, calling(server) as caller:
        video = {"avatar": {"video": {"encoding": "none"}}}
        await caller.send("session.update", session=video)
        for number in range(20):
            await caller.send("avatar.speak", text=f"44{number} 0.2")
            for _ in range(3):
                await caller.receive()
            caller.lose()
            await caller.return_()
        await caller.send("input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")
        said = [one["transcript"] for one in caller.events("response.output_audio_transcript.done")]
        assert said == [f"44{number} 0.2" for number in range(20)]
        assert len(caller.audio()) == 20 * 2 * 4800


async def test_frames_that_the_client_missed_are_dropped_and_counted_and_audio_is_not() -> None:
    """Nothing is rendered while it is away; what comes afterwards is told apart by its number."""
    face = FakeRenderer(held=True)
    async with running(fake_engine(face)) as server, calling(server) as caller:
        await caller.send("avatar.speak", text="440 2")
        await caller.until("response.output_audio.done")
        caller.lose()
        await waits(server)
        for stream in face.streams:
            stream.render(30)
        await caller.return_()
        face.streams[0].render()
        await caller.until("response.done")
        video = caller.events("response.video.done")[0]
        resumed = caller.events("avatar.resumed")[0]
        assert len(caller.frames()) + resumed["frames_dropped"] == 50
        assert video["frames_sent"] + video["frames_dropped"] == 50
        assert len(caller.audio()) == 2 * 48_000


# -- one connection at a time ---------------------------------------------------------------------


async def test_the_newer_of_two_connections_wins() -> None:
    """A phone that changes its network comes back before the server knows that it was gone."""
    async with running(fake_engine()) as server, calling(server) as caller:
        await caller.send("avatar.speak", text="440 2")
        await caller.until("response.created")
        old = caller.socket
        await caller.return_()
        with pytest.raises(ConnectionClosed) as closed:
            async with asyncio.timeout(30):
                while True:
                    await old.recv()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == TAKEN_OVER
        await caller.until("response.done")
        assert caller.audio() == encode(tone(2, 440), "audio/pcm")


async def test_many_connections_at_once_leave_one() -> None:
    """Ten with the same secret at the same moment: one carries the session, and it works."""
    async with running(fake_engine()) as server, calling(server) as caller:
        caller.lose()
        query = {"resume": caller.token, "received": caller.received}
        sockets = await asyncio.gather(*(dial(server, **query) for _ in range(10)))

        async def first(socket: ClientConnection) -> str:
            try:
                async with asyncio.timeout(30):
                    while True:
                        await socket.recv()
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                return str(closed.rcvd.code)
            except TimeoutError:
                return "open"

        readers = [asyncio.create_task(first(socket)) for socket in sockets]
        await until(lambda: sum(not reader.done() for reader in readers) == 1)
        (index,) = [i for i, reader in enumerate(readers) if not reader.done()]
        codes = {reader.result() for reader in readers if reader.done()}
        assert codes <= {str(TAKEN_OVER), str(CANNOT_RESUME)}
        readers[index].cancel()
        await asyncio.wait(readers)
        await sockets[index].send(json.dumps({"type": "input_audio_buffer.clear"}))
        async with asyncio.timeout(30):
            while "input_audio_buffer.cleared" not in str(await sockets[index].recv()):
                pass
        assert len(server._sessions) == 1


# -- what cannot be resumed -----------------------------------------------------------------------


@pytest.mark.parametrize("token", ["nothing", "", "..%2F..%2Fetc", "x" * 500])
async def test_an_unknown_secret_resumes_nothing(token: str) -> None:
    """4004 and a reason, whatever was guessed; an empty one begins a new session."""
    async with running(fake_engine()) as server, calling(server):
        if token:
            code, reason = await refused(server, resume=token, received=1)
            assert code == CANNOT_RESUME and "begin a new one" in reason
        await served_well(server)


@pytest.mark.parametrize("received", ["-1", "", "9" * 30, "1.5", "%D9%A3", "none", "1000", "1e1"])
async def test_a_number_that_cannot_be_leaves_the_session_alone(received: str) -> None:
    """The connection in use goes on, and the right number works."""
    async with running(fake_engine()) as server, calling(server) as caller:
        code, _ = await refused(server, resume=caller.token, received=received)
        assert code == CANNOT_RESUME
        await caller.send("input_audio_buffer.clear")
        await caller.until("input_audio_buffer.cleared")
        caller.lose()
        await caller.return_()


async def test_a_session_that_the_client_closed_has_ended() -> None:
    """A close frame is a goodbye: its place is free at once."""
    async with running(fake_engine(), settings(server={"max_sessions": 1})) as server:
        async with calling(server) as caller:
            pass
        await served_well(server)
        code, _ = await refused(server, resume=caller.token, received=caller.received)
        assert code == CANNOT_RESUME


async def test_a_session_that_waits_counts() -> None:
    """Its place is not given to another client meanwhile."""
    chosen = settings(server={"max_sessions": 1})
    async with running(fake_engine(), chosen) as server, calling(server) as caller:
        caller.lose()
        await waits(server)
        socket = await dial(server, "?avatar=bob")
        with pytest.raises(ConnectionClosed) as full:
            await socket.recv()
        assert full.value.rcvd is not None and full.value.rcvd.code == 1013
        await caller.return_()


async def test_a_session_waits_as_long_as_it_is_set_to() -> None:
    """Then its renderer is free, its dialogue closed, and its place as well."""
    made, face = Dialogues(), FakeRenderer(held=True)
    chosen = settings(server={"max_sessions": 1, "resume_s": 0.1})
    async with running(fake_engine(face, create_dialogue=made.create), chosen) as server:
        async with calling(server) as caller:
            await caller.send("avatar.speak", text="440 60")
            await caller.until("response.output_audio.delta")
            caller.lose()
            await until(lambda: made.made[0][1].closed and not len(server._sessions))
            assert face.streams[0].closed
            code, _ = await refused(server, resume=caller.token, received=caller.received)
            assert code == CANNOT_RESUME
        face.held = False
        await served_well(server)


async def test_where_too_much_was_missed_the_session_ends(monkeypatch: Any) -> None:
    """The client is told so and begins anew: its old place is free."""
    monkeypatch.setattr(replay, "MESSAGE_BYTES", 20_000)
    chosen = settings(server={"max_sessions": 1})
    async with running(fake_engine(), chosen) as server, calling(server) as caller:
        await caller.send("avatar.speak", text="440 4")
        await caller.until("response.created")
        before = caller.received
        await caller.until("response.done")
        caller.lose()
        await waits(server)
        code, reason = await refused(server, resume=caller.token, received=before)
        assert code == CANNOT_RESUME and "too much was missed" in reason
        await served_well(server)


async def test_without_waiting_a_lost_session_ends_at_once() -> None:
    """``resume_s: 0``: no secret is given, as in a server that knows nothing of this."""
    chosen = settings(server={"resume_s": 0, "max_sessions": 1})
    async with running(fake_engine(), chosen) as server:
        async with client(server, "?avatar=ada") as me:
            await me.send("input_audio_buffer.clear")
            await me.until("input_audio_buffer.cleared")
            assert "avatar.resumable" not in me.kinds()
            me.socket.transport.abort()
        await until(lambda: not len(server._sessions))
        await served_well(server)


# -- who may --------------------------------------------------------------------------------------


async def test_a_secret_replaces_neither_the_token_nor_the_origin() -> None:
    """The checks of every connection hold for this one too."""
    chosen = settings(server={"auth_tokens": ["k"]})
    headers = {"additional_headers": {"Authorization": "Bearer k"}}
    async with running(fake_engine(), chosen) as server, calling(server, **headers) as caller:
        caller.lose()
        query = {"resume": caller.token, "received": caller.received}
        with pytest.raises(InvalidStatus) as status:
            await dial(server, **query)
        assert status.value.response.status_code == 401
        await caller.return_(**headers)
    async with running(fake_engine()) as server, calling(server) as caller:
        caller.lose()
        query = {"resume": caller.token, "received": caller.received}
        with pytest.raises(InvalidStatus) as status:
            await dial(server, **query, origin="https://evil.example")
        assert status.value.response.status_code == 403
        await caller.return_()


async def test_a_server_that_stops_does_not_wait_for_lost_clients() -> None:
    """Sessions without a connection end with the server, at once."""
    made = Dialogues()
    loop = asyncio.get_running_loop()
    chosen = settings(server={"shutdown_grace_s": 30})  # a slow machine needs some time of it
    async with running(fake_engine(create_dialogue=made.create), chosen) as server:
        async with calling(server) as caller:
            caller.lose()
            await waits(server)
        began_s = loop.time()
    assert made.made[0][1].closed
    assert loop.time() - began_s < chosen.server.shutdown_grace_s


async def test_secrets_and_paths_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Who reads the log at its default level cannot take over a conversation."""
    caplog.set_level("INFO")
    async with running(fake_engine()) as server, calling(server) as caller:
        caller.lose()
        await waits(server)
        await caller.return_()
        assert any("resumed" in record.getMessage() for record in caplog.records)
        assert not any(caller.token in record.getMessage() for record in caplog.records)
