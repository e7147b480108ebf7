"""Stock clients, unmodified, in front of a server in mode upstream.

Two servers of ours: the one that the client sees adds the face, and the one behind it converses, as
a parrot. Both are real, with real sockets, voice activity and voice; frames take no time.
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

ESPEAK = {"engines": ("espeak",)}
PARROTS = {"text_only", "settings_of_other_kinds"}
"""Of what a parrot refuses before anybody is asked."""
SHORT = {"a_voice_is_answered", "an_answer_is_interrupted", "the_session_changes"}
"""Of clients other than `openai`, what shows the way through."""


def _name(value: object) -> str:
    return value.stem if isinstance(value, Path) else str(value)


@pytest.fixture(scope="module")
def faults(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[Path, str], str]:
    """What was wrong in each scenario that is to be run, all against one pair of servers."""
    wanted = selected(request, "test_a_stock_client_works_unchanged")
    path = tmp_path_factory.mktemp("voice") / "voice.wav"
    voice = write_wav(path, spoken("Hello. How do you do today?"))

    async def visit() -> dict[tuple[Path, str], str]:
        parrot = fake_engine(FakeRenderer(), create_dialogue=real_dialogues(tts=ESPEAK))
        async with running(parrot, settings(dialogue={"mode": "parrot"})) as behind:
            given = {"url": f"ws://127.0.0.1:{behind.port}{ENDPOINT}"}
            dialogues = real_dialogues(tts=ESPEAK, upstream=given)
            face = fake_engine(FakeRenderer(), create_dialogue=dialogues)
            async with running(face, settings(upstream=given)) as server:
                return await run_scripts(wanted, f"ws://127.0.0.1:{server.port}{ENDPOINT}", voice)

    return asyncio.run(visit())


@pytest.mark.parametrize(
    ("script", "scenario"),
    [
        (script, name)
        for script, name in scenarios(HERE.glob("use_*.py"))
        if name in SHORT or (script.stem == "use_openai" and name not in PARROTS)
    ],
    ids=_name,
)
def test_a_stock_client_works_unchanged(
    script: Path, scenario: str, faults: dict[tuple[Path, str], str]
) -> None:
    """What the scenario's docstring says, though another server converses."""
    fault = faults[script, scenario]
    assert not fault, fault
