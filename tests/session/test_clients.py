"""What stock clients rely on: parameters are honoured or refused, frames go to who asks."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np
import pytest

from tests.fake_dialogue import Dialogues, tone
from tests.fake_renderer import FakeRenderer
from tests.helpers import client, fake_engine, real_dialogues, running, settings
from tests.session.held import Line, holding
from wsavatar.media.audio import encode
from wsavatar.metrics import Metrics
from wsavatar.serve.websocket import carry
from wsavatar.session.session import Session

VIDEO = {
    "response.video.delta",
    "response.video.done",
    "session.avatar.switch_to_speaking",
    "session.avatar.switch_to_idle",
}


def pcm(samples: np.ndarray) -> str:
    return base64.b64encode(encode(samples, "audio/pcm")).decode()


def user_text(text: str, **fields: Any) -> dict[str, Any]:
    content = [{"type": "input_text", "text": text}]
    return {"type": "message", "role": "user", "content": content, **fields}


# -- frames ---------------------------------------------------------------------------------------


async def test_a_client_that_never_mentions_avatars_gets_no_frames() -> None:
    """A stock client's response is sound alone: no event that it does not know, no GPU time."""
    async with holding() as held:
        held.line.say("response.create")
        await held.line.until("response.done")
        assert not VIDEO & set(held.line.kinds())
        assert held.face.streams == []


@pytest.mark.parametrize("how", ["session.avatar", "avatar.speak", "avatar.playback", "always"])
async def test_frames_begin_once_the_client_shows_that_it_knows_avatars(how: str) -> None:
    """session.avatar, any avatar.* event, or the server's setting: from then on frames come."""
    frames = "always" if how == "always" else "asked"
    async with holding(server={"frames": frames}) as held:
        if how == "session.avatar":
            held.line.say("session.update", session={"avatar": {}})
        elif how == "avatar.speak":
            held.line.say("avatar.speak", text="440 0.2")
            await held.line.until("response.done")
        elif how == "avatar.playback":
            report = {"position_ms": 0, "frames_shown": 0, "frames_late": 0}
            held.line.say("avatar.playback", response_id="resp_x", **report)
        held.line.say("response.create")
        await held.line.until("response.video.done", 2 if how == "avatar.speak" else 1)
        assert set(held.line.kinds()) >= VIDEO


async def test_the_address_may_ask_for_frames() -> None:
    """``?avatar=`` is enough."""
    async with running(fake_engine()) as server, client(server, "?avatar=bob") as chosen:
        await chosen.send("response.create")
        await chosen.until("response.done")
        assert len(chosen.frames()) == 25


async def test_encoding_none_means_no_frames() -> None:
    """A client that knows avatars may still want sound alone; the mouth is not made then."""
    async with holding() as held:
        held.line.say("session.update", session={"avatar": {"video": {"encoding": "none"}}})
        held.line.say("avatar.speak", text="440 1")
        await held.line.until("response.done")
        assert not VIDEO & set(held.line.kinds()) and held.face.streams == []


async def test_overload_is_told_to_those_who_get_frames() -> None:
    """avatar.capacity says when frames are given up for want of time, and when that has ended."""
    async with holding(face=FakeRenderer()) as held:
        held.session.tell_capacity(held.face.capacity.load())
        assert held.line.of("avatar.capacity") == []
        held.line.say("session.update", session={"avatar": {}})
        await held.line.until("session.updated")
        held.session.tell_capacity(held.face.capacity.load())
        told = await held.line.until("avatar.capacity")
        assert told["over"] is False and told["frames_per_s_made"] == 0


# -- parameters of a response ---------------------------------------------------------------------


async def test_metadata_comes_back_in_created_and_done() -> None:
    """A client finds its own request among the responses."""
    async with holding() as held:
        held.line.say("response.create", response={"metadata": {"client_event_id": "x7"}})
        done = (await held.line.until("response.done"))["response"]
        created = held.line.of("response.created")[0]["response"]
        assert created["metadata"] == done["metadata"] == {"client_event_id": "x7"}


async def test_a_response_may_have_its_own_sound() -> None:
    """audio.output and max_output_tokens hold for this response alone, and are said back."""
    async with holding() as held:
        output = {"format": {"type": "audio/pcmu"}, "voice": "de"}
        asked = {"audio": {"output": output}, "max_output_tokens": 77}
        held.line.say("response.create", response=asked)
        await held.line.until("response.done")
        held.line.say("response.create")
        await held.line.until("response.done", 2)
        first, second = (one["response"] for one in held.line.of("response.done"))
        assert first["audio"]["output"] == {"format": {"type": "audio/pcmu", "rate": 8000}} | {
            "voice": "de"
        }
        assert (first["max_output_tokens"], second["max_output_tokens"]) == (77, "inf")
        assert second["audio"]["output"]["format"]["rate"] == 24_000
        assert held.dialogues.made[0][1].requests[0].voice == "de"
        sent = {first["id"]: 0, second["id"]: 0}
        for one in held.line.of("response.output_audio.delta"):
            sent[one["response_id"]] += len(base64.b64decode(one["delta"]))
        assert list(sent.values()) == [8000, 2 * 24_000]


async def test_a_response_outside_the_conversation_leaves_no_item() -> None:
    """conversation "none": no conversation.item events, and nothing to retrieve."""
    async with holding() as held:
        held.line.say("response.create", response={"conversation": "none"})
        done = (await held.line.until("response.done"))["response"]
        assert done["conversation_id"] is None and done["output"][0]["status"] == "completed"
        assert not [kind for kind in held.line.kinds() if kind.startswith("conversation.item")]
        assert len(held.access.conversation) == 0


async def test_input_takes_the_place_of_the_conversation() -> None:
    """Items of the request itself, and references to items of the session."""
    async with holding() as held:
        held.line.say("conversation.item.create", item=user_text("523 1", id="first"))
        held.line.say("conversation.item.create", item=user_text("660 1", id="second"))
        reference = {"type": "item_reference", "id": "first"}
        held.line.say("response.create", response={"input": [reference]})
        await held.line.until("response.done")
        held.line.say("response.create", response={"input": [user_text("880 1")]})
        await held.line.until("response.done", 2)
        wrong = {"type": "item_reference", "id": "nobody"}
        held.line.say("response.create", response={"input": [reference, wrong]})
        error = (await held.line.until("error"))["error"]
        assert error["param"] == "response.input[1].id"
        said = held.line.of("response.output_audio_transcript.done")
        assert [one["transcript"] for one in said] == ["523 1", "880 1"]


# -- the real modes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked",
    [
        {"instructions": "Greet the user."},
        {"output_modalities": ["text"]},
        {"tool_choice": "required"},
    ],
)
async def test_what_a_mode_cannot_do_is_a_failed_response_that_says_so(
    asked: dict[str, Any],
) -> None:
    """The client's request is answered, metadata and all, by a response that failed in words."""
    engine = fake_engine(create_dialogue=real_dialogues())
    async with running(engine) as server, client(server) as stock:
        await stock.send("conversation.item.create", item=user_text("Hello."))
        await stock.send("response.create", response={**asked, "metadata": {"ask": "1"}})
        done = (await stock.until("response.done"))["response"]
        assert done["status"] == "failed" and done["metadata"] == {"ask": "1"}
        error = done["status_details"]["error"]
        assert error["code"] == "unsupported_parameter" and "parrot" in error["message"]
        assert stock.events("error") == []


async def test_a_users_own_audio_item_is_said_back() -> None:
    """An item with input_audio is as good as a spoken turn: the same samples come back."""
    engine = fake_engine(create_dialogue=real_dialogues())
    said = tone(1.0, 330)
    async with running(engine) as server, client(server) as stock:
        part = {"type": "input_audio", "audio": pcm(said)}
        item = {"type": "message", "role": "user", "content": [part]}
        await stock.send("conversation.item.create", item=item)
        await stock.send("response.create")
        done = (await stock.until("response.done"))["response"]
        assert done["status"] == "completed"
        assert stock.audio() == encode(said, "audio/pcm")


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
async def test_what_is_said_back_is_what_came_in(rate: int) -> None:
    """Where the rates agree, parrot and mirror return the microphone bit for bit, full band."""
    noise = np.random.default_rng(7).integers(-9000, 9000, rate, dtype=np.int16)
    form = {"type": "audio/pcm", "rate": rate}
    audio = {"input": {"format": form, "turn_detection": None}, "output": {"format": form}}
    engine = fake_engine(create_dialogue=real_dialogues())
    async with running(engine) as server:
        for mode in ("parrot", "mirror"):
            async with client(server) as stock:
                update = {"audio": audio, "avatar": {"mode": mode, "video": {"encoding": "none"}}}
                await stock.send("session.update", session=update)
                for start in range(0, 2 * rate, 1001):
                    await stock.socket.send(noise.tobytes()[start : start + 1001])
                await stock.send("input_audio_buffer.commit")
                if mode == "parrot":
                    await stock.send("response.create")
                await stock.until("response.done")
                assert stock.audio() == noise.tobytes()


async def test_a_cleared_buffer_is_not_said_back() -> None:
    """4 s, clear, 1 s: what is said back is the second that came after the clear."""
    engine = fake_engine(create_dialogue=real_dialogues())
    before, after = tone(4, 300), tone(1, 500)
    off = {"audio": {"input": {"turn_detection": None}}}
    async with running(engine) as server, client(server) as stock:
        await stock.send("session.update", session=off)
        await stock.send("input_audio_buffer.append", audio=pcm(before))
        await stock.send("input_audio_buffer.clear")
        await stock.send("input_audio_buffer.append", audio=pcm(after))
        await stock.send("input_audio_buffer.commit")
        await stock.send("response.create")
        await stock.until("response.done")
        assert stock.audio() == encode(after, "audio/pcm")


async def test_a_mirror_goes_on_after_a_clear() -> None:
    """Without turn detection a clear ends the response; the next sample begins another."""
    engine = fake_engine(create_dialogue=real_dialogues())
    off = {"audio": {"input": {"turn_detection": None}}, "avatar": {"mode": "mirror"}}
    async with running(engine) as server, client(server) as stock:
        await stock.send("session.update", session=off)
        await stock.send("input_audio_buffer.append", audio=pcm(tone(1, 300)))
        await stock.send("input_audio_buffer.clear")
        first = (await stock.until("response.done"))["response"]
        await stock.send("input_audio_buffer.append", audio=pcm(tone(1, 300)))
        await stock.send("input_audio_buffer.commit")
        second = (await stock.until("response.done"))["response"]
        assert first["status"] == second["status"] == "completed"
        assert stock.audio() == 2 * encode(tone(1, 300), "audio/pcm")


# -- session and connection -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "refused",
    [
        {"input_audio_format": "g711_ulaw", "output_audio_format": "g711_ulaw"},
        {"audio": {"input": {"format": {"type": "audio/pcmu"}}}, "temperature": 0.8},
        {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 44_100}}}},
    ],
)
async def test_audio_of_a_refused_format_is_not_heard(refused: dict[str, Any]) -> None:
    """A client that overlooks the error may send mu-law: read as PCM it would be noise."""
    async with holding() as held:
        line = held.line
        line.say("session.update", session=refused)
        assert (await line.until("error"))["error"]["param"].startswith("session.")
        line.inbox.put_nowait(bytes(4800))
        line.say("input_audio_buffer.append", audio=pcm(np.zeros(2400)))
        assert (await line.until("error", 3))["error"]["code"] == "input_format_refused"
        dialogue = held.dialogues.made[-1][1]
        assert dialogue.heard_samples == 0
        line.say("session.update", session={"audio": {"input": {"format": {"type": "audio/pcmu"}}}})
        line.inbox.put_nowait(bytes(800))
        await line.caught_up()
        assert dialogue.heard_samples == 800 and len(line.of("error")) == 3


async def test_a_session_goes_on_over_another_connection() -> None:
    """A socket breaks in the middle of a response: the next one gets the rest, nothing twice."""
    session = Session(
        fake_engine(FakeRenderer(), create_dialogue=Dialogues().create), settings(), Metrics()
    )
    await session.start()
    session._use_extension()
    running_session = asyncio.create_task(session.run())
    first, second = Line(), Line()
    taken = 0
    keep = first.send

    async def breaks(message: str | bytes) -> None:
        nonlocal taken
        taken += 1
        if taken == 12:
            raise ConnectionResetError
        await keep(message)

    first.send = breaks  # type: ignore[method-assign]
    first.say("avatar.speak", text="440 3")
    with pytest.raises(BaseExceptionGroup):
        await carry(first, session, idle_timeout_s=60)
    session.disconnected()
    session.resume(len(first.got))
    carrying = asyncio.create_task(carry(second, session, idle_timeout_s=60))
    await second.until("response.done")
    second.inbox.put_nowait(None)
    await carrying
    running_session.cancel()
    await session.close()
    events = first.got + second.got
    audio = b"".join(
        base64.b64decode(one["delta"])
        for one in events
        if one["type"] == "response.output_audio.delta"
    )
    assert audio == encode(tone(3, 440), "audio/pcm")
    indices = [one["frame_index"] for one in events if one["type"] == "response.video.delta"]
    assert indices == sorted(set(indices)) and len(indices) >= 74
    ids = [one["event_id"] for one in events]
    assert len(ids) == len(set(ids))


async def test_an_item_that_is_too_large_is_refused() -> None:
    """It would be sent back twice: the client is told the limit, and is not cut off."""
    async with holding() as held:
        held.line.say("conversation.item.create", item=user_text("x" * (5 * 2**20)))
        error = (await held.line.until("error"))["error"]
        assert error["code"] == "item_too_large" and "4 MiB" in error["message"]
        held.line.say("conversation.item.create", item=user_text("x" * (3 * 2**20)))
        await held.line.until("conversation.item.done")
