"""Configuration and conversation are the same here and upstream."""

from __future__ import annotations

import base64
from typing import Any

from tests.dialogue.upstream.scripted import KEY, noise, scripted, visiting
from tests.helpers import client, fake_engine, real_dialogues, running, settings

TOOL = {"type": "function", "name": "look", "parameters": {"type": "object", "properties": {}}}


def message(item_id: str, text: str, role: str = "user") -> dict[str, Any]:
    kind = "output_text" if role == "assistant" else "input_text"
    return {
        "id": item_id,
        "type": "message",
        "role": role,
        "content": [{"type": kind, "text": text}],
    }


async def test_the_configuration_reaches_the_upstream() -> None:
    """What a client sets, also what this server itself has no use for."""
    async with visiting() as (client, talk):
        session = {
            "instructions": "Be kind.",
            "tools": [TOOL],
            "tool_choice": "required",
            "max_output_tokens": 200,
            "output_modalities": ["text"],
            "truncation": "disabled",
            "audio": {
                "input": {
                    "turn_detection": {"type": "semantic_vad", "eagerness": "high"},
                    "noise_reduction": {"type": "near_field"},
                },
                "output": {"voice": "marin", "speed": 1.2},
            },
        }
        await client.send("session.update", session=session)
        got = (await talk.until("session.update", 2))["session"]
        assert got == {
            "type": "realtime",
            **session,
            "audio": {
                "input": {
                    "turn_detection": {
                        "type": "semantic_vad",
                        "eagerness": "high",
                        "create_response": True,
                        "interrupt_response": True,
                    },
                    "noise_reduction": {"type": "near_field"},
                },
                "output": {"voice": "marin", "speed": 1.2},
            },
        }
        shown = (await client.until("session.updated"))["session"]
        assert shown["audio"]["output"]["voice"] == "marin"


async def test_only_what_changes_is_sent() -> None:
    """An upstream refuses a voice once it has spoken, even the same: it is not sent again."""
    async with visiting(upstream={"voice": "cedar", "instructions": "Be brief."}) as (client, talk):
        first = talk.of("session.update")[0]["session"]
        assert first["audio"]["output"]["voice"] == "cedar"
        assert first["instructions"] == "Be brief."
        await client.send("session.update", session={"instructions": "Be kind."})
        got = (await talk.until("session.update", 2))["session"]
        assert got == {"type": "realtime", "instructions": "Be kind."}
        await client.until("session.updated")
        await client.send("session.update", session={"avatar": {"video": {"fps": 30}}})
        await client.until("session.updated")
        assert len(talk.of("session.update")) == 2


async def test_a_configuration_that_the_upstream_refuses_is_refused() -> None:
    """The client's error has the upstream's words; what was in force stays, here and there."""
    async with visiting() as (client, talk):
        talk.answers = False
        audio = {"output": {"voice": "nobody"}}
        await client.send("session.update", session={"audio": audio}, event_id="mine")
        update = await talk.until("session.update", 2)
        words = "Invalid value: 'nobody'."
        await talk.refuse(update, "invalid_value", words, param="session.audio.output.voice")
        error = await client.error()
        assert (error["event_id"], error["code"], error["message"]) == (
            "mine",
            "invalid_value",
            words,
        )
        assert error["param"] == "session.audio.output.voice"
        talk.answers = True
        await client.send("session.update", session={"instructions": "Be kind."})
        shown = (await client.until("session.updated"))["session"]
        assert shown["audio"]["output"]["voice"] == ""
        assert talk.of("session.update")[2]["session"] == {
            "type": "realtime",
            "instructions": "Be kind.",
        }


async def test_items_are_the_same_on_both_sides() -> None:
    """Created, placed, deleted: the upstream has them with the same ids and in the same order."""
    async with visiting() as (client, talk):
        await client.send("conversation.item.create", item=message("b", "two"))
        await client.send(
            "conversation.item.create",
            item=message("a", "one", "system"),
            previous_item_id="root",
        )
        await client.send(
            "conversation.item.create",
            item=message("c", "three", "assistant"),
            previous_item_id="b",
        )
        await client.send("conversation.item.delete", item_id="b")
        deleted = await talk.until("conversation.item.delete")
        made = talk.of("conversation.item.create")
        assert [one["item"] for one in made] == [
            message("b", "two"),
            message("a", "one", "system"),
            message("c", "three", "assistant"),
        ]
        assert [one.get("previous_item_id") for one in made] == [None, "root", None]
        assert deleted["item_id"] == "b"


async def test_an_item_that_the_upstream_refuses_is_the_clients_error() -> None:
    """With the client's event id, whether it has one or not."""
    async with visiting() as (client, talk):
        for event_id in ("mine", None):
            event = {"event_id": event_id} if event_id else {}
            await client.send(
                "conversation.item.create", item=message(f"i{event_id}", "hi"), **event
            )
            made = await talk.until("conversation.item.create", 1 if event_id else 2)
            await talk.refuse(made, "invalid_value", "The id is too long.", param="item.id")
            error = await client.error()
            assert (error["message"], error["event_id"]) == ("The id is too long.", event_id)


async def test_recordings_reach_the_upstream() -> None:
    """An item with audio, in the client's format, has PCM16 at 24 kHz there."""
    pcm = noise(0.5)
    async with visiting() as (client, talk):
        part = {"type": "input_audio", "audio": base64.b64encode(pcm).decode()}
        item = {"id": "said", "type": "message", "role": "user", "content": [part]}
        await client.send("conversation.item.create", item=item)
        got = (await talk.until("conversation.item.create"))["item"]
        assert got == item


async def test_avatar_speak_is_said_by_this_servers_voice() -> None:
    """An upstream promises no text as it is. It learns what was said before its next answer."""
    async with visiting(query="?avatar=ada") as (client, talk):
        await client.send("avatar.speak", text="Welcome.")
        done = (await client.until("response.done"))["response"]
        assert done["status"] == "completed" and len(client.audio()) > 12_000
        item = done["output"][0]
        await client.send("response.create")
        await talk.until("response.create")
        assert [one["item"] for one in talk.of("conversation.item.create")] == [
            message(item["id"], "Welcome.", "assistant")
        ]
        await client.send(
            "conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=0
        )
        assert (await talk.until("conversation.item.delete"))["item_id"] == item["id"]


async def test_the_mode_is_chosen_in_mid_session() -> None:
    """The upstream begins with the conversation so far, what was said as text."""
    async with scripted() as upstream:
        given = {"url": upstream.url, "api_key": KEY}
        tts = {"engines": ("espeak",)}
        engine = fake_engine(create_dialogue=real_dialogues(upstream=given, tts=tts))
        parrot = {"mode": "parrot"}
        async with running(engine, settings(tts=tts, upstream=given, dialogue=parrot)) as server:
            async with client(server, "?avatar=ada") as visitor:
                await visitor.send("conversation.item.create", item=message("said", "Hello."))
                await visitor.send("response.create")  # a parrot's
                answer = (await visitor.until("response.done"))["response"]["output"][0]
                await visitor.send("session.update", session={"avatar": {"mode": "upstream"}})
                await visitor.until("session.updated")
                talk = await upstream.talk()
                assert [one["item"] for one in talk.of("conversation.item.create")] == [
                    message("said", "Hello."),
                    message(answer["id"], "Hello.", "assistant"),
                ]
                await visitor.send("session.update", session={"avatar": {"mode": "parrot"}})
                await visitor.until("session.updated")
                await talk.socket.wait_closed()
