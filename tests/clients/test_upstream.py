"""Stock clients, unmodified, in front of a server in mode upstream.

Two servers of ours: the one that the client sees adds the face, the one behind it converses, as a
parrot or with a language model that follows `rules`. Both are real, with real sockets, voice
activity and voice; frames take no time.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.clients import rules
from tests.clients.scripts import Faults, Job, name_of, needs, run_jobs, scenarios, selected
from tests.clients.test_stock_clients import conversation, parrot
from tests.fake_renderer import FakeRenderer
from tests.helpers import fake_engine, real_dialogues, running, settings
from tests.recorded_voice import spoken, write_wav
from wsavatar.serve.server import ENDPOINT

HERE = Path(__file__).parent
PARROTS = {"text_only", "settings_of_other_kinds"}
"""Of what a parrot refuses before anybody is asked."""
SHORT = {"a_voice_is_answered", "an_answer_is_interrupted", "the_session_changes"}
"""Of clients other than `openai`, what shows the way through."""

pytestmark = pytest.mark.slow


@contextlib.asynccontextmanager
async def in_front_of(url: str) -> AsyncIterator[str]:
    """The address of a server that gives the one at ``url`` a face."""
    tts, given = {"engines": ("espeak",)}, {"url": url}
    dialogues = real_dialogues(tts=tts, upstream=given)
    engine = fake_engine(FakeRenderer(), create_dialogue=dialogues)
    async with running(engine, settings(tts=tts, upstream=given)) as server:
        yield f"ws://127.0.0.1:{server.port}{ENDPOINT}"


@pytest.fixture(scope="module")
def faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Faults:
    """What was wrong in each scenario that is to be run."""
    wanted = selected(request, "test_a_stock_client_gets_a_face")
    voice = write_wav(tmp_path_factory.mktemp("voice") / "voice.wav", spoken(rules.SENTENCE))

    async def visit() -> Faults:
        async with (
            parrot() as repeats,
            conversation() as answers,
            in_front_of(repeats) as simple,
            in_front_of(answers) as talks,
        ):
            urls = {"use": simple, "chat": talks}
            return await run_jobs(
                Job(script, names, urls[script.stem.partition("_")[0]], voice)
                for script, names in wanted.items()
            )

    return asyncio.run(visit())


@pytest.mark.parametrize(
    ("script", "scenario"),
    [
        (script, name)
        for script, name in scenarios([*HERE.glob("use_*.py"), *HERE.glob("chat_openai.py")])
        if name in SHORT or (script.stem.endswith("_openai") and name not in PARROTS)
    ],
    ids=name_of,
)
def test_a_stock_client_gets_a_face(
    script: Path, scenario: str, request: pytest.FixtureRequest
) -> None:
    """What the scenario's docstring says, though another server converses."""
    if problem := needs(script):
        pytest.skip(problem)
    fault = request.getfixturevalue("faults")[script, scenario]
    assert not fault, fault
