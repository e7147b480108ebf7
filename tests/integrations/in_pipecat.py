"""`WsavatarVideoService` in a real Pipecat pipeline, before a transport that plays in real time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from loguru import logger
from pipecat.frames.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    EndFrame,
    ErrorFrame,
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    OutputAudioRawFrame,
    OutputImageRawFrame,
    StartFrame,
    TTSAudioRawFrame,
    TTSSpeakFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams
from pipecat.workers.runner import WorkerRunner

from tests.clients import scenario
from wsavatar.integrations.pipecat import WsavatarVideoService


class Voice(TTSService):
    """Says a recording, faster than it is heard, whatever the text."""

    def __init__(self, pcm: bytes, rate: int = scenario.RATE) -> None:
        super().__init__(
            sample_rate=rate,
            push_stop_frames=True,
            push_start_frame=True,
            settings=TTSSettings(model=None, voice=None, language=None),
        )
        self._pcm = pcm

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        step = self.sample_rate // 10 * 2
        for at in range(0, len(self._pcm), step):
            await asyncio.sleep(0.005)
            yield TTSAudioRawFrame(
                self._pcm[at : at + step], self.sample_rate, 1, context_id=context_id
            )


@dataclass
class Screen(BaseOutputTransport):
    """A transport that plays at the speed of sound, and notes what was played and drawn when."""

    def __init__(self) -> None:
        super().__init__(
            TransportParams(
                audio_out_enabled=True,
                audio_out_end_silence_secs=0,
                video_out_enabled=True,
                video_out_width=32,
                video_out_height=32,
                video_out_framerate=25,
            )
        )
        self.sound: list[tuple[float, bytes]] = []
        self.pictures: list[tuple[float, int]] = []  # time, grey
        self._until_s = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        now_s = time.monotonic()
        self.sound.append((now_s, frame.audio))
        self._until_s = max(now_s, self._until_s) + len(frame.audio) / 2 / self.sample_rate
        await asyncio.sleep(max(0.0, self._until_s - now_s))
        return True

    async def write_video_frame(self, frame: OutputImageRawFrame) -> bool:
        assert len(frame.image) == 32 * 32 * 3
        self.pictures.append((time.monotonic(), frame.image[0]))
        return True

    @property
    def pcm(self) -> bytes:
        return b"".join(audio for _, audio in self.sound)


class Witness(FrameProcessor):
    """Keeps every frame that passes."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        self.log.append(frame)
        await self.push_frame(frame, direction)

    def all(self, *kinds: type[Frame]) -> list[Any]:
        return [frame for frame in self.log if isinstance(frame, kinds)]


@dataclass
class Pipe:
    """A running pipeline: voice, avatar, witness, screen."""

    voice: FrameProcessor
    avatar: WsavatarVideoService
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before, self.seen, self.screen = Witness(), Witness(), Screen()
        self.after = Witness()
        stages = [self.before, self.voice, self.avatar, self.seen, self.screen, self.after]
        self.worker = PipelineWorker(
            Pipeline(stages),
            params=PipelineParams(audio_in_sample_rate=scenario.RATE, audio_out_sample_rate=24_000),
            cancel_on_idle_timeout=False,
        )

    async def send(self, *frames: Frame) -> None:
        await self.worker.queue_frames(list(frames))


@contextlib.asynccontextmanager
async def _pipe(pipe: Pipe, *, complaints: int = 0) -> AsyncIterator[Pipe]:
    """Run it to its end. Fails where an error was told, or the log warns."""
    told: list[str] = []
    logger.remove()
    logger.add(lambda line: told.append(str(line)), level="WARNING")
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(pipe.worker)
    running = asyncio.create_task(runner.run())
    try:
        yield pipe
    finally:
        await pipe.send(EndFrame())
        await running
    pipe.errors = [str(frame.error) for frame in pipe.before.all(ErrorFrame)]
    assert len(pipe.errors) == complaints, pipe.errors
    assert len(told) == 2 * complaints, "".join(told)  # by the service, and by the pipeline


def _contains(heard: bytes, said: bytes) -> bool:
    """Whether all that was said was heard, sample for sample."""
    return heard.find(said.rstrip(b"\0")) >= 0


async def a_text_is_said_with_a_face(visit: scenario.Visit) -> None:
    """Idle pictures, then voice with a picture every 40 ms in step, then idle pictures; every
    sample of the voice is played, and the bot's speaking is told in order."""
    pipe = Pipe(Voice(visit.voice), WsavatarVideoService(visit.url))
    async with _pipe(pipe):
        await scenario.until(lambda: len(pipe.screen.pictures) > 10)
        assert (
            pipe.screen.sound == [] and not pipe.seen.all(OutputImageRawFrame)[-1].sync_with_audio
        )
        await pipe.send(TTSSpeakFrame("Hello."))
        await scenario.until(lambda: bool(pipe.after.all(TTSStoppedFrame)))
        await asyncio.sleep(0.5)
    assert _contains(pipe.screen.pcm, visit.voice)
    log = pipe.seen.all(OutputImageRawFrame, TTSAudioRawFrame, TTSStoppedFrame)
    spoken = [frame for frame in log if not isinstance(frame, TTSStoppedFrame)]
    in_step = [frame.sync_with_audio for frame in spoken if isinstance(frame, OutputImageRawFrame)]
    slots = len(visit.voice) / 2 / scenario.RATE * 25
    assert abs(in_step.count(True) - slots) <= 1, (in_step.count(True), slots)
    first = in_step.index(True)
    assert in_step[first : first + in_step.count(True)] == [True] * in_step.count(True)
    for image, sound in zip(spoken, spoken[1:], strict=False):
        if isinstance(sound, TTSAudioRawFrame):
            assert isinstance(image, OutputImageRawFrame) and image.sync_with_audio
    assert isinstance(log[-1], OutputImageRawFrame)
    kinds = [type(f) for f in pipe.after.all(BotStartedSpeakingFrame, BotStoppedSpeakingFrame)]
    assert kinds == [BotStartedSpeakingFrame, BotStoppedSpeakingFrame]


async def the_end_waits_for_the_speech(visit: scenario.Visit) -> None:
    """`EndFrame` right behind the text: all of it is heard before the pipeline ends."""
    pipe = Pipe(Voice(visit.voice), WsavatarVideoService(visit.url))
    async with _pipe(pipe):
        await scenario.until(lambda: len(pipe.screen.pictures) > 2)
        await pipe.send(TTSSpeakFrame("Hello."))
    assert _contains(pipe.screen.pcm, visit.voice)


async def texts_keep_their_place(visit: scenario.Visit) -> None:
    """Two texts in a row: each one's words and end come behind its own voice."""
    pipe = Pipe(Voice(visit.voice), WsavatarVideoService(visit.url))
    async with _pipe(pipe):
        await scenario.until(lambda: len(pipe.screen.pictures) > 2)
        await pipe.send(TTSSpeakFrame("One."), TTSSpeakFrame("Two."))
    log = pipe.seen.all(TTSAudioRawFrame, TTSStoppedFrame, TTSTextFrame)
    size = 0
    places: dict[str, list[int]] = {"stop": [], "text": []}
    for frame in log:
        if isinstance(frame, TTSAudioRawFrame):
            size += len(frame.audio)
        else:
            places["stop" if isinstance(frame, TTSStoppedFrame) else "text"].append(size)
    whole = len(visit.voice)
    assert places["stop"] == [whole, 2 * whole], places
    assert len(places["text"]) == 2 and places["text"][1] >= whole, places
    contexts = [frame.context_id for frame in log if isinstance(frame, TTSAudioRawFrame)]
    assert len(set(contexts)) == 2 and contexts == sorted(contexts, key=contexts.index)


async def an_interruption_silences_it(visit: scenario.Visit) -> None:
    """`InterruptionFrame`: 200 ms more of sound at most; the face rests, the next text is said."""
    pipe = Pipe(Voice(visit.voice * 5), WsavatarVideoService(visit.url))
    async with _pipe(pipe):
        await scenario.until(lambda: len(pipe.screen.pictures) > 2)
        await pipe.send(TTSSpeakFrame("A long one."))
        await scenario.until(lambda: len(pipe.screen.sound) > 30)
        before, shown = len(pipe.screen.pcm), len(pipe.screen.pictures)
        await pipe.send(InterruptionFrame())
        await asyncio.sleep(1.0)
        heard = len(pipe.screen.pcm)
        more_s = (heard - before) / 2 / 24_000
        assert more_s < 0.2, more_s
        await scenario.until(lambda: len(pipe.screen.pictures) > shown + 15)
        assert len(pipe.screen.pcm) == heard
        await pipe.send(TTSSpeakFrame("The next one."))
        await scenario.until(lambda: len(pipe.screen.pcm) > heard + len(visit.voice))
        begins = pipe.screen.pcm[heard : heard + len(visit.voice) // 2]
        assert begins == (visit.voice * 2)[: len(begins)]
        await pipe.send(InterruptionFrame())
    assert len(pipe.after.all(BotStoppedSpeakingFrame)) == 2


async def another_rate_is_converted(visit: scenario.Visit) -> None:
    """A voice at 16 kHz has its face too, and its duration is right."""
    narrow = np.frombuffer(visit.voice, "<i2")[::3].repeat(2).tobytes()  # the pitch does not matter
    pipe = Pipe(Voice(narrow, 16_000), WsavatarVideoService(visit.url))
    async with _pipe(pipe):
        await scenario.until(lambda: len(pipe.screen.pictures) > 2)
        await pipe.send(TTSSpeakFrame("Hello."))
    seconds = len(narrow) / 2 / 16_000
    assert abs(len(pipe.screen.pcm) / 2 / 24_000 - seconds) < 0.1
    synced = [f for f in pipe.seen.all(OutputImageRawFrame) if f.sync_with_audio]
    assert abs(len(synced) - 25 * seconds) <= 2


async def without_a_server_the_voice_goes_on(visit: scenario.Visit) -> None:
    """The error is told once, in words, and the voice is played without a face."""
    dead = visit.url.replace("127.0.0.1", "127.0.0.2").rpartition(":")[0] + ":1/v1/realtime"
    pipe = Pipe(Voice(visit.voice), WsavatarVideoService(dead, start_timeout_s=0.5))
    async with _pipe(pipe, complaints=1):
        await asyncio.sleep(1.0)
        await pipe.send(TTSSpeakFrame("Hello."))
        await scenario.until(lambda: bool(pipe.after.all(TTSStoppedFrame)))
    assert _contains(pipe.screen.pcm, visit.voice)
    assert "goes on without a face" in pipe.errors[0], pipe.errors


async def a_realtime_model_gets_a_face(visit: scenario.Visit) -> None:
    """Pipecat's OpenAI realtime service, here on the same server, speaks through the avatar; the
    user's speech into the answer silences it."""
    service = OpenAIRealtimeLLMService(api_key="any", base_url=visit.url)
    pipe = Pipe(service, WsavatarVideoService(visit.url))
    async with _pipe(pipe):
        await scenario.until(lambda: len(pipe.screen.pictures) > 2)
        for packet in visit.packets():
            await pipe.send(InputAudioRawFrame(packet, scenario.RATE, 1))
        await scenario.until(lambda: bool(pipe.after.all(BotStoppedSpeakingFrame)))
    synced = [f for f in pipe.seen.all(OutputImageRawFrame) if f.sync_with_audio]
    assert len(synced) > 25
    assert len(pipe.screen.pcm) / 2 / 24_000 > 1.0


if __name__ == "__main__":
    scenario.run(__name__)
