"""Pipecat's OpenAI realtime service in a pipeline, with the context aggregators around it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import scenario
from loguru import logger
from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import (
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InputImageRawFrame,
    InterruptionFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesAppendFrame,
    LLMRunFrame,
    LLMSetToolsFrame,
    LLMUpdateSettingsFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
    TTSTextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.workers.runner import WorkerRunner

WEATHER = FunctionSchema(
    name="weather",
    description="The weather of a city.",
    properties={"city": {"type": "string"}},
    required=["city"],
)
LONG = "This sentence is long enough. " * 12


class Witness(FrameProcessor):
    """Keeps every frame that passes, up and down."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Frame] = []
        self._news = asyncio.Condition()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        async with self._news:
            self.log.append(frame)
            self._news.notify_all()
        await self.push_frame(frame, direction)

    def all(self, kind: type[Frame]) -> list[Any]:
        return [frame for frame in self.log if isinstance(frame, kind)]

    @property
    def audio_s(self) -> float:
        return sum(len(frame.audio) for frame in self.all(TTSAudioRawFrame)) / 2 / scenario.RATE

    async def until(self, happened: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(happened)


class Pipe:
    """A running pipeline: user aggregator, realtime service, assistant aggregator."""

    def __init__(self, visit: scenario.Visit, context: LLMContext, **session: Any) -> None:
        self.service = OpenAIRealtimeLLMService(
            api_key="any",
            base_url=visit.url,
            settings=OpenAIRealtimeLLMService.Settings(
                system_instruction="You are a friendly assistant.",
                session_properties=events.SessionProperties(**session),
            ),
        )
        pair = LLMContextAggregatorPair(context)
        self.before, self.after = Witness(), Witness()
        self.worker = PipelineWorker(
            Pipeline([self.before, pair.user(), self.service, self.after, pair.assistant()]),
            cancel_on_idle_timeout=False,
        )
        self.items: dict[str, Any] = {}
        self.service.add_event_handler("on_conversation_item_created", self._created)

    async def _created(self, service: Any, item_id: str, item: Any) -> None:
        self.items[item_id] = item

    async def send(self, *frames: Frame) -> None:
        await self.worker.queue_frames(list(frames))

    async def say(self, pcm: bytes) -> None:
        await self.send(InputAudioRawFrame(pcm, scenario.RATE, 1))

    async def speak(self, visit: scenario.Visit) -> int:
        """The user speaks. Returns how many answers there were before the turn's end.

        That end is sent once the turn's beginning has gone through the pipeline, where it throws
        away whatever is on its way: the turn's own transcript too, if it came so soon.
        """
        packets = list(visit.packets())
        middle = len(visit.voice) // len(packets[0]) // 2
        before = len(self.after.all(InterruptionFrame))
        for packet in packets[:middle]:
            await self.say(packet)
        await self.after.until(lambda: len(self.after.all(InterruptionFrame)) > before)
        answers = _answers(self)
        for packet in packets[middle:]:
            await self.say(packet)
        return answers


@contextlib.asynccontextmanager
async def _pipe(
    visit: scenario.Visit, messages: list[Any] | None = None, **session: Any
) -> AsyncIterator[Pipe]:
    """A pipeline with this context; fails where a frame or the log tells of an error."""
    complaints: list[str] = []
    logger.remove()
    logger.add(
        lambda line: complaints.append(str(line)),
        level="WARNING",
        filter=lambda record: "is not emitting turn frames" not in record["message"],
    )
    context = LLMContext(messages or [], tools=ToolsSchema([WEATHER]))
    pipe = Pipe(visit, context, **session)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(pipe.worker)
    running = asyncio.create_task(runner.run())
    try:
        yield pipe
        await asyncio.sleep(0.3)  # what is still on its way is looked at too
    finally:
        await pipe.send(EndFrame())
        await running
    told = [str(frame.error)[:600] for frame in pipe.before.all(ErrorFrame)]
    assert told == [], told
    assert complaints == [], "".join(complaints)


def _answers(pipe: Pipe) -> int:
    return len(pipe.after.all(TTSStoppedFrame))


def _has_answered(pipe: Pipe, begun: int) -> bool:
    """Whether an answer after the first ``begun`` ones began, was heard and ended.

    The ends of an interrupted answer, of which the service tells twice, come before that.
    """
    log = pipe.after.log
    starts = [n for n, frame in enumerate(log) if isinstance(frame, LLMFullResponseStartFrame)]
    if len(starts) <= begun:
        return False
    since = {type(frame) for frame in log[starts[begun] :]}
    return {TTSAudioRawFrame, LLMFullResponseEndFrame} <= since


async def a_voice_is_answered(visit: scenario.Visit) -> None:
    """Recorded voice goes in as frames; the service proposes turns, and sound comes out."""
    async with _pipe(visit) as pipe:
        await pipe.speak(visit)
        await pipe.after.until(lambda: _answers(pipe) > 0)
        assert pipe.after.audio_s > 1.0
        assert pipe.after.all(UserStartedSpeakingFrame)


async def a_context_is_answered(visit: scenario.Visit) -> None:
    """The context's messages become items, and `LLMRunFrame` asks for an answer."""
    messages = [{"role": "user", "content": "One two three."}]
    async with _pipe(visit, messages) as pipe:
        await pipe.send(LLMRunFrame())
        await pipe.after.until(lambda: _answers(pipe) > 0)
        assert pipe.after.audio_s > 0.5
        assert "three" in "".join(frame.text for frame in pipe.after.all(TTSTextFrame))


async def items_are_retrieved(visit: scenario.Visit) -> None:
    """`retrieve_conversation_item` gives an item, and raises where there is none."""
    async with _pipe(visit, [{"role": "user", "content": "One two three."}]) as pipe:
        await pipe.send(LLMRunFrame())
        await pipe.after.until(lambda: _answers(pipe) > 0)
        assert [item.role for item in pipe.items.values()] == ["user", "assistant"]
        for item_id in pipe.items:
            assert (await pipe.service.retrieve_conversation_item(item_id)).id == item_id
        try:
            await pipe.service.retrieve_conversation_item("never")
        except Exception as error:
            assert "never" in str(error)
        else:
            raise AssertionError("an unknown item was retrieved")


async def a_picture_is_shown(visit: scenario.Visit) -> None:
    """A frame of the user's camera becomes an item."""
    async with _pipe(visit) as pipe:
        await pipe.speak(visit)
        await pipe.after.until(lambda: _answers(pipe) > 0)
        before = len(pipe.items)
        await pipe.send(InputImageRawFrame(image=bytes(64 * 48 * 3), size=(64, 48), format="RGB"))
        await scenario.until(lambda: len(pipe.items) > before)


async def an_answer_is_interrupted(visit: scenario.Visit) -> None:
    """Speaking into an answer cancels and truncates it; the next turn is answered."""
    async with _pipe(visit, [{"role": "user", "content": LONG}]) as pipe:
        await pipe.send(LLMRunFrame())
        await pipe.after.until(lambda: pipe.after.audio_s > 2.0)
        answers = await pipe.speak(visit)
        await pipe.after.until(lambda: _answers(pipe) > answers)


async def turns_are_the_pipelines(visit: scenario.Visit) -> None:
    """Turn detection off: the pipeline interrupts, clears, commits and asks for itself."""
    audio = events.AudioConfiguration(input=events.AudioInput(turn_detection=False))
    async with _pipe(visit, [{"role": "user", "content": LONG}], audio=audio) as pipe:
        await pipe.send(LLMRunFrame())
        await pipe.after.until(lambda: pipe.after.audio_s > 2.0)
        begun = len(pipe.after.all(LLMFullResponseStartFrame))
        await pipe.send(UserStartedSpeakingFrame(), InterruptionFrame())
        await pipe.say(visit.voice)
        await pipe.send(UserStoppedSpeakingFrame())
        await pipe.after.until(lambda: _has_answered(pipe, begun))
        await pipe.send(InterruptionFrame())  # nothing is said now: a cancel of nothing


async def the_session_changes(visit: scenario.Visit) -> None:
    """Settings, tools and messages change in mid-session."""
    async with _pipe(visit, [{"role": "user", "content": "One two three."}]) as pipe:
        await pipe.send(LLMRunFrame())
        await pipe.after.until(lambda: _answers(pipe) > 0)
        await pipe.send(
            LLMUpdateSettingsFrame(
                delta=OpenAIRealtimeLLMService.Settings(
                    session_properties=events.SessionProperties(
                        instructions="Be brief.",
                        max_output_tokens=500,
                        tool_choice="none",
                        audio=events.AudioConfiguration(
                            input=events.AudioInput(
                                format=events.PCMAudioFormat(),
                                transcription=events.InputAudioTranscription(),
                                noise_reduction=events.InputAudioNoiseReduction(type="near_field"),
                                turn_detection=events.SemanticTurnDetection(eagerness="high"),
                            ),
                            output=events.AudioOutput(voice="marin", speed=1.0),
                        ),
                    )
                )
            ),
            LLMSetToolsFrame(tools=ToolsSchema([])),
        )
        news = [{"role": "system", "content": "The user has left the page and come back."}]
        await pipe.service.queue_frame(LLMMessagesAppendFrame(messages=news, run_llm=True))
        await pipe.after.until(lambda: _answers(pipe) > 1)


if __name__ == "__main__":
    scenario.run(__name__)
