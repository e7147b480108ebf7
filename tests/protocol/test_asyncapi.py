"""The published AsyncAPI document: what a real session sends is what it describes.

The clients of `tests.helpers` and `tests.session.held` check every event that they receive, in all
tests; here every type of event is seen once.
"""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from jsonschema import ValidationError

from tests.fake_dialogue import FakeSpeech
from tests.helpers import Client, client, fake_engine, real_dialogues, running
from tests.protocol.document import check_message, event_types
from wsavatar.media.audio import resample
from wsavatar.protocol.asyncapi import describe

AUDIO = base64.b64encode(bytes(9600)).decode()  # 200 ms of silence
NEEDS_A_VOICE = {
    "input_audio_buffer.speech_started",
    "input_audio_buffer.speech_stopped",
    "avatar.turn",
}
NEEDS_OVERLOAD = {"avatar.capacity"}  # `tests.session.test_clients` has one
NEEDS_A_LOSS = {"avatar.resumed"}  # `tests.serve.test_resume` has some
NEEDS_A_FILE = {  # `tests.serve.test_avatar_making` has them all
    kind
    for kind in event_types("sendServerEvent")
    if kind.startswith(("avatar.create", "avatar.list", "avatar.renamed", "avatar.deleted"))
}
NEEDS_VIDEOS = {  # `tests.serve.test_videos` has them all
    kind for kind in event_types("sendServerEvent") if kind.startswith("avatar.render")
}
RARE = NEEDS_OVERLOAD | NEEDS_A_LOSS | NEEDS_A_FILE | NEEDS_VIDEOS


async def say(to: Client, kind: str, **fields: Any) -> None:
    """Send a client event that the document describes."""
    check_message("receiveClientEvent", {"type": kind, **fields})
    await to.send(kind, **fields)


async def transcribe(me: Client, prompt: str) -> None:
    """Have something transcribed."""
    wanted = {"language": "en", "prompt": prompt}
    await say(me, "session.update", session={"audio": {"input": {"transcription": wanted}}})
    await say(me, "input_audio_buffer.append", audio=AUDIO)
    await say(me, "input_audio_buffer.commit")


async def test_every_event_of_a_session_is_as_described() -> None:
    """Audio and frames in JSON included; so are an error, a cancelled and a failed response."""
    engine = fake_engine(speech=FakeSpeech())
    async with running(engine) as server, client(server) as me:
        await say(me, "session.update", session={"avatar": {"video": {"encoding": "json"}}})
        await transcribe(me, "")
        await transcribe(me, "fail")
        await say(me, "input_audio_buffer.append", audio=AUDIO)
        await say(me, "input_audio_buffer.clear")
        await say(me, "input_audio_buffer.append", audio=AUDIO)
        await say(me, "input_audio_buffer.commit")
        item = (await me.until("conversation.item.done"))["item"]
        await say(me, "conversation.item.retrieve", item_id=item["id"])
        await say(me, "conversation.item.delete", item_id=item["id"])
        part = {"type": "input_text", "text": "440 1"}
        message = {"type": "message", "role": "user", "content": [part]}
        await say(me, "conversation.item.create", item=message)
        await say(me, "response.create", response={"metadata": {"k": "v"}})
        done = await me.until("response.done")
        spoken = done["response"]["output"][0]["id"]
        cut = {"item_id": spoken, "content_index": 0, "audio_end_ms": 500}
        await say(me, "conversation.item.truncate", **cut)
        await say(me, "avatar.speak", text="hum 300")
        response = (await me.until("response.created"))["response"]["id"]
        counts = {"position_ms": 1.5, "frames_shown": 0, "frames_late": 0}
        await say(me, "avatar.playback", response_id=response, **counts)
        await me.until("response.output_audio.delta")
        await say(me, "response.cancel", response_id=response)
        assert (await me.until("response.done"))["response"]["status"] == "cancelled"
        await say(me, "avatar.speak", text="fail")
        assert (await me.until("response.done"))["response"]["status"] == "failed"
        await say(me, "avatar.speak", text="timed 440 1")
        await me.until("response.done")
        await say(me, "avatar.speak", text='call now {"zone": "UTC"}')
        await me.until("response.done")
        await say(me, "session.update", session={"avatar": {"mode": "chat"}})
        await say(me, "response.create", response={"output_modalities": ["text"]})
        await me.until("response.done")
        await me.send("nonsense")
        await me.until("error")
        kinds = {event["type"] for event in me.events()}
    assert kinds == event_types("sendServerEvent") - NEEDS_A_VOICE - RARE


async def test_every_event_of_a_spoken_turn_is_as_described(samples_dir: Path) -> None:
    """The real dialogue hears a real voice: the turn's events come too."""
    samples, rate = soundfile.read(samples_dir / "eng.wav", dtype="float32")
    voice = resample(samples[: 4 * rate], rate, 24_000)
    quiet = np.zeros(2 * 24_000, np.float32)
    data = (np.concatenate([voice, quiet]) * 32767).astype("<i2").tobytes()
    engine = fake_engine(create_dialogue=real_dialogues())
    async with running(engine) as server, client(server, "?avatar=ada") as me:
        for start in range(0, len(data), 4800):
            piece = base64.b64encode(data[start : start + 4800]).decode()
            await say(me, "input_audio_buffer.append", audio=piece)
        await me.until("response.done")
        assert {event["type"] for event in me.events()} >= NEEDS_A_VOICE


def test_the_document_refuses_what_the_server_refuses() -> None:
    """A misspelt field or a missing one does not pass a client's own check against the document."""
    check_message("receiveClientEvent", {"type": "avatar.speak", "text": "Hi"})
    for wrong in ({"txet": "Hi"}, {}, {"text": 3}):
        with pytest.raises(ValidationError):
            check_message("receiveClientEvent", {"type": "avatar.speak", **wrong})
    with pytest.raises(ValidationError):
        session = {"audio": {"input": {"turn_detection": {"treshold": 0.5}}}}
        check_message("receiveClientEvent", {"type": "session.update", "session": session})


def test_every_reference_in_the_document_resolves() -> None:
    """Generators of client code follow each of them."""
    document = describe()

    def follow(node: Any) -> int:
        if isinstance(node, dict):
            if isinstance(reference := node.get("$ref"), str):
                target: Any = document
                for part in reference.removeprefix("#/").split("/"):
                    target = target[part]
            return ("$ref" in node) + sum(follow(value) for value in node.values())
        return sum(map(follow, node)) if isinstance(node, list) else 0

    assert follow(document) > 100


def test_every_message_has_a_summary() -> None:
    """A reader of the document learns what each event means."""
    messages = describe()["components"]["messages"]
    assert [name for name, message in messages.items() if not message["summary"]] == []
