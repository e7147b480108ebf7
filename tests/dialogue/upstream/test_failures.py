"""The upstream is not there, refuses the key, is slow, talks nonsense, or goes away."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.dialogue.upstream.scripted import KEY, Scripted, Talk, in_front_of, noise, scripted
from tests.helpers import Client, client, fake_engine, running, settings
from wsavatar.config import Settings
from wsavatar.dialogue.base import DialogueConfig, DialogueSession
from wsavatar.dialogue.engines import Engines
from wsavatar.dialogue.upstream import line
from wsavatar.dialogue.upstream.dialogue import Upstream


@contextlib.asynccontextmanager
async def visit(
    status: HTTPStatus | None = None, **chosen: Any
) -> AsyncIterator[tuple[Client, Scripted]]:
    """A client in mode upstream whose server does not wait before it connects again."""
    async with scripted() as upstream:
        upstream.status = status
        given = {"url": upstream.url, "api_key": KEY, "timeout_s": 30.0, **chosen}
        sections: dict[str, Any] = {
            "upstream": given,
            "tts": {"engines": ("espeak",)},
            "dialogue": {"mode": "upstream"},
        }
        engines = Engines(Settings(**sections))

        def create(mode: str, session: DialogueSession, config: DialogueConfig) -> Upstream:
            return Upstream(session, config, engines, delay=lambda attempt: 0.01)

        async with (
            running(fake_engine(create_dialogue=create), settings(**sections)) as server,
            client(server) as visitor,
        ):
            yield visitor, upstream


async def ask(client: Client, talk: Talk, number: int = 1) -> None:
    await client.send("response.create")
    await talk.until("response.create", number)


async def is_answered(client: Client, talk: Talk, response_id: str) -> None:
    """The mode works: a request is answered with sound."""
    await ask(client, talk, len(talk.of("response.create")) + 1)
    await talk.speak(response_id, f"item_{response_id}", "Here I am.", noise(0.1))
    done = (await client.until("response.done"))["response"]
    assert (done["id"], done["status"]) == (response_id, "completed")


async def fails(client: Client) -> dict[str, Any]:
    """The next response's error."""
    done = (await client.until("response.done"))["response"]
    assert done["status"] == "failed"
    error: dict[str, Any] = done["status_details"]["error"]
    return error


# -- it is not there -----------------------------------------------------------------------------


async def test_a_wrong_key(caplog: pytest.LogCaptureFixture) -> None:
    """The client is told what to check, by an error and by each answer; the key is nowhere."""
    caplog.set_level(logging.INFO)
    async with visit(status=HTTPStatus.UNAUTHORIZED) as (visitor, upstream):
        error = await visitor.error()
        assert error["code"] == "upstream_unauthorized" and error["type"] == "server_error"
        assert "401" in error["message"] and "upstream.api_key" in error["message"]
        assert upstream.asked == 1  # and not again before an answer is wanted
        await visitor.send("response.create")
        assert (await fails(visitor))["code"] == "upstream_unauthorized"
        await upstream.has_been_asked(2)
        assert KEY not in json.dumps(visitor.events())
    assert KEY not in caplog.text


async def test_a_mode_that_cannot_be_had_is_refused() -> None:
    """session.update fails in words, and the mode before it stays."""
    async with scripted() as upstream:
        upstream.status = HTTPStatus.NOT_FOUND
        chosen: dict[str, Any] = {"dialogue": {"mode": "parrot"}}
        async with in_front_of(upstream.url, **chosen) as server, client(server) as visitor:
            session = {"avatar": {"mode": "upstream"}}
            await visitor.send("session.update", session=session, event_id="mine")
            error = await visitor.error()
            assert (error["code"], error["event_id"]) == ("upstream_unreachable", "mine")
            assert "404" in error["message"] and "upstream.model" in error["message"]
            await visitor.send("session.update", session={"instructions": "Hi."})
            shown = (await visitor.until("session.updated"))["session"]
            assert shown["avatar"]["mode"] == "parrot"


async def test_nobody_listens_there() -> None:
    """No network: the session begins, the client is told once, and another mode works."""
    async with in_front_of("ws://127.0.0.1:9/v1/realtime") as server, client(server) as visitor:
        error = await visitor.error()
        assert error["code"] == "upstream_unreachable" and "127.0.0.1:9" in error["message"]
        await visitor.send("response.create")
        assert (await fails(visitor))["code"] == "upstream_unreachable"
        await visitor.send("session.update", session={"avatar": {"mode": "parrot"}})
        await visitor.until("session.updated")
        assert len(visitor.events("error")) == 1


async def test_no_upstream_is_configured() -> None:
    """The error says which setting is missing."""
    async with in_front_of("") as server, client(server) as visitor:
        error = await visitor.error()
        assert error["code"] == "upstream_missing" and "upstream.url" in error["message"]
        await visitor.send("response.create")
        assert (await fails(visitor))["code"] == "upstream_missing"


@pytest.mark.parametrize("what", ["connects", "answers"])
async def test_an_upstream_that_does_not_begin(what: str) -> None:
    """It takes no connection, or no configuration: after `upstream.timeout_s` that is said."""
    async with scripted() as upstream:
        setattr(upstream, what, False)
        chosen = {"timeout_s": 0.2}
        async with in_front_of(upstream.url, upstream=chosen) as server, client(server) as visitor:
            assert (await visitor.error())["code"] == "upstream_timeout"


async def test_the_upstreams_last_words_are_the_reason() -> None:
    """It takes the connection, says what is wrong and hangs up, as OpenAI does for a model."""
    async with scripted() as upstream:
        upstream.last_words = {
            "type": "invalid_request_error",
            "code": "model_not_found",
            "message": f"There is no such model for {KEY}.",
        }
        async with in_front_of(upstream.url) as server, client(server) as visitor:
            error = await visitor.error()
            assert error["message"] == "There is no such model for …."


async def test_it_is_there_again_later() -> None:
    """While it is away answers fail in words; then the mode works, without the client's help."""
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        await is_answered(visitor, talk, "resp_1")
        upstream.status = HTTPStatus.SERVICE_UNAVAILABLE
        await talk.socket.close()
        error = await visitor.error()
        assert error["code"] == "upstream_unreachable" and "503" in error["message"]
        await visitor.send("response.create")
        assert (await fails(visitor))["code"] == "upstream_unreachable"
        upstream.status = None
        await is_answered(visitor, await upstream.talk(2), "resp_2")
        assert len(visitor.events("error")) == 1


# -- it goes away ---------------------------------------------------------------------------------


async def test_a_connection_that_ends_in_the_middle_of_an_answer() -> None:
    """What was said is heard, the response fails in words, and the next one has the conversation:
    the texts of both sides, in order, with their ids."""
    pcm = noise(0.5)
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        content = [{"type": "input_text", "text": "Tell me a story."}]
        asked = {"id": "item_asked", "type": "message", "role": "user", "content": content}
        await visitor.send("conversation.item.create", item=asked)
        await ask(visitor, talk)
        await talk.create("resp_1")
        await talk.add_message("resp_1", "item_1")
        await talk.delta("output_audio_transcript", "resp_1", "item_1", "Once upon a time.")
        await talk.sound("resp_1", "item_1", pcm)
        await visitor.until("response.output_audio.delta")
        talk.socket.transport.abort()
        error = await fails(visitor)
        assert error["code"] == "upstream_lost" and "127.0.0.1" in error["message"]
        assert visitor.audio() == pcm
        again = await upstream.talk(2)
        await is_answered(visitor, again, "resp_2")
        made = {one["item"]["id"]: one for one in again.of("conversation.item.create")}
        assert list(made) == ["item_asked", "item_1"]
        assert made["item_asked"]["item"] == asked
        assert made["item_1"]["item"]["role"] == "assistant"
        # As much of it as half a second can say.
        assert made["item_1"]["item"]["content"][0]["text"] == "Once"
        await visitor.send(
            "conversation.item.truncate", item_id="item_1", content_index=0, audio_end_ms=0
        )
        assert (await again.until("conversation.item.delete"))["item_id"] == "item_1"


async def test_a_connection_that_ends_in_the_middle_of_a_turn() -> None:
    """What the user has said of it is said again to the next one, which finds the turn anew."""
    pcm = noise(2.0)
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        await visitor.socket.send(pcm)
        await talk.heard(len(pcm))
        await talk.speech_started("item_turn", 1500)
        await visitor.until("input_audio_buffer.speech_started")
        talk.socket.transport.abort()
        again = await upstream.talk(2)
        assert await again.heard(24_000) == pcm[-24_000:]  # from 1500 ms on
        await again.speech("item_again", 100, 500)
        committed = await visitor.until("input_audio_buffer.committed")
        assert committed["item_id"] == "item_again"
        stopped = visitor.events("input_audio_buffer.speech_stopped")[0]
        assert stopped["audio_end_ms"] == 2000  # as the client counts


async def test_a_connection_that_ends_before_a_commit_is_confirmed() -> None:
    """The client's item is there all the same, and the next connection gets its recording."""
    pcm = noise(0.5)
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        audio = {"input": {"turn_detection": None}}
        await visitor.send("session.update", session={"audio": audio})
        await visitor.socket.send(pcm)
        await visitor.send("input_audio_buffer.commit")
        await talk.until("input_audio_buffer.commit")
        talk.socket.transport.abort()
        committed = await visitor.until("input_audio_buffer.committed")
        again = await upstream.talk(2)
        item = (await again.until("conversation.item.create"))["item"]
        assert item["id"] == committed["item_id"]
        assert base64.b64decode(item["content"][0]["audio"]) == pcm
        assert not again.audio  # it is an item, not a part of the next turn


async def test_a_session_that_has_lasted_its_time() -> None:
    """OpenAI ends a session after an hour: the client notices nothing."""
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        error = {"type": "invalid_request_error", "code": "session_expired", "message": "60 min."}
        await talk.say("error", error=error)
        await talk.socket.close(1001)
        await is_answered(visitor, await upstream.talk(2), "resp_2")
        assert not visitor.events("error")


async def test_what_cannot_be_said_again_is_said_to_be_lost() -> None:
    """Of speech that nobody transcribed a new connection gets the newest two minutes."""
    async with visit() as (visitor, upstream):
        await upstream.talk()
        for number in range(5):
            audio = base64.b64encode(noise(50.0)).decode()
            part = {"type": "input_audio", "audio": audio}
            item = {"id": f"said_{number}", "type": "message", "role": "user", "content": [part]}
            await visitor.send("conversation.item.create", item=item)
        await (await upstream.talk()).until("conversation.item.create", 5)
        upstream.talks[0].socket.transport.abort()
        error = await visitor.error()
        assert error["code"] == "upstream_forgot" and "3 items" in error["message"]
        again = await upstream.talk(2)
        await again.until("conversation.item.create", 2)
        made = [one["item"]["id"] for one in again.of("conversation.item.create")]
        assert made == ["said_3", "said_4"]


# -- it is slow, or mad ---------------------------------------------------------------------------


async def test_an_answer_that_does_not_begin() -> None:
    """After `upstream.timeout_s` the response fails in words. A late answer is said after all."""
    async with visit(timeout_s=1.0) as (visitor, upstream):
        talk = await upstream.talk()
        await ask(visitor, talk)
        assert (await fails(visitor))["code"] == "upstream_timeout"
        await talk.speak("resp_late", "item_late", "Sorry.", noise(0.1))
        done = (await visitor.until("response.done"))["response"]
        assert (done["id"], done["status"]) == ("resp_late", "completed")


async def test_a_configuration_that_is_not_answered() -> None:
    """It is refused in words after `upstream.timeout_s`."""
    async with visit(timeout_s=1.0) as (visitor, upstream):
        talk = await upstream.talk()
        talk.answers = False
        await visitor.send("session.update", session={"instructions": "Hi."})
        assert (await visitor.error())["code"] == "upstream_timeout"
        talk.answers = True
        await is_answered(visitor, talk, "resp_1")


NONSENSE: list[str | bytes] = [
    "not JSON",
    b"\x00\x01",
    "[]",
    "null",
    '{"type": 3}',
    "[" * 100_000,
    '{"type": "error"}',
    '{"type": "error", "error": {"message": 3, "code": {}, "event_id": []}}',
    '{"type": "error", "error": "what"}',
    '{"type": "response.created"}',
    '{"type": "response.created", "response": {"id": ""}}',
    '{"type": "response.done", "response": []}',
    '{"type": "response.output_audio.delta", "response_id": "x", "item_id": "y", "delta": 1}',
    '{"type": "response.output_item.added", "response_id": "x", "item": {"id": 1}}',
    '{"type": "input_audio_buffer.speech_started", "audio_start_ms": -1, "item_id": "x"}',
    '{"type": "input_audio_buffer.speech_started", "audio_start_ms": NaN, "item_id": "x"}',
    '{"type": "input_audio_buffer.speech_stopped", "audio_end_ms": "soon", "item_id": "x"}',
    '{"type": "input_audio_buffer.committed", "item_id": null}',
    '{"type": "conversation.item.input_audio_transcription.completed", "item_id": "x"}',
    '{"type": "conversation.item.input_audio_transcription.delta", "item_id": 1, "delta": "x"}',
]


async def test_nonsense_is_left_out() -> None:
    """Whatever the upstream sends, the session lives, and what makes sense is answered."""
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        for message in NONSENSE:
            await talk.socket.send(message)
        await is_answered(visitor, talk, "resp_1")
        assert len(upstream.talks) == 1


async def test_nonsense_in_an_answer() -> None:
    """Sound that is no sound and items that nobody knows: the rest of the answer is said."""
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        await ask(visitor, talk)
        await talk.create("resp_1")
        await talk.add_message("resp_1", "item_1")
        await talk.delta("output_audio", "resp_1", "item_1", "%%%")
        await talk.sound("resp_1", "item_1", b"\x01")  # half a sample
        await talk.say(
            "response.function_call_arguments.delta",
            response_id="resp_1",
            item_id="never",
            output_index=3,
            call_id="call",
            delta="{",
        )
        await talk.sound("resp_9", "item_9", noise(0.1))  # a response that never began
        await talk.sound("resp_1", "item_1", noise(0.2))
        await talk.done("resp_1", "completed")
        await visitor.until("response.done")
        assert visitor.audio() == noise(0.2)


async def test_an_item_that_is_there_already_gets_another_id() -> None:
    """Also where an upstream uses one id twice."""
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        await is_answered(visitor, talk, "resp_1")
        await ask(visitor, talk, 2)
        await talk.speak("resp_2", "item_resp_1", "Once more.", noise(0.1))
        done = (await visitor.until("response.done"))["response"]
        assert done["status"] == "completed" and done["output"][0]["id"] != "item_resp_1"


async def test_a_message_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the connection, never the session, and the reason is said."""
    monkeypatch.setattr(line, "MAX_MESSAGE_BYTES", 1 << 20)
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        await ask(visitor, talk)
        await talk.create("resp_1")
        await talk.socket.send(json.dumps({"type": "error", "x": "x" * (2 << 20)}))
        error = await fails(visitor)
        assert error["code"] == "upstream_lost" and "1 MiB" in error["message"]
        await is_answered(visitor, await upstream.talk(2), "resp_2")


async def test_an_upstream_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it is bounded: then the connection is given up, and made again."""
    monkeypatch.setattr(line, "MAX_WAITING_BYTES", 1 << 20)
    monkeypatch.setattr(line, "_ROOM_BYTES", 1 << 30)
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        await ask(visitor, talk)
        talk.socket.transport.pause_reading()
        audio = base64.b64encode(noise(20.0)).decode()
        for _ in range(10):
            await visitor.send("input_audio_buffer.append", audio=audio)
        error = await fails(visitor)
        assert error["code"] == "upstream_lost" and "does not take" in error["message"]
        monkeypatch.setattr(line, "MAX_WAITING_BYTES", 1 << 30)
        await is_answered(visitor, await upstream.talk(2), "resp_2")


# -- nothing of it is in the log ------------------------------------------------------------------


async def test_logs_have_no_key_and_no_words(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the key, nor instructions, nor what either side said, also when things go wrong."""
    caplog.set_level(logging.INFO)
    async with visit() as (visitor, upstream):
        talk = await upstream.talk()
        await visitor.send("session.update", session={"instructions": "SECRET-PROMPT"})
        await visitor.until("session.updated")
        content = [{"type": "input_text", "text": "SECRET-WORDS"}]
        item = {"type": "message", "role": "user", "content": content}
        await visitor.send("conversation.item.create", item=item)
        made = await talk.until("conversation.item.create")
        await talk.refuse(made, "invalid_value", f"SECRET-WORDS of {KEY}")
        assert KEY not in (await visitor.error())["message"]
        await talk.socket.send('{"type": "response.created", "response": "SECRET-WORDS"}')
        await ask(visitor, talk)
        await talk.create("resp_1")
        await talk.add_message("resp_1", "item_1")
        await talk.delta("output_audio_transcript", "resp_1", "item_1", "SECRET-WORDS")
        await talk.sound("resp_1", "item_1", noise(0.1))
        await visitor.until("response.output_audio.delta")
        await talk.socket.close(1011, f"SECRET-WORDS {KEY}")
        error = await fails(visitor)
        assert KEY not in error["message"]
        await upstream.talk(2)
    assert "connected" in caplog.text
    assert KEY not in caplog.text and "SECRET" not in caplog.text


async def test_the_key_and_who_we_are_are_sent() -> None:
    """As a bearer token; the model stands in the address."""
    async with visit(model="gpt-next", headers={"X-Tenant": "seven"}) as (_, upstream):
        talk = await upstream.talk()
        assert talk.headers["Authorization"] == f"Bearer {KEY}"
        assert talk.headers["X-Tenant"] == "seven"
        assert talk.headers["User-Agent"].startswith("wsavatar/")
        assert talk.query == {"model": ["gpt-next"]}


async def test_other_sessions_notice_nothing() -> None:
    """One session's upstream hangs; a parrot in the same server answers meanwhile."""
    async with scripted() as upstream:
        upstream.connects = False
        async with in_front_of(upstream.url, dialogue={"mode": "parrot"}) as server:
            async with client(server) as hangs, client(server) as visitor:
                await hangs.send("session.update", session={"avatar": {"mode": "upstream"}})
                await upstream.has_been_asked(1)
                await visitor.send("avatar.speak", text="Hello.")
                done = (await visitor.until("response.done"))["response"]
                assert done["status"] == "completed"


async def test_the_upstream_is_told_when_the_client_leaves() -> None:
    """Its connection ends with the client's."""
    async with scripted() as upstream, in_front_of(upstream.url) as server:
        async with connect(f"ws://127.0.0.1:{server.port}/v1/realtime"):
            talk = await upstream.talk()
        async with asyncio.timeout(30):
            await talk.socket.wait_closed()
