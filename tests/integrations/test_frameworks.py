"""`wsavatar.integrations.pipecat` and `.livekit` with the real packages.

They run in the stock clients' environment, which has none of the server's dependencies: an agent
needs only its framework beside this package.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.clients.scripts import needs_clients, run_scripts, scenarios, selected
from tests.helpers import FakeRenderer, fake_engine, real_dialogues, running, settings
from tests.recorded_voice import spoken, write_wav
from wsavatar.serve.server import ENDPOINT

HERE = Path(__file__).parent

pytestmark = [pytest.mark.slow, needs_clients]


@pytest.fixture(scope="module")
def faults(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[Path, str], str]:
    """What was wrong in each scenario that is to be run, all against one server."""
    wanted = selected(request, "test_the_avatar_in_a_framework")
    wav = tmp_path_factory.mktemp("voice") / "voice.wav"
    voice = write_wav(wav, spoken("Hello. How do you do today?"))

    async def visit() -> dict[tuple[Path, str], str]:
        dialogues = real_dialogues(tts={"engines": ("espeak",)})
        async with running(
            fake_engine(FakeRenderer(), create_dialogue=dialogues), settings()
        ) as server:
            return await run_scripts(wanted, f"ws://127.0.0.1:{server.port}{ENDPOINT}", voice)

    return asyncio.run(visit())


@pytest.mark.parametrize(
    ("script", "scenario"),
    list(scenarios(HERE.glob("in_*.py"))),
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_the_avatar_in_a_framework(
    script: Path, scenario: str, faults: dict[tuple[Path, str], str]
) -> None:
    """What the scenario's docstring says."""
    fault = faults[script, scenario]
    assert not fault, fault
