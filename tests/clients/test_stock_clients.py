"""Clients written for the OpenAI Realtime API work unchanged, and report no error.

The real packages are used: `openai`, `openai-agents`, Pipecat and LiveKit Agents (`scripts` says
where they live). The server runs here, with the real dialogues and a renderer that takes no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.scripts import needs_clients, run_scripts, scenarios, selected
from tests.helpers import FakeRenderer, fake_engine, real_dialogues, running, settings
from tests.recorded_voice import spoken, write_wav
from wsavatar.bench.server_process import ServerProcess
from wsavatar.serve.server import ENDPOINT

HERE = Path(__file__).parent

pytestmark = [pytest.mark.slow, needs_clients]


def _name(value: object) -> str:
    return value.stem if isinstance(value, Path) else str(value)


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence of about two seconds, PCM16 mono at 24 kHz."""
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    return write_wav(path, spoken("Hello. How do you do today?"))


@pytest.fixture(scope="module")
def faults(request: pytest.FixtureRequest, voice: Path) -> dict[tuple[Path, str], str]:
    """What was wrong in each scenario that is to be run, all against one server."""
    wanted = selected(request, "test_a_stock_client_works_unchanged")

    async def visit() -> dict[tuple[Path, str], str]:
        dialogues = real_dialogues(tts={"engines": ("espeak",)})
        async with running(
            fake_engine(FakeRenderer(), create_dialogue=dialogues), settings()
        ) as server:
            return await run_scripts(wanted, f"ws://127.0.0.1:{server.port}{ENDPOINT}", voice)

    return asyncio.run(visit())


@pytest.mark.parametrize(("script", "scenario"), list(scenarios(HERE.glob("use_*.py"))), ids=_name)
def test_a_stock_client_works_unchanged(
    script: Path, scenario: str, faults: dict[tuple[Path, str], str]
) -> None:
    """What the scenario's docstring says; the client saw no error and no event it does not know."""
    fault = faults[script, scenario]
    assert not fault, fault


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that the command line started."""
    log = tmp_path_factory.mktemp("server") / "log"
    with ServerProcess(["--set", "tts.engines=espeak"], log) as process:
        yield process.url


async def test_stock_clients_talk_to_the_command(served: str, voice: Path) -> None:
    """The same with `serve` as it comes: its own process, the model in the package, real frames."""
    wanted = {
        HERE / "use_livekit.py": ["a_voice_is_answered"],
        HERE / "use_openai.py": ["a_conversation_by_voice"],
        HERE / "use_openai_agents.py": ["a_voice_is_answered"],
        HERE / "use_pipecat.py": ["a_voice_is_answered"],
    }
    faults = await run_scripts(wanted, served, voice)
    assert not any(faults.values()), "\n".join(faults.values())
