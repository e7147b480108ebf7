"""The examples, run as a reader runs them, against the real server and its dialogues.

The renderer takes no time; everything else is real: sockets, voice activity, the offline voice.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import wave
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.helpers import FakeRenderer, fake_engine, label_of, real_dialogues, running, settings
from tests.recorded_voice import RATE, spoken, write_wav
from wsavatar.serve.server import ENDPOINT, AvatarServer

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT_S = 60.0
SENTENCE = "Hello, I am your avatar."


def _node() -> list[str]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    return [node, "--experimental-websocket", "--no-warnings"]


def _java() -> list[str]:
    java = shutil.which("java")
    if java is None:
        pytest.skip("java is not installed")
    return [java, "-Xshare:auto", "-XX:TieredStopAtLevel=1"]


COMMANDS = {
    "python": lambda: [sys.executable, str(EXAMPLES / "python" / "avatar.py")],
    "js": lambda: [*_node(), str(EXAMPLES / "js" / "avatar.js")],
}


@pytest.fixture(params=list(COMMANDS))
def command(request: pytest.FixtureRequest) -> list[str]:
    """How an example is started, of each language."""
    return COMMANDS[request.param]()


@pytest.fixture(scope="module")
def voice() -> bytes:
    """A sentence of about two seconds."""
    return spoken("Hello. How do you do today?")


@asynccontextmanager
async def serving() -> AsyncIterator[AvatarServer]:
    engine = fake_engine(
        FakeRenderer(), create_dialogue=real_dialogues(tts={"engines": ("espeak",)})
    )
    async with running(engine, settings()) as server:
        yield server


async def run(command: list[str], port: int, *arguments: str) -> str:
    """What the example prints. It must end by itself, without an error."""
    url = f"ws://127.0.0.1:{port}{ENDPOINT}"
    process = await asyncio.create_subprocess_exec(
        *(*command, "--url", url, "--linger", "1.5", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        async with asyncio.timeout(LIMIT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    assert process.returncode == 0, text
    return text


def sound_s(folder: Path) -> float:
    """Seconds of the voice that the example played."""
    with wave.open(str(folder / "voice.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        return file.getnframes() / RATE


def frames(folder: Path) -> Iterator[tuple[int, int, dict[str, object]]]:
    """Response, number and label of each frame that was shown."""
    for path in sorted(folder.glob("*.jpg")):
        response, number = path.stem.split("-")
        yield int(response), int(number), label_of(path.read_bytes())


async def test_a_text_is_said_and_seen(command: list[str], tmp_path: Path) -> None:
    """``--say``: all of the voice, its frames in order, and a caption."""
    async with serving() as server:
        text = await run(command, server.port, "--say", SENTENCE, "--out", str(tmp_path))
    assert f"avatar: {SENTENCE}" in text, text
    shown = list(frames(tmp_path))
    numbers = [number for _, number, _ in shown]
    assert sound_s(tmp_path) > 1.0
    assert numbers == sorted(set(numbers))
    assert all(label["index"] == number for _, number, label in shown)
    assert numbers[-1] >= 25 * sound_s(tmp_path) - 3, (numbers, text)


async def test_a_voice_is_answered(command: list[str], voice: bytes, tmp_path: Path) -> None:
    """``--wav``: the turn ends with the silence after it, and the parrot says it back."""
    wav = write_wav(tmp_path / "in.wav", voice)
    async with serving() as server:
        await run(command, server.port, "--wav", str(wav), "--out", str(tmp_path))
    assert sound_s(tmp_path) > 0.8 * len(voice) / 2 / RATE
    assert [response for response, _, _ in frames(tmp_path)][-1] == 1


async def test_speech_interrupts(command: list[str], voice: bytes, tmp_path: Path) -> None:
    """Who speaks into an answer silences it, and is answered; the server knows what was heard."""
    pause = bytes(int(1.4 * RATE) * 2)
    wav = write_wav(tmp_path / "in.wav", voice * 2 + pause + voice)
    async with serving() as server:
        text = await run(command, server.port, "--wav", str(wav), "--out", str(tmp_path))
    responses = {response for response, _, _ in frames(tmp_path)}
    assert responses == {1, 2}, text
    said_s = 3 * len(voice) / 2 / RATE
    assert len(voice) / 2 / RATE < sound_s(tmp_path) < 0.85 * said_s, text
    assert "interrupted: " in text
