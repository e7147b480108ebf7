"""The examples, run as a reader runs them, against the real server and its dialogues.

The renderer takes no time; everything else is real: sockets, voice activity, the offline voice.
The languages run at once, because they mostly wait: speech takes its time.
"""

from __future__ import annotations

import asyncio
import math
import os
import shutil
import sys
import wave
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.fake_renderer import FakeRenderer, label_of
from tests.helpers import fake_engine, real_dialogues, running, settings
from tests.recorded_voice import RATE, spoken, write_wav
from wsavatar.serve.server import ENDPOINT

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
LIMIT_S = 240.0  # a visit takes ten seconds; three compilers on a busy machine take longer
SENTENCE = "Hello, I am your avatar."
# Node 20 has a WebSocket behind this flag, Node 22 has it without and still knows the flag.
COMMANDS = {
    "python": [sys.executable, EXAMPLES / "python" / "avatar.py"],
    "js": ["node", "--experimental-websocket", "--no-warnings", EXAMPLES / "js" / "avatar.js"],
    "java": ["java", "-XX:TieredStopAtLevel=1", EXAMPLES / "java" / "Avatar.java"],
}


@dataclass(frozen=True)
class Visit:
    """What an example printed, and the folder with what it played and showed."""

    status: int
    text: str
    folder: Path

    @property
    def sound_s(self) -> float:
        """Seconds of the voice that were played."""
        with wave.open(str(self.folder / "voice.wav")) as file:
            assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
            return file.getnframes() / RATE

    def frames(self) -> Iterator[tuple[int, int, dict[str, object]]]:
        """Response, number and label of each frame that was shown."""
        for path in sorted(self.folder.glob("*.jpg")):
            response, number = path.stem.split("-")
            yield int(response), int(number), label_of(path.read_bytes())


Visits = Callable[[str], Visit]


async def _run(command: list[str | Path], folder: Path, port: int, arguments: list[str]) -> Visit:
    url = f"ws://127.0.0.1:{port}{ENDPOINT}"
    process = await asyncio.create_subprocess_exec(
        *(*map(str, command), "--url", url, "--out", str(folder), *arguments),
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
    return Visit(process.returncode or 0, output.decode(errors="replace"), folder)


@asynccontextmanager
async def cut_once(port: int, *, up: int, down: int) -> AsyncIterator[int]:
    """A port that leads to ``port``, and whose first connection breaks after so many bytes."""
    is_first = True
    held: set[asyncio.Task[None]] = set()

    async def forward(
        source: asyncio.StreamReader, sink: asyncio.StreamWriter, limit: float
    ) -> None:
        while limit > 0 and (data := await source.read(4096)):
            sink.write(data)
            await sink.drain()
            limit -= len(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal is_first
        cut, is_first = is_first, False
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", port)
        ways = {
            asyncio.create_task(forward(reader, server_writer, up if cut else math.inf)),
            asyncio.create_task(forward(server_reader, writer, down if cut else math.inf)),
        }
        held.update(ways)
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, server_writer):
            end.transport.abort()

    proxy = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with proxy:
        yield proxy.sockets[0].getsockname()[1]


def visit(folder: Path, *arguments: str, cut: tuple[int, int] | None = None) -> Visits:
    """Run every example with these arguments against one server.

    ``cut``: each one's first connection breaks after so many bytes (up, down).
    """
    commands = {name: words for name, words in COMMANDS.items() if shutil.which(words[0])}

    async def run_all() -> list[Visit]:
        dialogues = real_dialogues(tts={"engines": ("espeak",)})
        engine = fake_engine(FakeRenderer(), create_dialogue=dialogues)
        # The recording is the user's voice and, said back by the parrot, the avatar's: an echo.
        async with running(engine, settings(dialogue={"echo_guard": False})) as server:
            async with AsyncExitStack() as stack:
                runs = []
                for name, words in commands.items():
                    port = server.port
                    if cut is not None:
                        proxy = cut_once(port, up=cut[0], down=cut[1])
                        port = await stack.enter_async_context(proxy)
                    runs.append(_run(words, folder / name, port, list(arguments)))
                return await asyncio.gather(*runs)

    visits = dict(zip(commands, asyncio.run(run_all()), strict=True))

    def visit_of(language: str) -> Visit:
        if language not in visits:
            pytest.skip(f"{COMMANDS[language][0]} is not installed")
        assert visits[language].status == 0, visits[language].text
        return visits[language]

    return visit_of


@pytest.fixture(scope="module")
def voice() -> bytes:
    """A sentence of about two seconds."""
    return spoken("Hello. How do you do today?")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Visits:
    return visit(tmp_path_factory.mktemp("said"), "--say", SENTENCE)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory, voice: bytes) -> Visits:
    folder = tmp_path_factory.mktemp("answered")
    return visit(folder, "--wav", str(write_wav(folder / "in.wav", voice)))


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, voice: bytes) -> Visits:
    folder = tmp_path_factory.mktemp("interrupted")
    pause = bytes(int(1.4 * RATE) * 2)
    return visit(folder, "--wav", str(write_wav(folder / "in.wav", voice * 4 + pause + voice)))


@pytest.fixture(scope="module")
def cut_off(tmp_path_factory: pytest.TempPathFactory) -> Visits:
    folder = tmp_path_factory.mktemp("cut")
    return visit(folder, "--say", SENTENCE * 2, cut=(1_000_000, 40_000))


@pytest.fixture(scope="module")
def cut_while_speaking(tmp_path_factory: pytest.TempPathFactory, voice: bytes) -> Visits:
    folder = tmp_path_factory.mktemp("cut")
    wav = write_wav(folder / "in.wav", voice)
    return visit(folder, "--wav", str(wav), cut=(len(voice) // 2, 1_000_000))


@pytest.mark.parametrize("language", COMMANDS)
def test_a_text_is_said_and_seen(language: str, said: Visits) -> None:
    """``--say``: all of the voice, its frames in order, and a caption."""
    result = said(language)
    assert f"avatar: {SENTENCE}" in result.text, result.text
    shown = list(result.frames())
    numbers = [number for _, number, _ in shown]
    assert result.sound_s > 1.0
    assert numbers == sorted(set(numbers))
    assert all(label["index"] == number for _, number, label in shown)
    assert numbers[-1] >= 25 * result.sound_s - 3, (numbers, result.text)


@pytest.mark.parametrize("language", COMMANDS)
def test_a_voice_is_answered(language: str, answered: Visits, voice: bytes) -> None:
    """``--wav``: the turn ends with the silence after it, and the parrot says it back."""
    result = answered(language)
    assert result.sound_s > 0.8 * len(voice) / 2 / RATE
    assert [response for response, _, _ in result.frames()][-1] == 1


@pytest.mark.parametrize("language", COMMANDS)
def test_speech_interrupts(language: str, interrupted: Visits, voice: bytes) -> None:
    """Who speaks into an answer silences it, and is answered; the server knows what was heard."""
    result = interrupted(language)
    assert {response for response, _, _ in result.frames()} == {1, 2}, result.text
    voice_s = len(voice) / 2 / RATE
    assert voice_s < result.sound_s < 0.85 * 5 * voice_s, result.text
    assert "interrupted: " in result.text


@pytest.mark.parametrize("language", COMMANDS)
def test_a_lost_connection_loses_nothing_of_the_answer(language: str, cut_off: Visits) -> None:
    """The connection breaks in mid-answer: the same response is heard and seen to its end."""
    result = cut_off(language)
    assert "connection lost" in result.text
    shown = list(result.frames())
    assert {response for response, _, _ in shown} == {1}, result.text
    said_s = len(spoken(SENTENCE * 2)) / 2 / RATE
    assert result.sound_s == pytest.approx(said_s, abs=0.5), result.text
    assert shown[-1][1] >= 25 * result.sound_s - 3, result.text


@pytest.mark.parametrize("language", COMMANDS)
def test_a_lost_connection_loses_nothing_of_the_user(
    language: str, cut_while_speaking: Visits, voice: bytes
) -> None:
    """It breaks while the user speaks: what was said meanwhile is heard, and said back whole."""
    result = cut_while_speaking(language)
    assert "connection lost" in result.text
    assert result.sound_s > 0.8 * len(voice) / 2 / RATE, result.text
    assert {response for response, _, _ in result.frames()} == {1}, result.text
