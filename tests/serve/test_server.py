"""The server over a real socket: bad input gets an answer and does not affect other clients."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gc
import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.fake_avatars import FakeAvatars
from tests.fake_dialogue import FakeSpeech
from tests.fake_renderer import FakeRenderer, label_of
from tests.helpers import client, fake_engine, get, running, served_well, settings
from wsavatar.bench.server_process import free_port
from wsavatar.serve.server import AvatarServer, ListenError, LoadError


@pytest.fixture
async def server() -> AsyncIterator[AvatarServer]:
    async with running(fake_engine()) as started:
        yield started


async def closed(socket: Any) -> tuple[int | None, str]:
    """Read until the server closes; its code and reason."""
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(30):
            while True:
                await socket.recv()
    return socket.close_code, socket.close_reason or ""


# -- bad events -----------------------------------------------------------------------------------

PCM = base64.b64encode(bytes(480)).decode()
BAD_EVENTS: dict[str, tuple[str | bytes, str, str | None]] = {
    "not JSON": ("{nope", "invalid_json", None),
    "not an object": ("[1, 2]", "invalid_event", None),
    "no type": ("{}", "missing_required_parameter", "type"),
    "unknown event": ('{"type": "avatar.dance"}', "unknown_event", "type"),
    "wrong type": ('{"type": "avatar.speak", "text": 7}', "invalid_type", "text"),
    "missing field": ('{"type": "avatar.speak"}', "missing_required_parameter", "text"),
    "bad base64": (
        '{"type": "input_audio_buffer.append", "audio": "%%"}',
        "invalid_base64",
        "audio",
    ),
    "odd byte count": (
        '{"type": "input_audio_buffer.append", "audio": "AAAA"}',
        "odd_byte_count",
        "audio",
    ),
    "empty commit": (
        '{"type": "input_audio_buffer.commit"}',
        "input_audio_buffer_commit_empty",
        None,
    ),
    "unknown avatar": (
        '{"type": "session.update", "session": {"avatar": {"id": "nobody"}}}',
        "avatar_not_found",
        "session.avatar.id",
    ),
    "avatar id that is a path": (
        '{"type": "session.update", "session": {"avatar": {"id": "../../etc"}}}',
        "invalid_value",
        "session.avatar.id",
    ),
    "unknown mode": (
        '{"type": "session.update", "session": {"avatar": {"mode": "sing"}}}',
        "invalid_value",
        "session.avatar.mode",
    ),
    "mode that is not available": (
        '{"type": "session.update", "session": {"avatar": {"mode": "upstream"}}}',
        "unsupported_mode",
        "session.avatar.mode",
    ),
    "unknown item": (
        '{"type": "conversation.item.retrieve", "item_id": "item_x"}',
        "item_retrieve_invalid_item_id",
        "item_id",
    ),
    "nothing to cancel": ('{"type": "response.cancel"}', "response_cancel_not_active", None),
    "deep JSON": ('{"type": ' + "[" * 10_000 + "]" * 10_000 + "}", "too_deep", None),
}


@pytest.mark.parametrize("name", BAD_EVENTS)
async def test_a_bad_event_is_an_error_and_the_session_goes_on(
    server: AvatarServer, name: str
) -> None:
    """Each mistake gets a code and the wrong field; the same session then speaks."""
    message, code, param = BAD_EVENTS[name]
    async with client(server) as bad:
        await bad.socket.send(message)
        error = await bad.error()
        assert (error["code"], error["param"]) == (code, param)
        assert error["type"] == "invalid_request_error"
        assert error["message"]
        await bad.send("avatar.speak", text="440 1")
        assert (await bad.until("response.done"))["response"]["status"] == "completed"
        assert len(bad.frames()) == 25


async def test_an_error_carries_the_clients_event_id(server: AvatarServer) -> None:
    """An error names the client event that caused it, also if the session found the fault."""
    async with client(server) as bad:
        await bad.send("response.cancel", event_id="mine-1")
        assert (await bad.error())["event_id"] == "mine-1"
        await bad.send("avatar.speak", event_id="mine-2", text=3)
        assert (await bad.error())["event_id"] == "mine-2"


async def test_a_bad_update_changes_nothing(server: AvatarServer) -> None:
    """An update with one wrong field changes nothing of the session."""
    async with client(server) as bad:
        video = {"encoding": "binary", "fps": 30}
        wrong = {"avatar": {"id": "nobody", "video": video}}
        await bad.send("session.update", session=wrong)
        await bad.error()
        await bad.send("session.update", session={})
        session = (await bad.until("session.updated"))["session"]
        assert session["avatar"]["id"] == "ada"
        assert session["avatar"]["video"]["encoding"] == "json"
        assert session["avatar"]["video"]["fps"] == 25


async def test_a_message_too_big_closes_only_its_connection(server: AvatarServer) -> None:
    """A message of 100 MB is refused by its length, with 1009; other clients are not affected."""
    async with client(server) as good:
        reader, writer = await raw_websocket(server)
        await reader.readuntil(b"session.created")
        size = 100 * 1024 * 1024
        writer.write(b"\x82\xff" + size.to_bytes(8, "big") + b"\1\2\3\4" + bytes(4096))
        async with asyncio.timeout(30):
            rest = await reader.read()
        writer.close()
        assert (1009).to_bytes(2, "big") in rest[-130:]
        await good.send("avatar.speak", text="440 1")
        await good.until("response.done")
        await served_well(server)


async def raw_websocket(
    server: AvatarServer,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A WebSocket without a client library: it reads and answers only what the test does."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(
        b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n"
    )
    return reader, writer


async def test_a_crash_ends_its_own_session_only(
    server: AvatarServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A dialogue that raises closes its socket with 1011 and leaves a traceback in the log."""
    async with client(server) as good:
        async with client(server) as bad:
            await bad.send("avatar.speak", text="crash")
            assert (await closed(bad.socket))[0] == 1011
        assert "this dialogue crashes" in caplog.text
        await good.send("avatar.speak", text="440 1")
        await good.until("response.done")


async def test_noise_on_the_port_does_not_affect_clients(server: AvatarServer) -> None:
    """The server goes on after bytes that are not HTTP and a request that never ends."""
    for rubbish in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/9.9\r\n\r\n", b"GET /", b"\r\n" * 50):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(rubbish)
        await writer.drain()
        writer.close()
    await served_well(server)


# -- admission ------------------------------------------------------------------------------------


async def refusal(server: AvatarServer, query: str = "", **options: Any) -> tuple[int | None, str]:
    url = f"ws://127.0.0.1:{server.port}/v1/realtime{query}"
    async with connect(url, **options) as socket:
        return await closed(socket)


async def test_the_avatar_of_the_query_is_used(server: AvatarServer) -> None:
    """``?avatar=`` chooses the avatar; ``model`` is accepted and ignored."""
    async with client(server, "?model=gpt-realtime&avatar=bob") as chosen:
        assert chosen.log[0]["session"]["avatar"]["id"] == "bob"  # type: ignore[index]
        await chosen.send("avatar.speak", text="440 1")
        await chosen.until("response.done")
        assert label_of(chosen.frames()[0][3])["avatar"] == "bob"


async def test_an_unknown_avatar_in_the_query_is_an_error(server: AvatarServer) -> None:
    """The error names the known avatars, and the connection is closed with 1008."""
    url = f"ws://127.0.0.1:{server.port}/v1/realtime?avatar=nobody"
    async with connect(url) as socket:
        error = json.loads(await socket.recv())["error"]
        assert error["code"] == "avatar_not_found"
        assert "known: ada, bob" in error["message"]
        assert (await closed(socket))[0] == 1008
    await served_well(server)


async def test_sessions_over_the_limit_are_closed_with_1013() -> None:
    """Above max_sessions a connection is closed with 1013; a closed session frees its place."""
    async with running(fake_engine(), settings(server={"max_sessions": 1})) as server:
        async with client(server):
            code, reason = await refusal(server)
            assert code == 1013
            assert "try again later" in reason
        await served_well(server)


async def test_what_was_loaded_is_left_out_of_garbage_collections() -> None:
    """To look at it all would stop every session for 0.3 s; a stopped server gives it back."""
    before = gc.get_freeze_count()
    async with running(fake_engine(), settings()) as server:
        await served_well(server)
        assert gc.get_freeze_count() > before + 10_000
    assert gc.get_freeze_count() == 0


async def test_until_the_model_is_loaded_clients_get_1013() -> None:
    """The page and healthz answer at once; readyz and the WebSocket report the loading."""
    loop = asyncio.get_running_loop()
    go: asyncio.Future[None] = loop.create_future()

    def load(_: object, progress: Callable[[str], None]) -> Any:
        progress("loading the model on cpu")
        asyncio.run_coroutine_threadsafe(asyncio.wait_for(go, 30), loop).result()
        return fake_engine()

    async with AvatarServer(settings(), load) as server:
        assert (await get(server, "/healthz")).status == 200
        assert (await get(server, "/readyz")).status == 503
        code, reason = await refusal(server)
        assert code == 1013
        assert reason.startswith("not ready yet")
        go.set_result(None)
        await server.ready()
        assert (await get(server, "/readyz")).status == 200
        await served_well(server)


async def test_without_a_working_device_clients_get_1013() -> None:
    """readyz names one failed device of two; with both failed it is 503, and clients get 1013."""
    engine = fake_engine()
    async with AvatarServer(settings(), lambda *_: engine) as server:
        await server.ready()
        engine.renderer.problems["fake:1"] = "the device has ended no batch for 60 s"
        answer = await get(server, "/readyz")
        assert answer.status == 200 and '"fake:1":' in answer.text
        await served_well(server)
        engine.renderer.problems["fake:0"] = "its process is not ready"
        answer = await get(server, "/readyz")
        assert answer.status == 503 and "its process is not ready" in answer.text
        assert await refusal(server) == (1013, "no device renders frames now; try again later")


async def test_a_model_that_cannot_be_loaded_is_reported() -> None:
    """``ready`` raises LoadError with the loader's message, and readyz shows it."""

    def load(*_: object) -> Any:
        raise ValueError("unet.safetensors is missing: run weights --download")

    async with AvatarServer(settings(), load) as server:
        with pytest.raises(LoadError, match="weights --download"):
            await server.ready()
        answer = await get(server, "/readyz")
        assert answer.status == 503
        assert "weights --download" in answer.text


@pytest.mark.parametrize("is_stopped", [False, True])
async def test_a_start_that_does_not_succeed_leaves_nothing_running(is_stopped: bool) -> None:
    """The speech engines fail, or the server is stopped while they are loaded."""
    begun = asyncio.Event()

    class Speech(FakeSpeech):
        async def start(self) -> None:
            assert renderer.is_open
            begun.set()
            if is_stopped:
                await asyncio.Event().wait()
            raise ValueError("the voice is broken")

    renderer = FakeRenderer()
    engine = fake_engine(renderer, speech=Speech())
    async with AvatarServer(settings(), lambda *_: engine) as server:
        await begun.wait()
        if not is_stopped:
            with pytest.raises(LoadError, match="the voice is broken"):
                await server.ready()
    assert not renderer.is_open


async def test_a_port_in_use_says_what_to_do() -> None:
    """The error names the port and the option for another."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ListenError, match=rf"port {port} .* in use.*--port"):
            async with running(fake_engine(), settings(server={"port": port})):
                pass


async def test_tokens_protect_the_endpoint() -> None:
    """If tokens are set, a bearer header or the browser's subprotocol must have one."""
    async with running(fake_engine(), settings(server={"auth_tokens": ("s3cret",)})) as server:
        url = f"ws://127.0.0.1:{server.port}/v1/realtime"
        wrong: list[dict[str, Any]] = [
            {},
            {"additional_headers": {"Authorization": "Bearer nope"}},
            {"subprotocols": ["realtime", "openai-insecure-api-key.nope"]},
        ]
        for options in wrong:
            with pytest.raises(InvalidStatus) as caught:
                await connect(url, **options)
            assert caught.value.response.status_code == 401
        async with client(server, additional_headers={"Authorization": "Bearer s3cret"}):
            pass
        protocols = ["realtime", "openai-insecure-api-key.s3cret"]
        async with client(server, subprotocols=protocols) as good:
            assert good.socket.subprotocol == "realtime"


async def test_another_sites_page_may_not_connect(server: AvatarServer) -> None:
    """Without tokens, of web pages only the server's own may connect."""
    url = f"ws://127.0.0.1:{server.port}/v1/realtime"
    with pytest.raises(InvalidStatus) as caught:
        await connect(url, origin="https://evil.example")
    assert caught.value.response.status_code == 403
    async with client(server, origin=f"http://127.0.0.1:{server.port}"):
        pass


async def test_an_idle_session_is_closed() -> None:
    """A session that received nothing for the idle timeout and is silent is closed."""
    async with running(fake_engine(), settings(server={"idle_timeout_s": 0.05})) as server:
        code, reason = await refusal(server)
        assert code == 1000
        assert reason.startswith("idle")


async def test_shutdown_closes_every_socket() -> None:
    """Stopping closes every socket with 1001 and the renderer, and accepts no new sockets."""
    face = FakeRenderer()
    port = free_port()  # nobody else is given it once the server has ended
    chosen = settings(server={"port": port})
    async with AvatarServer(chosen, lambda *_: fake_engine(face)) as server:
        await server.ready()
        assert face.is_open
        staying = await connect(f"ws://127.0.0.1:{port}/v1/realtime")
        await staying.recv()
    assert (await closed(staying))[0] == 1001
    assert not face.is_open
    with pytest.raises(OSError):
        await connect(f"ws://127.0.0.1:{port}/v1/realtime")


async def test_shutdown_stops_what_is_looked_for_in_avatars() -> None:
    """A search for a person takes up to a minute, and a process that ends waits for its threads."""
    avatars = FakeAvatars("ada")
    async with running(fake_engine(avatars=avatars)):
        assert not avatars.is_closed
    assert avatars.is_closed


async def test_shutdown_does_not_wait_for_a_client_that_does_not_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The connection of a client that does not close is aborted after the grace time."""
    chosen = settings(server={"shutdown_grace_s": 0.1})
    async with AvatarServer(chosen, lambda *_: fake_engine()) as server:
        await server.ready()
        reader, writer = await raw_websocket(server)
        await reader.readuntil(b"session.created")
    assert "not ended in 0.1 s: 1 connections" in caplog.text
    writer.close()
