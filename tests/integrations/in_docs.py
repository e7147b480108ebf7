"""The Python code of docs/integrate.md, taken from there and run. Only the address is another."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.clients import scenario

DOCUMENT = Path(__file__).parents[2] / "docs" / "integrate.md"


def _block(visit: scenario.Visit, word: str) -> str:
    """The only block of Python with this word in it."""
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    [block] = [one for one in blocks if word in one]
    return block.replace("ws://127.0.0.1:8765/v1", visit.base_url)


def _names(block: str, **given: Any) -> dict[str, Any]:
    """What the block defines, with these names there before."""
    exec(compile(block, str(DOCUMENT), "exec"), given)
    return given


async def _program(block: str) -> str:
    """What a whole program prints."""
    run = [sys.executable, "-c", block]
    done = await asyncio.to_thread(subprocess.run, run, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def the_openai_package(visit: scenario.Visit) -> None:
    """It prints what the avatar says."""
    assert "Hello there." in await _program(_block(visit, "AsyncOpenAI"))


async def the_agents_sdk(visit: scenario.Visit) -> None:
    """It ends when the answer has ended."""
    await _program(_block(visit, "RealtimeRunner"))


async def pipecats_pipeline(visit: scenario.Visit) -> None:
    """The avatar stands in the pipeline, and so it speaks with a face."""
    from pipecat.frames.frames import EndFrame, OutputImageRawFrame, TTSSpeakFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.workers.runner import WorkerRunner

    from tests.integrations.in_pipecat import Screen, Voice, Witness

    screen, seen = Screen(), Witness()
    names = _names(
        _block(visit, "WsavatarVideoService"),
        Pipeline=Pipeline,
        transport=SimpleNamespace(input=Witness, output=lambda: screen),
        aggregators=SimpleNamespace(user=Witness, assistant=lambda: seen),
        stt=Witness(),
        llm=Witness(),
        tts=Voice(visit.voice),
    )
    worker = PipelineWorker(names["pipeline"], cancel_on_idle_timeout=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await scenario.until(lambda: len(screen.pictures) > 2)
    await worker.queue_frames([TTSSpeakFrame("Hello."), EndFrame()])
    await running
    assert len(screen.pcm) >= len(visit.voice)
    assert any(frame.sync_with_audio for frame in seen.all(OutputImageRawFrame))


async def pipecats_model(visit: scenario.Visit) -> None:
    """The service is made as the page says."""
    assert "llm" in _names(_block(visit, "OpenAIRealtimeLLMService"))


async def livekits_agent(visit: scenario.Visit) -> None:
    """The entrypoint runs with the realtime model of the page, and its reply is seen."""
    import aiohttp
    from livekit.agents import AgentSession

    from tests.integrations.in_livekit import Room, _capturing

    class WithoutRoom(AgentSession[Any]):
        """There is no server of rooms here: only what the avatar publishes."""

        async def start(self, agent: Any, *, room: Any) -> Any:
            return await super().start(agent, record=False)

    async with aiohttp.ClientSession() as http:
        block = _block(visit, "RealtimeModel(").replace("RealtimeModel(", "RealtimeModel(**more, ")
        model = _names(block, more={"http_session": http})["model"]
        names = _names(_block(visit, "AvatarSession"), model=model)
        names["AgentSession"] = WithoutRoom
        with _capturing() as captured:
            await names["entrypoint"](SimpleNamespace(room=Room()))
            assert captured.seconds > 0.3 and len(captured.pictures) > 5


async def another_program(visit: scenario.Visit) -> None:
    """All of the voice is played, and a picture is shown for every 40 ms of it."""
    names = _names(_block(visit, "async def speak"))
    pictures: list[Any] = []
    played = io.BytesIO()
    with contextlib.redirect_stderr(io.StringIO()):
        await names["speak"](visit.voice, pictures.append, played.write)
    assert played.getvalue() == visit.voice
    assert len(pictures) >= 25 * len(visit.voice) / 2 / scenario.RATE


if __name__ == "__main__":
    scenario.run(__name__)
