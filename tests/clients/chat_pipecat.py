"""Pipecat's OpenAI realtime service in a conversation: functions, transcripts, interruption."""

from __future__ import annotations

from typing import Any

import scenario
from pipecat.frames.frames import (
    FunctionCallResultFrame,
    LLMContextUserTurnFrame,
    LLMRunFrame,
    TTSTextFrame,
)
from pipecat.services.llm_service import FunctionCallParams
from pipecat.services.openai.realtime import events
from use_pipecat import Pipe, _answers, _pipe


def _said(pipe: Pipe) -> str:
    return "".join(frame.text for frame in pipe.after.all(TTSTextFrame))


async def a_function_is_run(visit: scenario.Visit) -> None:
    """The pipeline runs the function that the model calls, and the answer tells its result."""

    async def weather(call: FunctionCallParams) -> None:
        assert call.arguments == {"city": "Paris"}
        await call.result_callback("sunny")

    async with _pipe(visit, [{"role": "user", "content": "How is the weather?"}]) as pipe:
        pipe.service.register_function("weather", weather)
        await pipe.send(LLMRunFrame())
        await pipe.after.until(lambda: bool(pipe.after.all(FunctionCallResultFrame)))
        await pipe.after.until(lambda: "sunny" in _said(pipe) and _answers(pipe) > 0)
        assert pipe.after.audio_s > 0.5


async def a_voice_is_understood_and_answered(visit: scenario.Visit) -> None:
    """The user's words join the context, and the answer's come as text beside its sound."""
    transcription: Any = events.AudioConfiguration(
        input=events.AudioInput(transcription=events.InputAudioTranscription())
    )
    async with _pipe(visit, audio=transcription) as pipe:
        await pipe.speak(visit)
        await pipe.after.until(lambda: _answers(pipe) > 0)
        await pipe.before.until(lambda: bool(pipe.before.all(LLMContextUserTurnFrame)))
        [told] = pipe.before.all(LLMContextUserTurnFrame)
        assert told.text == "Hello. How do you do today?"
        assert "How do you do today" in _said(pipe)


async def speech_interrupts_an_answer(visit: scenario.Visit) -> None:
    """Speaking into an answer cancels and truncates it, and the user is answered."""
    async with _pipe(visit, [{"role": "user", "content": "Speak at length, please."}]) as pipe:
        await pipe.send(LLMRunFrame())
        await pipe.after.until(lambda: pipe.after.audio_s > 3.0)
        await pipe.speak(visit)
        await pipe.after.until(lambda: "How do you do" in _said(pipe))


if __name__ == "__main__":
    scenario.run(__name__)
