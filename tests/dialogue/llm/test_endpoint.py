"""A language model behind an OpenAI-compatible endpoint, over a real socket."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing
from typing import Any

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
from wsavatar.config import LlmSettings
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.llm import (
    CallDelta,
    ChatRequest,
    Finished,
    Part,
    TextDelta,
    create_language_model,
)
from wsavatar.dialogue.llm.endpoint import EndpointModel

ASKED = ChatRequest(({"role": "user", "content": "Hi"},), max_tokens=50)


async def answered(
    endpoint: ScriptedEndpoint, request: ChatRequest = ASKED, **chosen: Any
) -> list[Part]:
    """All parts of one answer."""
    model = EndpointModel(LlmSettings(base_url=endpoint.url, **chosen))
    try:
        return [part async for part in model.answer(request)]
    finally:
        await model.close()


def text_of(parts: list[Part]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextDelta))


async def test_an_answer_comes_as_it_is_written() -> None:
    """Deltas in order, then why it ended; the request has what is configured."""
    async with scripted_endpoint(chat=[Answer("Hel", "lo", ".")]) as endpoint:
        chosen = {"temperature": 0.3, "extra_body": {"top_k": 5}}
        parts = await answered(endpoint, **chosen)
        assert parts == [TextDelta("Hel"), TextDelta("lo"), TextDelta("."), Finished("stop")]
        body = endpoint.requests("/chat/completions")[0].body
        assert body["model"] == "scripted-1" and body["max_tokens"] == 50 and body["stream"]
        assert body["temperature"] == 0.3 and body["top_k"] == 5 and "tools" not in body


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
async def test_an_answer_that_was_cut_short_says_why(finish: str, reason: str) -> None:
    """The model's limit, or its filter."""
    async with scripted_endpoint(chat=[Answer("Hello", finish=finish)]) as endpoint:
        assert (await answered(endpoint))[-1] == Finished(reason)  # type: ignore[arg-type]


async def test_calls_come_one_after_another() -> None:
    """However the endpoint interleaves their pieces; each has an id."""
    steps = (
        call_delta(0, call_id="a", name="time", arguments=""),
        call_delta(0, arguments='{"zone":'),
        call_delta(1, call_id="b", name="date", arguments='{"x"'),
        call_delta(0, arguments='"utc"}'),
        call_delta(1, arguments=":1}"),
    )
    async with scripted_endpoint(chat=[Answer(*steps, finish="tool_calls")]) as endpoint:
        parts = await answered(endpoint)
    assert parts[-1] == Finished("tool_calls")
    calls: dict[str, str] = {}
    for part in parts[:-1]:
        assert isinstance(part, CallDelta)
        calls[part.call_id] = calls.get(part.call_id, "") + part.arguments
    order = [part.call_id for part in parts[:-1] if isinstance(part, CallDelta)]
    assert order == sorted(order) and calls == {"a": '{"zone":"utc"}', "b": '{"x":1}'}


async def test_calls_with_one_index_are_told_apart_by_their_ids() -> None:
    """Some servers number every call 0. A call without an id gets one, one without a name is
    dropped."""
    steps = (
        call_delta(0, call_id="a", name="time", arguments="{}"),
        call_delta(0, call_id="b", name="date", arguments="{}"),
        call_delta(1, name="moon"),
        call_delta(2, call_id="d", arguments="{}"),
    )
    async with scripted_endpoint(chat=[Answer(*steps, finish="stop")]) as endpoint:
        parts = await answered(endpoint)
    calls = [part for part in parts if isinstance(part, CallDelta)]
    assert [part.name for part in calls] == ["time", "date", "moon"]
    assert [part.call_id for part in calls][:2] == ["a", "b"] and calls[2].call_id
    assert parts[-1] == Finished("tool_calls")


async def test_thoughts_are_not_said() -> None:
    """`reasoning_content` and `<think>` at the beginning, in pieces too; a later mark is text."""
    thought = (
        {"reasoning_content": "hm"},
        "<thi",
        "nk>I shall say",
        " hello</th",
        "ink>\n\nHello",
        " <think>",
    )
    async with scripted_endpoint(chat=[Answer(*thought)]) as endpoint:
        assert text_of(await answered(endpoint)) == "Hello <think>"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (Answer("no", status=401), "engine_unauthorized", "llm.api_key"),
        (Answer("no", status=404), "engine_failed", "llm.model"),
        (Answer("no", status=429), "engine_failed", "no more requests"),
        (Answer("no", status=503), "engine_unreachable", "503"),
        (Answer("Hel", CUT), "engine_unreachable", "broke off|reached"),
        (Answer("Hel", ends=False), "engine_failed", "broke off"),
        (Answer(b"<html>no</html>", content_type="text/html"), "engine_failed", "not as an OpenAI"),
        (Answer(b"data: {nonsense\n\n"), "engine_failed", "OpenAI-compatible"),
        (
            Answer("Hel", {"error": {"message": "Hi", "code": "out_of_memory"}}),
            "engine_failed",
            r"reports an error .*\(out_of_memory\)",
        ),
        (Answer(Pause(5)), "engine_timeout", "in time"),
        (Answer("Hel", HANG), "engine_timeout", "in time"),
    ],
)
async def test_what_goes_wrong_is_said_in_words(answer: Answer, code: str, words: str) -> None:
    """Each failure has a code and a sentence that says what to do."""
    async with scripted_endpoint(chat=[answer]) as endpoint:
        with pytest.raises(EngineError, match=words) as caught:
            await answered(endpoint, timeout_s=1 if code == "engine_timeout" else 20)
    assert caught.value.code == code and "Hi" not in str(caught.value).split()


async def test_a_server_that_is_not_there_is_named() -> None:
    """No traceback: the address, and that nothing answers."""
    model = EndpointModel(LlmSettings(base_url="http://127.0.0.1:9/v1"))
    with pytest.raises(EngineError, match="127.0.0.1:9") as caught:
        await model.start()
    await model.close()
    assert caught.value.code == "engine_unreachable"


async def test_an_answer_that_is_not_wanted_any_more_stops_the_model() -> None:
    """Closing the generator closes the connection: the endpoint sees it."""
    async with scripted_endpoint(chat=[Answer("Hel", HANG)]) as endpoint:
        model = EndpointModel(LlmSettings(base_url=endpoint.url))
        async with aclosing(model.answer(ASKED)) as parts:
            assert await anext(parts) == TextDelta("Hel")
        await endpoint.until_abandoned()
        await model.close()


async def test_a_reader_that_takes_its_time_is_no_timeout() -> None:
    """The limit is the endpoint's, not that of who reads."""
    async with scripted_endpoint(chat=[Answer("a", "b")]) as endpoint:
        model = EndpointModel(LlmSettings(base_url=endpoint.url, timeout_s=3))
        async with aclosing(model.answer(ASKED)) as answer:
            parts = [await anext(answer)]
            await asyncio.sleep(3.1)
            parts += [part async for part in answer]
        await model.close()
        assert parts[-1] == Finished("stop")


async def test_the_first_model_and_a_warm_connection() -> None:
    """`start` chooses the model and connects; the first answer uses that connection."""
    async with scripted_endpoint() as endpoint:
        model = EndpointModel(LlmSettings(base_url=endpoint.url))
        await model.start()
        assert model.name.startswith("scripted-1 at 127.0.0.1")
        assert text_of([part async for part in model.answer(ASKED)]) == "Hello. I am a script."
        assert endpoint.connections == 1
        await model.close()


@pytest.mark.slow
async def test_the_connection_is_kept_between_turns() -> None:
    """A turn that comes some seconds after the last one does not connect again."""
    async with scripted_endpoint() as endpoint:
        model = EndpointModel(LlmSettings(base_url=endpoint.url))
        await model.start()
        await asyncio.sleep(7)
        assert text_of([part async for part in model.answer(ASKED)])
        assert endpoint.connections == 1
        await model.close()


async def test_a_server_that_does_not_list_its_models() -> None:
    """Is asked for the model of the settings; without one the error says to name it."""
    async with scripted_endpoint(models_status=404) as endpoint:
        model = EndpointModel(LlmSettings(base_url=endpoint.url, model="mine"))
        await model.start()
        assert model.name.startswith("mine at 127.0.0.1")
        await model.close()
        with pytest.raises(EngineError, match="llm.model"):
            await answered(endpoint)


async def test_a_check_says_what_came_back_and_when() -> None:
    """One sentence with the answer and the time to its first token; an empty answer fails."""
    async with scripted_endpoint(chat=[Answer("Hello", "!"), Answer()]) as endpoint:
        model = EndpointModel(LlmSettings(base_url=endpoint.url))
        assert re.fullmatch(r"It says 'Hello!', first after \d+\.\d\d s\.", await model.check())
        with pytest.raises(EngineError, match="nothing"):
            await model.check()
        await model.close()


async def test_the_environments_key_goes_to_its_own_server_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """OPENAI_API_KEY is sent to OPENAI_BASE_URL, and to no other host."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with scripted_endpoint() as mine, scripted_endpoint() as other:
        monkeypatch.setenv("OPENAI_BASE_URL", mine.url)
        for endpoint in (mine, other):
            await answered(endpoint)
        assert "sk-secret" in mine.asked[-1].headers["Authorization"]
        assert all("sk-secret" not in one.headers.get("Authorization", "") for one in other.asked)


def test_which_model_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """none: nothing; an unknown name: an error that names those there are."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert create_language_model(LlmSettings(engine="none")) is None
    with pytest.raises(EngineError, match="openai"):
        create_language_model(LlmSettings(engine="eliza"))
    made = create_language_model(LlmSettings(base_url="http://127.0.0.1:1/v1"))
    assert isinstance(made, EndpointModel)
