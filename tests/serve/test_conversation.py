"""A spoken conversation over real sockets: client, server, and scripted engines behind HTTP.

The voice of user and avatar is eSpeak NG's; what is understood and answered is scripted.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from tests.dialogue.scripted_endpoint import (
    CUT,
    HANG,
    Answer,
    Pause,
    ScriptedEndpoint,
    call_delta,
    scripted_endpoint,
)
from tests.fake_renderer import FakeRenderer
from tests.helpers import Client, client, fake_engine, running, settings
from wsavatar.config import Settings, TtsSettings
from wsavatar.dialogue import registry
from wsavatar.dialogue.engines import Engines
from wsavatar.dialogue.tts import create_voice
from wsavatar.media.audio import encode
from wsavatar.serve.server import AvatarServer

RATE = 24_000
KEY = "sk-of-the-user"


@pytest.fixture(scope="module")
def question() -> np.ndarray:
    """A spoken question, 24 kHz."""

    async def speak() -> np.ndarray:
        voice = create_voice(TtsSettings(engines=("espeak",)))
        parts = [part async for part in voice.speak("What do you think of rain?")]
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])

    return asyncio.run(speak())


@contextlib.asynccontextmanager
async def conversing(
    endpoint: ScriptedEndpoint,
    tts: dict[str, Any] | None = None,
    timeout_s: float = 30.0,
    **llm: Any,
) -> AsyncIterator[AvatarServer]:
    """A server in mode chat whose engines are behind this endpoint."""
    hosted = {"engine": "openai", "base_url": endpoint.url, "timeout_s": timeout_s}
    chosen = Settings(
        asr=hosted,  # type: ignore[arg-type]
        llm=hosted | {"api_key": KEY} | llm,  # type: ignore[arg-type]
        tts=tts or {"engines": ("espeak",)},  # type: ignore[arg-type]
    )
    engines = Engines(chosen)
    engine = fake_engine(
        FakeRenderer(),
        create_dialogue=lambda *how: registry.create(engines, *how),
        speech=engines,
    )
    async with running(engine, settings(dialogue={"mode": "chat"})) as server:
        yield server


async def say(me: Client, audio: np.ndarray, silence_s: float = 1.0) -> None:
    """Speech, then silence, in messages of 40 ms, as fast as they go."""
    data = encode(np.concatenate([audio, np.zeros(int(silence_s * RATE), np.float32)]), "audio/pcm")
    for start in range(0, len(data), RATE * 2 // 25):
        piece = base64.b64encode(data[start : start + RATE * 2 // 25]).decode()
        await me.send("input_audio_buffer.append", audio=piece)


async def answer(me: Client) -> dict[str, Any]:
    """The next response, as it ended."""
    done: dict[str, Any] = (await me.until("response.done", 20))["response"]
    return done


def words(response: dict[str, Any]) -> str:
    """What the avatar said in it."""
    return " ".join(part["transcript"] for one in response["output"] for part in one["content"])


async def test_a_spoken_question_gets_a_spoken_answer(question: np.ndarray) -> None:
    """Its transcript, an answer with sound and frames, and both in what the model is asked next."""
    scripts = {
        "transcriptions": [Answer("What do you think of rain?")],
        "chat": [Answer("I like it. ", "It is wet."), Answer("Because.")],
    }
    async with (
        scripted_endpoint(**scripts) as endpoint,
        conversing(endpoint) as server,
        client(server, "?avatar=ada") as me,
    ):
        transcribe = {"audio": {"input": {"transcription": {"model": "any"}}}}
        await me.send("session.update", session=transcribe)
        await say(me, question)
        heard = await me.until("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"] == "What do you think of rain?"
        response = await answer(me)
        assert (
            response["status"] == "completed"
            and words(response).split() == "I like it. It is wet.".split()
        )
        assert len(me.audio()) > RATE and len(me.frames()) > 10
        assert me.events("response.audio_timestamp.delta")
        turn = me.events("avatar.turn")[-1]
        stages = [
            turn[f"{one}_ms"] for one in ("turn_end", "transcript", "first_token", "first_sound")
        ]
        assert None not in stages and stages == sorted(stages)
        endpoint.transcriptions = [Answer("Why?")]
        await say(me, question)
        await answer(me)
        asked = endpoint.requests("/chat/completions")[-1].body["messages"]
        assert [(one["role"], one["content"]) for one in asked[1:]] == [
            ("user", "What do you think of rain?"),
            ("assistant", "I like it. It is wet."),
            ("user", "Why?"),
        ]


async def test_a_function_is_called_and_its_result_answered(question: np.ndarray) -> None:
    """Call, output, `response.create`: the model sees the pair and speaks."""
    call = (call_delta(0, call_id="c1", name="weather"), call_delta(0, arguments='{"day":1}'))
    scripts = {
        "transcriptions": [Answer("Will it rain?")],
        "chat": [Answer(*call, finish="tool_calls"), Answer("It will not.")],
    }
    tool = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
    async with (
        scripted_endpoint(**scripts) as endpoint,
        conversing(endpoint) as server,
        client(server) as me,
    ):
        await me.send("session.update", session={"tools": [tool]})
        await say(me, question)
        called = await me.until("response.function_call_arguments.done", 20)
        assert called["arguments"] == '{"day":1}' and called["call_id"] == "c1"
        await answer(me)
        output = {"type": "function_call_output", "call_id": "c1", "output": "dry"}
        await me.send("conversation.item.create", item=output)
        await me.send("response.create")
        assert words(await answer(me)) == "It will not."
        asked = endpoint.requests("/chat/completions")[-1].body["messages"]
        assert [one["role"] for one in asked[1:]] == ["user", "assistant", "tool"]


async def test_an_answer_in_text_alone(question: np.ndarray) -> None:
    """`output_modalities: ["text"]`: deltas of text, no sound, no frames."""
    async with (
        scripted_endpoint(chat=[Answer("**Hel", "lo**")]) as endpoint,
        conversing(endpoint) as server,
        client(server, "?avatar=ada") as me,
    ):
        await me.send("session.update", session={"output_modalities": ["text"]})
        await say(me, question)
        assert (await me.until("response.output_text.done", 20))["text"] == "**Hello**"
        assert (await answer(me))["status"] == "completed"
        assert me.audio() == b"" and me.frames() == []


FAILURES = [
    ({"transcriptions": [Answer("no", status=500)]}, {}, "engine_failed"),
    ({"transcriptions": [Answer(Pause(10), "late")]}, {}, "engine_timeout"),
    ({"transcriptions": [Answer(b"\x00nonsense")]}, {}, "engine_failed"),
    ({"transcriptions": [Answer("Hel", CUT)]}, {}, "engine_"),
    ({"chat": [Answer("no", status=401)]}, {}, "engine_unauthorized"),
    ({"chat": [Answer(Pause(10), "late")]}, {}, "engine_timeout"),
    ({"chat": [Answer(b"<html>")]}, {}, "engine_failed"),
    ({"chat": [Answer("I like", CUT)]}, {}, "engine_unreachable"),
    ({"chat": [Answer()]}, {}, "empty_answer"),
    ({}, {"base_url": "http://127.0.0.1:9/v1"}, "engine_unreachable"),
]


@pytest.mark.parametrize(("scripts", "how", "code"), FAILURES)
async def test_an_engine_that_fails_costs_one_response(
    scripts: dict[str, Any], how: dict[str, Any], code: str, question: np.ndarray
) -> None:
    """The response fails and says why in words; the session lives, and typed text is spoken."""
    timeout_s = 2.0 if code == "engine_timeout" else 30.0
    async with (
        scripted_endpoint(**scripts) as endpoint,
        conversing(endpoint, timeout_s=timeout_s, **how) as server,
        client(server) as me,
    ):
        await say(me, question)
        response = await answer(me)
        error = response["status_details"]["error"]
        assert response["status"] == "failed" and error["code"].startswith(code)
        assert len(error["message"]) > 20 and KEY not in json.dumps(response)
        endpoint.transcriptions, endpoint.chat = [Answer("Hello")], [Answer("Hello.")]
        await me.send("avatar.speak", text="I still speak.")
        assert (await answer(me))["status"] == "completed"
        if not how:
            await say(me, question)
            assert words(await answer(me)) == "Hello."


async def test_an_answer_without_a_word_is_shown(question: np.ndarray) -> None:
    """Emoji alone: nothing to hear, and no failure; the client has the text."""
    async with (
        scripted_endpoint(chat=[Answer("😀 😀")]) as endpoint,
        conversing(endpoint) as server,
        client(server) as me,
    ):
        await say(me, question)
        response = await answer(me)
        assert response["status"] == "completed" and words(response).split() == ["😀", "😀"]


VOICE_FAILURES = [
    Answer("no", status=500),
    Answer("no", status=401),
    Answer(Pause(10)),
    Answer(b"{}", content_type="application/json"),
    Answer(b"\x00\x01" * 3000, CUT),
]


@pytest.mark.parametrize("speech", VOICE_FAILURES)
async def test_a_voice_that_fails_is_replaced(speech: Answer, question: np.ndarray) -> None:
    """The next voice of the list speaks, in this response already."""
    async with scripted_endpoint(
        speech=[speech], chat=[Answer("I like it. It is wet.")]
    ) as endpoint:
        timeout_s = 0.5 if Pause(10) in speech.steps else 30.0
        tts = {"engines": ("openai", "espeak"), "base_url": endpoint.url, "timeout_s": timeout_s}
        async with conversing(endpoint, tts) as server, client(server) as me:
            await say(me, question)
            response = await answer(me)
            assert response["status"] == "completed" and len(me.audio()) > RATE
            assert words(response).split() == "I like it. It is wet.".split()


async def test_three_thousand_words_are_bounded(question: np.ndarray) -> None:
    """The model's limit is asked for; what comes anyway ends at the longest response."""
    flood = [f"word{n} " for n in range(3000)]
    async with (
        scripted_endpoint(chat=[Answer(*flood, HANG)]) as endpoint,
        conversing(endpoint) as server,
        client(server) as me,
    ):
        await me.send("session.update", session={"max_output_tokens": 60})
        await say(me, question)
        await me.until("response.output_audio.delta", 20)
        assert endpoint.requests("/chat/completions")[0].body["max_tokens"] == 60
        await me.send("response.cancel")
        assert (await answer(me))["status"] == "cancelled"
        await endpoint.until_abandoned()


async def test_other_sessions_notice_nothing(question: np.ndarray) -> None:
    """While one session's model hangs, another converses."""
    scripts = {"chat": [Answer(HANG), Answer("Fine.")]}
    async with (
        scripted_endpoint(**scripts) as endpoint,
        conversing(endpoint, timeout_s=60) as server,
        client(server) as stuck,
        client(server) as fine,
    ):
        await say(stuck, question)
        await endpoint.until_asked("/chat/completions")
        await say(fine, question)
        assert words(await answer(fine)) == "Fine."
        assert stuck.events("response.done") == []


async def test_nothing_secret_is_in_the_log(
    question: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """At the default level: no key, no instructions, nothing that was said, in failures too."""
    caplog.set_level(logging.INFO)
    scripts = {
        "transcriptions": [Answer("Strawberries"), Answer("Strawberries")],
        "chat": [Answer("Bananas"), Answer(f"wrong key {KEY}", status=401)],
    }
    async with (
        scripted_endpoint(**scripts) as endpoint,
        conversing(endpoint) as server,
        client(server, "?avatar=ada") as me,
    ):
        await me.send("session.update", session={"instructions": "Pineapples"})
        await say(me, question)
        assert words(await answer(me)) == "Bananas"
        await say(me, question)
        assert (await answer(me))["status"] == "failed"
    assert "first_sound" in caplog.text
    for secret in (KEY, "Strawberries", "Bananas", "Pineapples"):
        assert secret not in caplog.text
