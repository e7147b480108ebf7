"""LiveKit Agents' realtime model: its session by itself, and a whole agent without a room."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import scenario
from livekit import rtc
from livekit.agents import Agent, AgentSession, function_tool, llm
from livekit.agents.voice import io
from livekit.plugins.openai.realtime import RealtimeModel, RealtimeSession
from openai.types.realtime import realtime_audio_input_turn_detection as detection


class _Complaints(logging.Handler):
    """Everything that the SDK warns of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        details = {
            k: v for k, v in vars(record).items() if k in ("error", "errors", "lk.pii.event")
        }
        text = self.format(record)
        self.lines.append(f"{text} {details}" if details else text)


@contextlib.asynccontextmanager
async def _model(
    visit: scenario.Visit, expected: str = "", **options: Any
) -> AsyncIterator[RealtimeModel]:
    """A model that talks to the server. Fails where the SDK complained of anything, but for a
    response that was expected to fail."""
    complaints = _Complaints()
    for name in ("livekit.agents", "livekit.plugins.openai", "asyncio"):
        logging.getLogger(name).addHandler(complaints)
    async with aiohttp.ClientSession() as http:
        yield RealtimeModel(base_url=visit.base_url, api_key="any", http_session=http, **options)
    unexpected = [
        line for line in complaints.lines if not expected or "response failed" not in line
    ]
    assert unexpected == [], "\n".join(unexpected)


@contextlib.asynccontextmanager
async def _session(
    visit: scenario.Visit, expected: str = "", **options: Any
) -> AsyncIterator[RealtimeSession]:
    """A session. Fails where it reported an error, but for one with the ``expected`` words."""
    errors: list[Any] = []
    async with _model(visit, expected, **options) as model:
        session = model.session()
        session.on("error", errors.append)
        try:
            yield session
        finally:
            await session.aclose()
    if expected:
        [error] = errors
        assert expected in str(error.error.body), error
    else:
        assert errors == [], errors


def _frame(pcm: bytes) -> rtc.AudioFrame:
    return rtc.AudioFrame(pcm, scenario.RATE, 1, len(pcm) // 2)


async def _heard(generation: llm.GenerationCreatedEvent) -> tuple[str, float]:
    """What a response says, and how many seconds it lasts."""
    text, seconds = "", 0.0
    async for message in generation.message_stream:
        async for frame in message.audio_stream:
            seconds += frame.duration
        async for delta in message.text_stream:
            text += delta
    return text, seconds


async def _next(session: RealtimeSession, name: Any) -> Any:
    """The next event of this name."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    session.once(name, lambda event: future.done() or future.set_result(event))
    return await future


async def a_voice_is_answered(visit: scenario.Visit) -> None:
    """Recorded voice goes in by `push_audio`; the generation brings sound."""
    async with _session(visit) as session:
        created = asyncio.create_task(_next(session, "generation_created"))
        started = asyncio.create_task(_next(session, "input_speech_started"))
        stopped = asyncio.create_task(_next(session, "input_speech_stopped"))
        await asyncio.sleep(0)
        for packet in visit.packets():
            session.push_audio(_frame(packet))
            await asyncio.sleep(0)
        await started
        await stopped
        _, seconds = await _heard(await created)
        assert seconds > 1.0


async def generate_reply_is_answered(visit: scenario.Visit) -> None:
    """`generate_reply()` finds its response by the metadata that it sent."""
    async with _session(visit) as session:
        await session.update_instructions("You are a friendly assistant.")
        chat = llm.ChatContext.empty()
        chat.add_message(role="user", content="One two three.")
        await session.update_chat_ctx(chat)
        for options in ({}, {"tool_choice": "none"}):
            generation = await session.generate_reply(**options)
            assert generation.user_initiated
            text, seconds = await _heard(generation)
            assert "three" in text and seconds > 0.5


async def instructions_for_a_parrot(visit: scenario.Visit) -> None:
    """`generate_reply(instructions=…)`, which a parrot cannot follow, fails in words."""
    async with _session(visit, expected="cannot follow") as session:
        generation = await session.generate_reply(instructions="Greet the user.")
        assert await _heard(generation) == ("", 0.0)


async def the_connection_is_renewed(visit: scenario.Visit) -> None:
    """After `max_session_duration` the SDK connects anew and repeats its history; it goes on."""
    async with _session(visit, max_session_duration=2.0) as session:
        chat = llm.ChatContext.empty()
        chat.add_message(role="user", content="One two three.", id="asked")
        chat.add_message(role="assistant", content="Four.", id="told")
        await session.update_instructions("You are a friendly assistant.")
        await session.update_chat_ctx(chat)
        await _next(session, "session_reconnected")
        await scenario.until(
            lambda: [item.id for item in session.chat_ctx.items] == ["asked", "told"]
        )
        text, _ = await _heard(await session.generate_reply())
        assert "three" in text


async def a_picture_is_shown(visit: scenario.Visit) -> None:
    """`push_video` sends a frame of the user's camera as an item."""
    async with _session(visit) as session:
        session.push_video(rtc.VideoFrame(64, 48, rtc.VideoBufferType.RGBA, bytes(64 * 48 * 4)))
        added = await _next(session, "remote_item_added")
        assert added.item.role == "user"


async def the_history_is_kept_in_step(visit: scenario.Visit) -> None:
    """`update_chat_ctx` adds, changes and deletes items; the mirror of it agrees afterwards."""
    async with _session(visit) as session:
        chat = llm.ChatContext.empty()
        chat.add_message(role="system", content="Be kind.")
        chat.add_message(role="user", content="What is the weather?", id="asked")
        chat.items.append(
            llm.FunctionCall(id="c1", call_id="call_1", name="weather", arguments="{}")
        )
        chat.items.append(
            llm.FunctionCallOutput(id="o1", call_id="call_1", output="sunny", is_error=False)
        )
        chat.add_message(role="assistant", content="It is sunny.", id="told")
        await session.update_chat_ctx(chat)
        assert [item.id for item in session.chat_ctx.items] == [item.id for item in chat.items]

        changed = chat.copy()
        changed.items = [item for item in changed.items if item.id not in ("c1", "o1")]
        changed.items[1] = llm.ChatMessage(id="asked", role="user", content=["And tomorrow?"])
        changed.add_message(role="user", content="Thank you.", id="thanks")
        await session.update_chat_ctx(changed)
        assert [item.id for item in session.chat_ctx.items] == [item.id for item in changed.items]
        assert session.chat_ctx.items[1].text_content == "And tomorrow?"
        await session.update_chat_ctx(llm.ChatContext.empty())
        assert session.chat_ctx.items == []


async def an_answer_is_interrupted_and_truncated(visit: scenario.Visit) -> None:
    """`interrupt()` and `truncate()` in the middle of an answer, and once more after it."""
    async with _session(visit) as session:
        chat = llm.ChatContext.empty()
        chat.add_message(role="user", content="This sentence is long enough. " * 12)
        await session.update_chat_ctx(chat)
        generation = await session.generate_reply()
        message = await anext(aiter(generation.message_stream))
        seconds = 0.0
        async for frame in message.audio_stream:
            seconds += frame.duration
            if seconds > 2.0:
                break
        session.interrupt()
        session.truncate(
            message_id=message.message_id, modalities=["audio", "text"], audio_end_ms=1500
        )
        async for frame in message.audio_stream:
            seconds += frame.duration
        assert seconds < 20.0
        session.interrupt()
        assert message.message_id in [item.id for item in session.chat_ctx.items]
        chat = session.chat_ctx.copy()
        chat.add_message(role="user", content="One two three.")
        await session.update_chat_ctx(chat)
        text, _ = await _heard(await session.generate_reply())
        assert "three" in text


async def an_unheard_answer_is_deleted(visit: scenario.Visit) -> None:
    """`truncate()` at 0 ms deletes the item while it is spoken; the next reply is unharmed."""
    async with _session(visit) as session:
        chat = llm.ChatContext.empty()
        chat.add_message(role="user", content="This sentence is long enough. " * 12)
        await session.update_chat_ctx(chat)
        generation = await session.generate_reply()
        message = await anext(aiter(generation.message_stream))
        await anext(aiter(message.audio_stream))
        session.interrupt()
        session.truncate(
            message_id=message.message_id, modalities=["audio", "text"], audio_end_ms=0
        )
        async for _ in message.audio_stream:
            pass
        generation = await session.generate_reply()
        assert (await _heard(generation))[1] > 1.0


async def options_change_in_mid_session(visit: scenario.Visit) -> None:
    """Voice, speed, tools, tool choice, turn detection and limits change; nothing is lost."""

    @function_tool
    async def weather(city: str) -> str:
        """The weather of a city."""
        return f"sunny in {city}"

    async with _session(visit) as session:
        chat = llm.ChatContext.empty()
        chat.add_message(role="user", content="One two three.", id="asked")
        await session.update_chat_ctx(chat)
        await session.update_tools([weather])
        session.update_options(voice="cedar", speed=1.0, tool_choice="auto")
        session.update_options(max_response_output_tokens=1000, input_audio_transcription=None)
        session.update_options(turn_detection=detection.ServerVad(type="server_vad"))
        session.update_options(turn_detection=None, tool_choice="required")
        session.update_options(
            input_audio_noise_reduction="near_field",
            tool_choice={"type": "function", "function": {"name": "weather"}},
        )
        session.update_options(tool_choice="none")
        text, _ = await _heard(await session.generate_reply())
        assert "three" in text
        assert [item.id for item in session.chat_ctx.items][0] == "asked"


async def turns_are_the_clients(visit: scenario.Visit) -> None:
    """Without turn detection: `clear_audio`, `push_audio`, `commit_audio`, `generate_reply`."""
    async with _session(visit, turn_detection=None) as session:
        session.push_audio(_frame(visit.voice))
        session.clear_audio()
        session.push_audio(_frame(visit.voice))
        session.commit_audio()
        _, seconds = await _heard(await session.generate_reply())
        assert 1.0 < seconds < len(visit.voice) / 2 / scenario.RATE + 0.2


class _Microphone(io.AudioInput):
    """Plays the voice at the speed of time, then silence for as long as it is asked."""

    def __init__(self, pcm: bytes) -> None:
        super().__init__(label="recording")
        self._pcm = pcm

    async def __anext__(self) -> rtc.AudioFrame:
        await asyncio.sleep(0.02)
        size = scenario.RATE // 50 * 2
        packet, self._pcm = self._pcm[:size], self._pcm[size:]
        return _frame(packet.ljust(size, b"\0"))


class _Speaker(io.AudioOutput):
    """Plays sound at the speed of time, by the clock alone."""

    def __init__(self) -> None:
        super().__init__(
            label="speaker", capabilities=io.AudioOutputCapabilities(pause=True), sample_rate=None
        )
        self.seconds = 0.0
        self.interruptions = 0
        self._segment_s = 0.0
        self._began = 0.0
        self._end: asyncio.TimerHandle | None = None

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self._segment_s:
            self._began = asyncio.get_running_loop().time()
            self.on_playback_started(created_at=time.time())
        self._segment_s += frame.duration
        self.seconds += frame.duration

    def flush(self) -> None:
        super().flush()
        loop = asyncio.get_running_loop()
        if self._segment_s:
            self._end = loop.call_at(self._began + self._segment_s, self._finish)

    def clear_buffer(self) -> None:
        if self._segment_s:
            self.interruptions += 1
            self._finish(asyncio.get_running_loop().time() - self._began)

    def _finish(self, position_s: float | None = None) -> None:
        if self._end is not None:
            self._end.cancel()
        segment_s, self._segment_s, self._end = self._segment_s, 0.0, None
        self.on_playback_finished(
            playback_position=segment_s if position_s is None else min(position_s, segment_s),
            interrupted=position_s is not None,
        )


@contextlib.asynccontextmanager
async def _agent(visit: scenario.Visit, microphone: _Microphone) -> AsyncIterator[Any]:
    """An `AgentSession` with this microphone and a speaker, without a room."""
    errors: list[Any] = []
    async with _model(visit) as model:
        speaker = _Speaker()
        session: AgentSession[None] = AgentSession(llm=model)
        session.on("error", lambda event: errors.append(event.error))
        session.input.audio = microphone
        session.output.audio = speaker
        await session.start(Agent(instructions="You are a friendly assistant."), record=False)
        yield session, speaker
        await scenario.until(lambda: session.agent_state in ("idle", "listening"))
        await session.aclose()
    assert errors == [], errors


async def an_agent_converses(visit: scenario.Visit) -> None:
    """An `AgentSession` says something, then hears a recorded voice and answers it."""
    async with _agent(visit, _Microphone(bytes(scenario.RATE * 6) + visit.voice)) as (
        session,
        speaker,
    ):
        await session.generate_reply(user_input="One two three.")
        said_s = speaker.seconds
        assert said_s > 0.5 and speaker.interruptions == 0
        await scenario.until(lambda: speaker.seconds >= said_s + 1.0)


async def an_agent_is_interrupted_by_speech(visit: scenario.Visit) -> None:
    """The user speaks into a long answer: the agent stops, truncates it, and answers the user."""
    async with _agent(visit, _Microphone(bytes(scenario.RATE * 4) + visit.voice)) as (
        session,
        speaker,
    ):
        await session.generate_reply(user_input="This sentence is long enough. " * 12)
        assert speaker.interruptions == 1
        said_s = speaker.seconds
        await scenario.until(lambda: speaker.seconds >= said_s + 1.0)
        roles = [item.role for item in session.history.items if item.type == "message"]
        assert roles.count("assistant") >= 1


if __name__ == "__main__":
    scenario.run(__name__)
