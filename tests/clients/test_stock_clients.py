"""Clients written for the OpenAI Realtime API work unchanged, and report no error.

The real packages are used: `openai`, `openai-agents`, Pipecat and LiveKit Agents. They pin another
release of websockets than the server needs, so they live in an environment of their own, whose
interpreter STOCK_CLIENTS_PYTHON names (`.ci/run` makes it from `requirements.txt` in this folder).
The server runs here, with the real dialogues and a renderer that takes no time.
"""

from __future__ import annotations

import ast
import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import FakeRenderer, fake_engine, real_dialogues, running, settings
from tests.recorded_voice import spoken, write_wav
from wsavatar.bench.server_process import ServerProcess
from wsavatar.serve.server import ENDPOINT

HERE = Path(__file__).parent
PYTHON = os.environ.get("STOCK_CLIENTS_PYTHON")
LIMIT_S = 90
"""A scenario gives up by itself long before; its imports may not."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PYTHON is None, reason="STOCK_CLIENTS_PYTHON names no interpreter"),
]


def scenarios() -> Iterator[tuple[str, str]]:
    """Every scenario of every script: its public coroutines."""
    for script in sorted(HERE.glob("use_*.py")):
        for node in ast.parse(script.read_text("utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
                yield script.stem, node.name


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence of about two seconds, PCM16 mono at 24 kHz."""
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    return write_wav(path, spoken("Hello. How do you do today?"))


@pytest.mark.parametrize(("script", "scenario"), list(scenarios()))
async def test_a_stock_client_works_unchanged(script: str, scenario: str, voice: Path) -> None:
    """What the scenario's docstring says; the client saw no error and no event it does not know."""
    assert PYTHON is not None
    engine = fake_engine(
        FakeRenderer(), create_dialogue=real_dialogues(tts={"engines": ("espeak",)})
    )
    async with running(engine, settings()) as server:
        url = f"ws://127.0.0.1:{server.port}{ENDPOINT}"
        process = await asyncio.create_subprocess_exec(
            *(PYTHON, str(HERE / f"{script}.py"), scenario, url, str(voice)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(LIMIT_S):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, output.decode(errors="replace")


@pytest.mark.parametrize(
    ("script", "scenario"),
    [
        ("use_livekit", "a_voice_is_answered"),
        ("use_openai", "a_conversation_by_voice"),
        ("use_openai_agents", "a_voice_is_answered"),
        ("use_pipecat", "a_voice_is_answered"),
    ],
)
def test_a_stock_client_talks_to_the_command(
    served: str, script: str, scenario: str, voice: Path
) -> None:
    """The same with `serve` as it comes: its own process, the model in the package, real frames."""
    visit = [str(PYTHON), str(HERE / f"{script}.py"), scenario, served, str(voice)]
    done = subprocess.run(visit, capture_output=True, text=True, timeout=LIMIT_S)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that the command line started."""
    log = tmp_path_factory.mktemp("server") / "log"
    with ServerProcess(["--set", "tts.engines=espeak"], log) as process:
        yield process.url
