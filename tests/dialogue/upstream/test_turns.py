"""The user speaks: the upstream hears it, finds turns, and an interruption reaches both ends."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from tests.dialogue.upstream.scripted import Talk, noise, visiting
from tests.fake_dialogue import tone
from tests.helpers import Client
from wsavatar.media.audio import decode, encode, resample


async def push(client: Client, pcm: bytes) -> None:
    """In packets of 20 ms, as a microphone does."""
    for start in range(0, len(pcm), 960):
        await client.socket.send(pcm[start : start + 960])


async def begin_answer(client: Client, talk: Talk, pcm: bytes) -> None:
    """A response that the upstream goes on with, of which the client has this much."""
    await client.send("response.create")
    await talk.until("response.create")
    await talk.create("resp_1")
    await talk.add_message("resp_1", "item_1")
    await talk.delta("output_audio_transcript", "resp_1", "item_1", "A long story. ")
    await talk.sound("resp_1", "item_1", pcm)
    while len(client.audio()) < len(pcm):
        await client.receive()


async def play(client: Client, position_ms: float) -> None:
    await client.send(
        "avatar.playback",
        response_id="resp_1",
        position_ms=position_ms,
        frames_shown=0,
        frames_late=0,
    )


async def test_the_upstream_hears_every_sample() -> None:
    """PCM16 at 24 kHz goes through as it is."""
    pcm = noise(0.7)
    async with visiting() as (client, talk):
        await push(client, pcm)
        assert await talk.heard(len(pcm)) == pcm


@pytest.mark.parametrize(
    "form",
    [
        {"type": "audio/pcm", "rate": 16000},
        {"type": "audio/pcm", "rate": 48000},
        {"type": "audio/pcmu"},
        {"type": "audio/pcma"},
    ],
    ids=lambda form: f"{form['type'][6:]}{form.get('rate', '')}",
)
async def test_the_upstream_hears_24_khz_whatever_the_client_sends(form: dict[str, Any]) -> None:
    """Other rates and G.711 become PCM16 at 24 kHz, without seams between packets."""
    rate = form.get("rate", 8000)
    sound = tone(1.0, 440, rate)
    async with visiting() as (client, talk):
        audio = {"input": {"format": form, "turn_detection": None}}
        await client.send("session.update", session={"audio": audio})
        await client.until("session.updated")
        await push(client, encode(sound, form["type"]))
        await client.send("input_audio_buffer.commit")  # with what the resampler has
        await talk.until("input_audio_buffer.commit")
        heard = decode(talk.audio, "audio/pcm")
        coarse = decode(encode(sound, form["type"]), form["type"])
        expected = resample(coarse, rate, 24_000)
        assert len(heard) == 24_000
        assert float(np.max(np.abs(heard - expected))) < 1e-3
        formats = [
            one["session"]["audio"]["input"]["format"]
            for one in talk.of("session.update")
            if "format" in one["session"]["audio"]["input"]
        ]
        assert formats == [{"type": "audio/pcm", "rate": 24000}]


async def test_a_turn_is_the_upstreams() -> None:
    """Its events come with its item's id and its times; the item has the audio of the turn."""
    async with visiting() as (client, talk):
        pcm = noise(2.0)
        await push(client, pcm)
        await talk.heard(len(pcm))
        await talk.speech("item_turn", 500, 1500)
        committed = await client.until("input_audio_buffer.committed")
        started = client.events("input_audio_buffer.speech_started")[0]
        stopped = client.events("input_audio_buffer.speech_stopped")[0]
        assert (started["audio_start_ms"], stopped["audio_end_ms"]) == (500, 1500)
        assert {started["item_id"], stopped["item_id"], committed["item_id"]} == {"item_turn"}
        await talk.speak("resp_1", "item_1", "Hello.", noise(0.1))  # nobody asked: it is the turn's
        done = (await client.until("response.done"))["response"]
        assert (done["id"], done["status"]) == ("resp_1", "completed")


async def test_what_the_user_said_comes_from_the_upstream() -> None:
    """Transcripts reach a client that wants them, and the upstream is asked for them."""
    async with visiting() as (client, talk):
        await push(client, noise(0.5))
        wanted = {"transcription": {"model": "whisper-1", "language": "en"}}
        await client.send("session.update", session={"audio": {"input": wanted}})
        update = await talk.until("session.update", 2)
        asked = update["session"]["audio"]["input"]["transcription"]
        assert asked == {"model": "whisper-1", "language": "en"}
        await client.until("session.updated")
        await talk.speech("item_turn", 0, 500)
        kind = "conversation.item.input_audio_transcription"
        ids = {"item_id": "item_turn", "content_index": 0}
        await talk.say(f"{kind}.delta", delta="Good ", **ids)
        await talk.say(f"{kind}.delta", delta="day.", **ids)
        usage = {"type": "duration", "seconds": 0.5}
        await talk.say(f"{kind}.completed", transcript="Good day.", usage=usage, **ids)
        completed = await client.until(f"{kind}.completed")
        assert completed["transcript"] == "Good day."
        assert [one["delta"] for one in client.events(f"{kind}.delta")] == ["Good ", "day."]
        await talk.speech("item_2", 500, 500)
        error = {"type": "server_error", "code": "audio_unintelligible", "message": "Too quiet."}
        await talk.say(f"{kind}.failed", error=error, item_id="item_2", content_index=0)
        failed = (await client.until(f"{kind}.failed"))["error"]
        assert (failed["code"], failed["message"]) == ("audio_unintelligible", "Too quiet.")


async def test_push_to_talk() -> None:
    """Without turn detection the client commits; the item's id is the upstream's, also where the
    client goes on speaking meanwhile."""
    async with visiting() as (client, talk):
        await client.send("session.update", session={"audio": {"input": {"turn_detection": None}}})
        update = await talk.until("session.update", 2)
        assert update["session"]["audio"]["input"]["turn_detection"] is None
        for turn in (1, 2):
            await push(client, noise(0.5, turn))
            await client.send("input_audio_buffer.commit")
        await talk.until("input_audio_buffer.commit", 2)
        for turn in (1, 2):
            await talk.committed(f"item_{turn}")
            committed = await client.until("input_audio_buffer.committed")
            assert committed["item_id"] == f"item_{turn}"
        assert talk.audio == noise(0.5, 1) + noise(0.5, 2)


async def test_a_commit_that_the_upstream_refuses() -> None:
    """It is the client's error, and the next commit has its own item."""
    async with visiting() as (client, talk):
        await push(client, noise(0.5))
        await client.send("input_audio_buffer.commit", event_id="mine")
        commit = await talk.until("input_audio_buffer.commit")
        await talk.refuse(commit, "input_audio_buffer_commit_empty", "Too short.")
        assert (await client.error())["event_id"] == "mine"
        await push(client, noise(0.5))
        await client.send("input_audio_buffer.commit")
        await talk.until("input_audio_buffer.commit", 2)
        await talk.committed("item_2")
        assert (await client.until("input_audio_buffer.committed"))["item_id"] == "item_2"


async def test_the_buffer_is_cleared_upstream_too() -> None:
    """input_audio_buffer.clear reaches the upstream, in order."""
    async with visiting() as (client, talk):
        await push(client, noise(0.1))
        await client.send("input_audio_buffer.clear")
        await talk.until("input_audio_buffer.clear")
        kinds = [one["type"] for one in talk.got]
        assert kinds.index("input_audio_buffer.clear") > kinds.index("input_audio_buffer.append")


async def test_speech_over_the_avatar_stops_it_at_once() -> None:
    """The client gets nothing more of the response, and the upstream learns what was heard."""
    async with visiting(query="?avatar=ada") as (client, talk):
        await begin_answer(client, talk, noise(3.0))
        await play(client, 1000)
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")  # the report was taken
        await talk.speech_started("item_turn", 0)
        await talk.sound("resp_1", "item_1", noise(1.0))  # it has not noticed yet
        done = (await client.until("response.done"))["response"]
        assert (done["status"], done["status_details"]["reason"]) == ("cancelled", "turn_detected")
        cancel, cut = (
            await talk.until("response.cancel"),
            await talk.until("conversation.item.truncate"),
        )
        assert cancel["response_id"] == "resp_1"
        assert (cut["item_id"], cut["content_index"]) == ("item_1", 0)
        assert 1000 <= cut["audio_end_ms"] < 2500
        said = len(client.audio())
        await talk.done("resp_1", "cancelled", reason="turn_detected")
        await client.send("input_audio_buffer.clear")
        await client.until("input_audio_buffer.cleared")
        assert len(client.audio()) == said
        kinds = [event["type"] for event in client.events()]
        assert kinds.count("response.done") == 1 and "error" not in kinds


async def test_a_client_that_reports_nothing_truncates_for_itself() -> None:
    """As stock clients do: what was sent bounds the first cut, theirs is a shorter one."""
    async with visiting() as (client, talk):
        await begin_answer(client, talk, noise(3.0))
        await talk.sound("resp_1", "item_1", noise(20.0))  # more than a client gets ahead
        await talk.speech_started("item_turn", 0)
        await client.until("response.done")
        sent_ms = len(client.audio()) / 48
        first = await talk.until("conversation.item.truncate")
        assert first["audio_end_ms"] == pytest.approx(sent_ms, abs=1)
        await client.send(
            "conversation.item.truncate", item_id="item_1", content_index=0, audio_end_ms=700
        )
        second = await talk.until("conversation.item.truncate", 2)
        assert (second["item_id"], second["audio_end_ms"]) == ("item_1", 700)
        assert (await client.until("conversation.item.truncated"))["audio_end_ms"] == 700


async def test_an_answer_that_is_complete_upstream_is_still_truncated() -> None:
    """It was sent long before it is heard: speech over it stops it, and only truncates it there."""
    async with visiting(query="?avatar=ada") as (client, talk):
        await begin_answer(client, talk, noise(3.0))
        await talk.done("resp_1")
        await play(client, 500)
        await client.until("response.output_audio.done")
        await talk.speech_started("item_turn", 0)
        cut = await talk.until("conversation.item.truncate")
        assert 500 <= cut["audio_end_ms"] < 2500
        done = (await client.until("response.done"))["response"]
        assert done["status_details"]["reason"] == "turn_detected"
        assert not talk.of("response.cancel")


async def test_a_client_cancels() -> None:
    """response.cancel stops the answer here and there."""
    async with visiting() as (client, talk):
        await begin_answer(client, talk, noise(1.0))
        await client.send("response.cancel")
        done = (await client.until("response.done"))["response"]
        assert done["status_details"]["reason"] == "client_cancelled"
        assert (await talk.until("response.cancel"))["response_id"] == "resp_1"
        await talk.until("conversation.item.truncate")


async def test_a_client_cancels_before_the_answer_has_begun() -> None:
    """The request is withdrawn; an answer that begins all the same is cancelled at once."""
    async with visiting() as (client, talk):
        await client.send("response.create")
        await talk.until("response.create")
        await client.send("response.cancel")
        await talk.until("response.cancel")
        await talk.create("resp_1")
        done = (await client.until("response.done"))["response"]
        assert (done["id"], done["status"]) == ("resp_1", "cancelled")
        assert not client.events("error")
        assert (await talk.until("response.cancel", 2))["response_id"] == "resp_1"


async def test_speech_that_may_not_interrupt() -> None:
    """interrupt_response false: the answer goes on, and the next one begins when it was heard."""
    async with visiting(query="?avatar=ada") as (client, talk):
        audio = {"input": {"turn_detection": {"type": "server_vad", "interrupt_response": False}}}
        video = {"video": {"encoding": "none"}}
        await client.send("session.update", session={"audio": audio, "avatar": video})
        await client.until("session.updated")
        await begin_answer(client, talk, noise(1.0))
        await play(client, 0)
        await talk.speech("item_turn", 0, 100)
        await talk.sound("resp_1", "item_1", noise(0.5))
        await talk.done("resp_1")
        await talk.speak("resp_2", "item_2", "And then?", noise(0.1))
        await client.until("response.output_audio.done")
        assert len(client.events("response.created")) == 1
        await play(client, 1500)
        done = (await client.until("response.done"))["response"]
        assert (done["id"], done["status"]) == ("resp_1", "completed")
        assert (await client.until("response.done"))["response"]["id"] == "resp_2"


async def test_the_users_audio_waits_while_the_upstream_takes_none() -> None:
    """Nothing of it is lost, however much comes at once."""
    pcm = noise(60.0)
    async with visiting() as (client, talk):
        for start in range(0, len(pcm), 48_000):
            audio = base64.b64encode(pcm[start : start + 48_000]).decode()
            await client.send("input_audio_buffer.append", audio=audio)
        assert await talk.heard(len(pcm)) == pcm
