"""Clients written for the OpenAI Realtime API work unchanged, and report no error.

The real packages are used: `openai`, `openai-agents`, Pipecat and LiveKit Agents, and the npm
packages `@openai/agents` and `openai` (`scripts` says where they live). The server runs here, with
the real dialogues and a renderer that takes no time: scripts ``use_*`` visit one without a language
model, a parrot; scripts ``chat_*`` and npm's one whose model and recognition follow `rules`, behind
HTTP as any hosted engine. npm's goes through TLS, because ``wss://`` is all that `openai` takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.clients import rules
from tests.clients.scripts import Faults, Job, name_of, needs, run_jobs, scenarios, selected
from tests.dialogue.scripted_endpoint import Answer, scripted_endpoint
from tests.fake_renderer import FakeRenderer
from tests.helpers import fake_engine, real_dialogues, running, settings
from tests.recorded_voice import spoken, write_wav
from wsavatar.bench.server_process import ServerProcess
from wsavatar.dialogue import registry
from wsavatar.dialogue.engines import Engines
from wsavatar.serve.server import ENDPOINT

HERE = Path(__file__).parent
SCRIPTS = [*HERE.glob("use_*.py"), *HERE.glob("chat_*.py"), *HERE.glob("npm/*.mjs")]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sentence of about two seconds, PCM16 mono at 24 kHz."""
    return write_wav(tmp_path_factory.mktemp("voice") / "voice.wav", spoken(rules.SENTENCE))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of cert.pem and key.pem, for localhost."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed: no certificate to serve")
    folder = tmp_path_factory.mktemp("tls")
    key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key.pem"
    name = "-subj /CN=localhost -addext subjectAltName=DNS:localhost"
    command = f"req -x509 {key} -out cert.pem -days 2 {name}"
    subprocess.run([openssl, *command.split()], cwd=folder, check=True, capture_output=True)
    return folder


@contextlib.asynccontextmanager
async def parrot() -> AsyncIterator[str]:
    """The address of a server without a language model."""
    dialogues = real_dialogues(tts={"engines": ("espeak",)})
    async with running(fake_engine(FakeRenderer(), create_dialogue=dialogues), settings()) as one:
        yield f"ws://127.0.0.1:{one.port}{ENDPOINT}"


@contextlib.asynccontextmanager
async def conversation(certificate: Path | None = None) -> AsyncIterator[str]:
    """The address of a server whose language model follows rules."""
    tls = {}
    if certificate is not None:
        tls = {"tls_cert": certificate / "cert.pem", "tls_key": certificate / "key.pem"}
    heard = [Answer(rules.SENTENCE)]
    async with scripted_endpoint(chat=rules.answer, transcriptions=heard) as endpoint:
        hosted = {"engine": "openai", "base_url": endpoint.url, "model": "rules"}
        chosen = settings(server=tls, asr=hosted, llm=hosted, tts={"engines": ("espeak",)})
        engines = Engines(chosen)
        engine = fake_engine(
            FakeRenderer(), create_dialogue=partial(registry.create, engines), speech=engines
        )
        async with running(engine, chosen) as one:
            scheme = "ws" if certificate is None else "wss"
            yield f"{scheme}://localhost:{one.port}{ENDPOINT}"


@pytest.fixture(scope="module")
def faults(request: pytest.FixtureRequest, voice: Path, certificate: Path) -> Faults:
    """What was wrong in each scenario that is to be run."""
    wanted = selected(request, "test_a_stock_client_works_unchanged")

    async def visit() -> Faults:
        async with (
            parrot() as simple,
            conversation() as plain,
            conversation(certificate) as secure,
        ):
            urls = {"use": simple, "chat": plain, "realtime": secure}
            trusted = certificate / "cert.pem"
            return await run_jobs(
                Job(script, names, urls[script.stem.partition("_")[0]], voice, trusted)
                for script, names in wanted.items()
            )

    return asyncio.run(visit())


@pytest.mark.parametrize(("script", "scenario"), list(scenarios(SCRIPTS)), ids=name_of)
def test_a_stock_client_works_unchanged(
    script: Path, scenario: str, request: pytest.FixtureRequest
) -> None:
    """What the scenario's docstring says; the client saw no error and no event it does not know."""
    if problem := needs(script):
        pytest.skip(problem)
    fault = request.getfixturevalue("faults")[script, scenario]
    assert not fault, fault


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that the command line started."""
    log = tmp_path_factory.mktemp("server") / "log"
    chosen = ["--set", "tts.engines=espeak", "--set", "dialogue.mode=parrot"]
    with ServerProcess(chosen, log) as process:
        yield process.url


async def test_stock_clients_talk_to_the_command(
    request: pytest.FixtureRequest, voice: Path
) -> None:
    """The same with `serve` as it comes: its own process, the model in the package, real frames."""
    visits = {
        "use_livekit.py": "a_voice_is_answered",
        "use_openai.py": "a_conversation_by_voice",
        "use_openai_agents.py": "a_voice_is_answered",
        "use_pipecat.py": "a_voice_is_answered",
    }
    if problem := needs(HERE / "use_openai.py"):
        pytest.skip(problem)
    url = request.getfixturevalue("served")
    faults = await run_jobs(
        Job(HERE / script, (name,), url, voice) for script, name in visits.items()
    )
    assert not any(faults.values()), "\n".join(faults.values())
