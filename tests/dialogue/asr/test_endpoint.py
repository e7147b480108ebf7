"""Transcription endpoints, over a real socket."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
from pydantic import SecretStr

from tests.dialogue.scripted_endpoint import CUT, HANG, Answer, ScriptedEndpoint, scripted_endpoint
from wsavatar.config import AsrSettings
from wsavatar.dialogue.asr import ASR_RATE, Heard
from wsavatar.dialogue.asr.endpoint import EndpointRecognizer
from wsavatar.dialogue.engine import EngineError

ASK = "/audio/transcriptions"


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.delenv(name, raising=False)


def voice(seconds: float) -> np.ndarray:
    return np.full(round(seconds * ASR_RATE), 0.5, np.float32)


def settings(url: str, **more: object) -> AsrSettings:
    return AsrSettings(base_url=url, **{"model": "whisper-x", **more})  # type: ignore[arg-type]


async def understood(
    recognizer: EndpointRecognizer, heard: list[Heard] | None = None, **options: str
) -> str:
    turn = recognizer.listen(on_heard=(heard if heard is not None else []).append, **options)
    turn.push(voice(0.5))
    turn.voice_ended()
    try:
        return await turn.finish()
    finally:
        await recognizer.close()


async def failure(endpoint: ScriptedEndpoint, **more: object) -> EngineError:
    with pytest.raises(EngineError) as failed:
        await understood(EndpointRecognizer(settings(endpoint.url, **more)))
    return failed.value


async def test_a_turn_is_sent_as_a_wav() -> None:
    """With model, language and prompt; the answer's text is the turn's."""
    async with scripted_endpoint() as endpoint:
        recognizer = EndpointRecognizer(settings(endpoint.url, api_key=SecretStr("secret")))
        text = await understood(recognizer, language="de-DE", prompt="Ada")
        assert text == "Hello there." and len(endpoint.requests(ASK)) == 1
        asked = endpoint.requests(ASK)[0]
        assert asked.headers["Authorization"] == "Bearer secret"
        assert asked.body["model"] == "whisper-x"
        assert asked.body["language"] == "de" and asked.body["prompt"] == "Ada"
        with wave.open(io.BytesIO(asked.body["file"])) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
            samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        assert len(samples) == 8000 and np.all(samples == 16384)


async def test_a_server_that_streams_is_heard_as_it_writes() -> None:
    """OpenAI's newer models; each delta is a newer text."""
    async with scripted_endpoint(transcriptions=[Answer("Hello", " there.")]) as endpoint:
        heard: list[Heard] = []
        recognizer = EndpointRecognizer(settings(endpoint.url, model="gpt-4o-transcribe"))
        assert await understood(recognizer, heard) == "Hello there."
        assert [one.text for one in heard] == ["Hello", "Hello there.", "Hello there."]
        assert heard[-1].whole and not heard[0].whole


async def test_a_model_is_found_by_its_name() -> None:
    """Where none is set: one that sounds like recognition, the only one, or the usual name."""
    for models, chosen in (
        (["llama", "Systran/faster-whisper-small"], "Systran/faster-whisper-small"),
        (["my-model"], "my-model"),
        (["llama", "qwen"], "whisper-1"),
        ([], "whisper-1"),
    ):
        async with scripted_endpoint(models=models) as endpoint:
            recognizer = EndpointRecognizer(settings(endpoint.url, model=""))
            await recognizer.start()
            assert recognizer.name == f"{chosen} at 127.0.0.1:{endpoint.port}"
            await understood(recognizer)
            assert endpoint.requests(ASK)[0].body["model"] == chosen


async def test_an_endpoint_of_this_machine_is_asked_while_the_user_speaks() -> None:
    """Like a local model. Others, which charge by the second, at pauses only."""
    local = EndpointRecognizer(settings("http://localhost:9/v1"))
    far = EndpointRecognizer(settings("https://example.com/v1"))
    assert local._growth.while_spoken and not far._growth.while_spoken


async def test_the_environments_key_goes_only_where_it_belongs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never to another server that is named in the settings, and no other header of OpenAI's."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-environment")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-environment")
    async with scripted_endpoint() as endpoint:
        await understood(EndpointRecognizer(settings(endpoint.url)))
        asked = endpoint.requests(ASK)[0]
        assert "environment" not in str(asked.headers)
        monkeypatch.setenv("OPENAI_BASE_URL", endpoint.url)
        named_by_environment = AsrSettings(engine="openai", model="whisper-x")
        await understood(EndpointRecognizer(named_by_environment))
        assert endpoint.requests(ASK)[1].headers["Authorization"] == "Bearer sk-environment"


async def test_a_wrong_key_is_said_without_the_key() -> None:
    """With where to set it."""
    async with scripted_endpoint(key="right") as endpoint:
        error = await failure(endpoint, api_key=SecretStr("sk-wrong"))
        assert error.code == "engine_unauthorized"
        assert "asr.api_key" in str(error) and "sk-wrong" not in str(error)


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (Answer(status=404), "engine_failed", "asr.model"),
        (Answer(status=429), "engine_failed", "no more requests"),
        (Answer(status=500), "engine_failed", "HTTP 500"),
        (Answer(status=503), "engine_unreachable", "HTTP 503"),
        (Answer(b"{", CUT), "engine_unreachable", ""),
        (Answer(CUT), "engine_unreachable", "Is it up?"),
        (Answer(HANG), "engine_timeout", "in time"),
        (Answer(b"<p>hello", content_type="text/html"), "engine_failed", "base_url"),
        (Answer(b"{{{"), "engine_failed", "OpenAI-compatible"),
        (Answer(b'{"text": 7}'), "engine_failed", "without a text"),
        (Answer(b"[1, 2]"), "engine_failed", ""),
        (Answer(b"null"), "engine_failed", ""),
    ],
)
async def test_what_can_go_wrong_is_said(answer: Answer, code: str, said: str) -> None:
    """A refusal, a connection that ends, silence, nonsense: one turn fails, with its reason."""
    async with scripted_endpoint(transcriptions=[answer]) as endpoint:
        error = await failure(endpoint, timeout_s=1 if HANG in answer.steps else 5)
        assert error.code == code and said in str(error), str(error)
        assert "127.0.0.1" in str(error)


async def test_a_server_that_is_not_there_is_said() -> None:
    """At the start too, where a model has to be found."""
    url = "http://127.0.0.1:9/v1"
    with pytest.raises(EngineError, match="cannot be reached") as failed:
        await EndpointRecognizer(settings(url, model="")).start()
    assert failed.value.code == "engine_unreachable"
    with pytest.raises(EngineError, match="cannot be reached"):
        await understood(EndpointRecognizer(settings(url)))


async def test_a_start_sees_whether_the_key_is_taken() -> None:
    """So that the page says so before somebody speaks. A server without a list of models starts,
    if a model is named."""
    async with scripted_endpoint(key="right") as endpoint:
        recognizer = EndpointRecognizer(settings(endpoint.url, api_key=SecretStr("wrong")))
        with pytest.raises(EngineError, match="refuses the key"):
            await recognizer.start()
        await recognizer.close()
        for model in ("whisper-x", ""):
            without_list = settings(endpoint.root, api_key=SecretStr("right"), model=model)
            recognizer = EndpointRecognizer(without_list)
            if model:
                await recognizer.start()
            else:
                with pytest.raises(EngineError, match="asr.base_url"):
                    await recognizer.start()
            await recognizer.close()


async def test_one_turns_failure_is_not_the_nexts() -> None:
    """The client is kept, and the next turn is understood."""
    async with scripted_endpoint(transcriptions=[Answer(status=500), Answer("Yes.")]) as endpoint:
        recognizer = EndpointRecognizer(settings(endpoint.url))
        turn = recognizer.listen(on_heard=lambda _: None)
        turn.push(voice(0.5))
        with pytest.raises(EngineError):
            await turn.finish()
        assert await understood(recognizer) == "Yes."
        assert endpoint.connections == 1


async def test_it_is_tried_on_a_sentence() -> None:
    """`doctor` shows what came back."""
    async with scripted_endpoint() as endpoint:
        recognizer = EndpointRecognizer(settings(endpoint.url))
        assert "understood 'Hello there.'" in await recognizer.check()
        await recognizer.close()
