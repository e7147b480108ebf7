"""Whatever a dialogue, a client and a renderer do to a response, its events follow one grammar."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import numpy as np
import pytest

from tests.fake_dialogue import tone
from tests.fake_renderer import FakeRenderer
from tests.session.held import Held, Line, holding
from wsavatar.dialogue.base import ResponseRequest, Word
from wsavatar.session.response import SpokenResponse

DONE = {"audio": "response.output_audio_transcript.done", "text": "response.output_text.done"}


async def anything(held: Held, response: SpokenResponse, chance: random.Random) -> None:
    """One thing that may happen to a response."""
    match chance.choice(
        ["text"] * 4
        + ["audio"] * 4
        + ["call"] * 3
        + ["words", "render", "drop", "report", "clock", "delete", "truncate"]
        + ["done", "fail", "cancel", "interrupt", "limit", "lose"]
    ):
        case "text":
            await response.text(chance.choice(["", "Hello ", "you. ", "x" * 300, "\U0001f600"]))
        case "audio":
            await response.audio(tone(chance.choice([0.0, 0.01, 0.3, 1.2]), 300))
        case "call":
            name = chance.choice("abc")
            await response.arguments(name, f"f_{name}", chance.choice(["", '{"x": ', "1}"]))
        case "words":
            await response.words([Word("Hello", chance.random(), 0.2, estimated=False)])
        case "render":
            for stream in held.face.streams:
                stream.render(chance.randrange(1, 30))
        case "drop":
            for stream in held.face.streams:
                stream.drop(1, "late")
        case "report":
            held.line.say(
                "avatar.playback",
                response_id=response.id,
                position_ms=chance.random() * 2000,
                frames_shown=chance.randrange(50),
                frames_late=0,
            )
        case "clock":
            held.clock.now_s += chance.random() * 2
        case "delete":
            held.line.say("conversation.item.delete", item_id=response.item_id)
        case "truncate":
            held.line.say(
                "conversation.item.truncate",
                item_id=response.item_id,
                content_index=0,
                audio_end_ms=chance.randrange(1000),
            )
        case "done":
            await response.done()
        case "limit":
            await response.done(incomplete="max_output_tokens")
        case "fail":
            await response.fail("tts_failed", "No voice.", at_once=chance.random() < 0.5)
        case "cancel":
            held.line.say("response.cancel")
        case "interrupt":
            held.access.interrupt()
        case "lose":
            held.session.disconnected()
            held.session.resume(len(held.line.got))
    if chance.random() < 0.5:
        await asyncio.sleep(0)


def check(line: Line, response_id: str, modality: str) -> dict[str, Any]:
    """The grammar of one response; returns what it ended as."""
    events = [
        one
        for one in line.got
        if isinstance(one, dict)
        and response_id
        in (one.get("response_id"), one.get("turn_id"), one.get("response", {}).get("id"))
    ]
    kinds = [one["type"] for one in events]
    assert kinds[0] == "response.created" and kinds.count("response.created") == 1
    assert kinds.count("response.done") == 1
    # How long the turn took is known when it was heard.
    assert set(kinds[kinds.index("response.done") + 1 :]) <= {"avatar.turn"}
    done: dict[str, Any] = next(one for one in events if one["type"] == "response.done")["response"]
    added = [one for one in events if one["type"] == "response.output_item.added"]
    assert [one["output_index"] for one in added] == list(range(len(added)))
    ended = {
        one["output_index"]: one["item"]
        for one in events
        if one["type"] == "response.output_item.done"
    }
    assert kinds.count("response.output_item.done") == len(added)
    assert done["output"] == [ended[index] for index in range(len(added))]
    for start in added:
        check_item(events, start, ended[start["output_index"]], modality)
    speaking = kinds.count("session.avatar.switch_to_speaking")
    # Where it is broken off after its last frame was sent, the avatar is at rest earlier than said.
    most = 1 + (done["status"] in ("cancelled", "failed"))
    assert speaking <= 1
    assert speaking <= kinds.count("session.avatar.switch_to_idle") <= speaking * most
    if speaking:
        assert modality == "audio"
        order = ["session.avatar.switch_to_speaking", "response.video.done"]
        places = [kinds.index(kind) for kind in [*order, "session.avatar.switch_to_idle"]]
        assert places == sorted(places)
        frames = [i for i, kind in enumerate(kinds) if kind == "response.video.delta"]
        assert all(places[0] < frame < places[1] for frame in frames)
    return done


def check_item(
    events: list[dict[str, Any]], start: dict[str, Any], item: dict[str, Any], modality: str
) -> None:
    """One item: announced first, its parts between, nothing after its end."""
    mine = [
        one
        for one in events
        if one.get("item_id") == item["id"] or one.get("item", {}).get("id") == item["id"]
    ]
    kinds = [one["type"] for one in mine]
    assert kinds[0] == "response.output_item.added"
    assert kinds[-1] == "response.output_item.done"
    assert start["item"]["status"] == "in_progress"
    assert {one["output_index"] for one in mine} == {start["output_index"]}

    def joined(kind: str) -> str:
        return "".join(one["delta"] for one in mine if one["type"] == kind)

    if item["type"] == "function_call":
        (end,) = [one for one in mine if one["type"].endswith("arguments.done")]
        written = joined("response.function_call_arguments.delta")
        assert written == end["arguments"] == item["arguments"]
        assert kinds[-2] == end["type"]
        return
    assert kinds[1] == "response.content_part.added" and kinds[-2] == "response.content_part.done"
    (end,) = [one for one in mine if one["type"] == DONE[modality]]
    text = end.get("transcript", end.get("text"))
    assert text == joined(DONE[modality].replace(".done", ".delta"))
    part = item["content"][0]
    assert text.startswith(part.get("transcript", part.get("text")))
    is_sound = [kind.startswith("response.output_audio") for kind in kinds]
    assert any(is_sound) == (modality == "audio")
    times = [i for i, kind in enumerate(kinds) if kind == "response.audio_timestamp.delta"]
    assert bool(times) == ("response.audio_timestamp.done" in kinds)


@pytest.mark.parametrize("modality", ["audio", "text"])
@pytest.mark.parametrize("seed", range(25))
async def test_events_of_a_response_follow_one_grammar(seed: int, modality: Any) -> None:
    """Twenty things at random happen to it, and to the one that takes its place: each begins and
    ends once, with every item and part in it, and says of each what its deltas said."""
    chance = random.Random(seed)
    async with holding(face=FakeRenderer(held=chance.random() < 0.5)) as held:
        if chance.random() < 0.7:
            held.session._use_extension()
        responses = []
        for _ in range(2):
            response = held.access.respond(
                ResponseRequest(modality=modality, in_conversation=chance.random() < 0.8)
            )
            responses.append(response)
            for _ in range(20):
                async with asyncio.timeout(30):
                    await anything(held, response, chance)
        held.access.interrupt()
        await held.line.caught_up()
        outcomes = [check(held.line, response.id, modality) for response in responses]
        for response, outcome in zip(responses, outcomes, strict=True):
            assert response.over and outcome["status"] != "in_progress"
        for entry in held.access.conversation:
            assert entry.item.status != "in_progress"
        ids = [one["event_id"] for one in held.line.got if isinstance(one, dict)]
        assert len(ids) == len(set(ids))


async def test_nothing_follows_a_response_that_is_over() -> None:
    """A dialogue that goes on speaking into it is not heard, and no event is sent."""
    async with holding() as held:
        response = held.access.respond()
        await response.text("Hello")
        response.cancel("client_cancelled")
        await held.line.until("response.done")
        before = len(held.line.got)
        await response.text("more")
        await response.audio(np.zeros(24_000, np.float32))
        await response.words([Word("more", 0, 1, estimated=True)])
        await response.arguments("a", "f", "{}")
        await response.fail("tts_failed", "No voice.")
        await response.done()
        response.cancel(None)
        await held.line.caught_up()
        assert held.line.kinds()[before:] == ["input_audio_buffer.cleared"]
