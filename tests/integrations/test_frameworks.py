"""`wsavatar.integrations.pipecat` and `.livekit` with the real packages.

They run in the stock clients' environment, which has none of the server's dependencies: an agent
needs only its framework beside this package.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from tests.clients.scripts import NPM, Faults, Job, name_of, needs, run_jobs, scenarios, selected
from tests.fake_renderer import FakeRenderer
from tests.helpers import fake_engine, real_dialogues, running, settings
from tests.recorded_voice import spoken, write_wav
from wsavatar.serve.server import ENDPOINT

HERE = Path(__file__).parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faults(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Faults:
    """What was wrong in each scenario that is to be run, all against one server."""
    wanted = selected(request, "test_the_avatar_in_a_framework")
    wav = tmp_path_factory.mktemp("voice") / "voice.wav"
    voice = write_wav(wav, spoken("Hello. How do you do today?"))

    async def visit() -> Faults:
        dialogues = real_dialogues(tts={"engines": ("espeak",)})
        engine = fake_engine(FakeRenderer(), create_dialogue=dialogues)
        async with running(engine, settings()) as server:
            url = f"ws://127.0.0.1:{server.port}{ENDPOINT}"
            return await run_jobs(
                Job(script, names, url, voice) for script, names in wanted.items()
            )

    return asyncio.run(visit())


@pytest.mark.parametrize(("script", "scenario"), list(scenarios(HERE.glob("in_*.py"))), ids=name_of)
def test_the_avatar_in_a_framework(
    script: Path, scenario: str, request: pytest.FixtureRequest
) -> None:
    """What the scenario's docstring says."""
    if problem := needs(script):
        pytest.skip(problem)
    fault = request.getfixturevalue("faults")[script, scenario]
    assert not fault, fault


async def test_the_documents_javascript(tmp_path: Path) -> None:
    """The block of npm's SDK in docs/integrate.md prints what the avatar says."""
    if problem := needs(Path("realtime.mjs")):
        pytest.skip(problem)
    document = (HERE.parents[1] / "docs" / "integrate.md").read_text("utf-8")
    [block] = re.findall(r"```js\n(.*?)```", document, re.DOTALL)
    engine = fake_engine(
        FakeRenderer(), create_dialogue=real_dialogues(tts={"engines": ("espeak",)})
    )
    async with running(engine, settings()) as server:
        script = Path(NPM) / "documented.mjs"
        script.write_text(block.replace("127.0.0.1:8765", f"127.0.0.1:{server.port}"), "utf-8")
        process = await asyncio.create_subprocess_exec(
            "node", str(script), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(120):
            out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert "Hello there." in out.decode(), (out, errors)
