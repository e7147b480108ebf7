"""LiveKit Agents' realtime model in a conversation: tools, instructions, transcripts."""

from __future__ import annotations

import asyncio
from typing import Any

import scenario
from livekit.agents import Agent, AgentSession, function_tool, llm
from openai.types.realtime import AudioTranscription
from use_livekit import _frame, _heard, _model, _next, _session, _Speaker


async def instructions_are_followed(visit: scenario.Visit) -> None:
    """`generate_reply(instructions=…)`: the answer follows them, and the next one does not."""
    async with _session(visit) as session:
        await session.update_instructions("You are a friendly assistant.")
        text, seconds = await _heard(await session.generate_reply(instructions="Greet the user."))
        assert "Welcome" in text and seconds > 0.5
        chat = session.chat_ctx.copy()
        chat.add_message(role="user", content="One two three.")
        await session.update_chat_ctx(chat)
        text, _ = await _heard(await session.generate_reply())
        assert "You said: One two three." in text


async def a_voice_is_understood_and_answered(visit: scenario.Visit) -> None:
    """`input_audio_transcription_completed` has the user's words; the answer is about them."""
    asked = AudioTranscription(model="whisper-1")
    async with _session(visit, input_audio_transcription=asked) as session:
        created = asyncio.create_task(_next(session, "generation_created"))
        finals: list[str] = []

        def told(event: llm.InputTranscriptionCompleted) -> None:
            if event.is_final:
                finals.append(event.transcript)

        session.on("input_audio_transcription_completed", told)
        await asyncio.sleep(0)
        for packet in visit.packets():
            session.push_audio(_frame(packet))
            await asyncio.sleep(0)
        text, seconds = await _heard(await created)
        assert "How do you do today" in text and seconds > 1.0
        assert finals == ["Hello. How do you do today?"]


class _Guide(Agent):
    def __init__(self) -> None:
        super().__init__(instructions="You are a friendly assistant.")
        self.cities: list[str] = []

    @function_tool
    async def get_weather(self, city: str) -> str:
        """The weather of a city."""
        self.cities.append(city)
        return f"sunny in {city}"


async def an_agent_uses_its_tool(visit: scenario.Visit) -> None:
    """`AgentSession` runs the tool that the model calls, and says its result."""
    errors: list[Any] = []
    async with _model(visit) as model:
        speaker, guide = _Speaker(), _Guide()
        session: AgentSession[None] = AgentSession(llm=model)
        session.on("error", lambda event: errors.append(event.error))
        session.output.audio = speaker
        await session.start(guide, record=False)
        await session.generate_reply(user_input="How is the weather?")
        assert guide.cities == ["Paris"]
        texts = [item.text_content for item in session.history.items if item.type == "message"]
        assert "I was told that it is sunny in Paris." in texts[-1], texts
        assert speaker.seconds > 0.5
        await session.generate_reply(instructions="Greet the user.")
        texts = [item.text_content for item in session.history.items if item.type == "message"]
        assert "Welcome" in texts[-1], texts
        await session.aclose()
    assert errors == [], errors


async def text_alone(visit: scenario.Visit) -> None:
    """`modalities=["text"]`: text comes and no sound, for agents with a voice of their own."""
    async with _session(visit, modalities=["text"]) as session:
        chat = llm.ChatContext.empty()
        chat.add_message(role="user", content="One two three.")
        await session.update_chat_ctx(chat)
        text, seconds = await _heard(await session.generate_reply())
        assert "You said: One two three." in text and seconds == 0.0


if __name__ == "__main__":
    scenario.run(__name__)
