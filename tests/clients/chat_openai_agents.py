"""The OpenAI Agents SDK in a conversation: tools that it runs, transcripts, interruption."""

from __future__ import annotations

from typing import Any

import scenario
from use_openai_agents import Talk, _talk


def _texts(talk: Talk, role: str) -> list[str]:
    """What this side said, from the newest history."""
    last = [event for event in talk.log if event.type == "history_updated"][-1]
    found = []
    for item in last.history:
        if item.type == "message" and item.role == role:
            for part in item.content:
                text = getattr(part, "transcript", None) or getattr(part, "text", None)
                found.append((text or "").strip())
    return found


async def a_tool_is_run(visit: scenario.Visit) -> None:
    """The SDK runs the function that the model calls, sends its result, and hears the answer."""
    async with _talk(visit) as talk:
        await talk.session.send_message("How is the weather?")
        await talk.until(lambda: talk.count("tool_end") > 0)
        [ended] = [event for event in talk.log if event.type == "tool_end"]
        assert ended.output == "sunny in Paris", ended
        await talk.until(lambda: talk.count("agent_end") > 1)
        assert any("told that it is sunny in Paris" in text for text in _texts(talk, "assistant"))
        assert talk.audio_s > 0.5


async def a_voice_is_understood_and_answered(visit: scenario.Visit) -> None:
    """The user's words stand in the history, and the answer is about them."""
    settings: Any = {"input_audio_transcription": {"model": "whisper-1"}}
    async with _talk(visit, **settings) as talk:
        for packet in visit.packets():
            await talk.session.send_audio(packet)
        await talk.until(lambda: talk.count("agent_end") > 0)
        await talk.until(lambda: "Hello. How do you do today?" in _texts(talk, "user"))
        assert "You said: Hello. How do you do today?" in _texts(talk, "assistant")


async def speech_interrupts_an_answer(visit: scenario.Visit) -> None:
    """Speaking into an answer interrupts it; the SDK truncates; the user is answered."""
    async with _talk(visit) as talk:
        await talk.session.send_message("Speak at length, please.")
        await talk.until(lambda: talk.audio_s > 3.0)
        for packet in visit.packets():
            await talk.session.send_audio(packet)
        await talk.until(lambda: talk.count("agent_end") > 1)
        assert talk.count("audio_interrupted") >= 1
        await talk.until(lambda: any("How do you do" in one for one in _texts(talk, "assistant")))


async def text_alone(visit: scenario.Visit) -> None:
    """`output_modalities: ["text"]`: the answer is text, and there is no sound."""
    async with _talk(visit, output_modalities=["text"]) as talk:
        await talk.session.send_message("One two three.")
        await talk.until(lambda: talk.count("agent_end") > 0)
        assert talk.count("audio") == 0
        await talk.until(lambda: "You said: One two three." in _texts(talk, "assistant"))


if __name__ == "__main__":
    scenario.run(__name__)
