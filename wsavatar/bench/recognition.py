"""How fast and how well speech is recognised: ``python -m wsavatar.bench.recognition speech.wav``.

A recording is spoken in real time to a transcriber as a session has it. Measured are, for each turn
that voice activity finds, the time from the turn's end to its text; the processor's time; how long
the event loop was held up; and, alone, readings of some lengths.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from wsavatar.config import AsrSettings, DialogueSettings
from wsavatar.dialogue.asr import ASR_RATE, Heard, Recognizer, create_recognizer
from wsavatar.dialogue.base import DialogueConfig, TranscriptionRequest
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.listener import Listener
from wsavatar.dialogue.transcriber import Transcriber
from wsavatar.dialogue.turns import TurnBegan, TurnEnded
from wsavatar.media.audio import resample
from wsavatar.media.audio_file import read_audio

if TYPE_CHECKING:
    from wsavatar.dialogue.base import DialogueSession

__all__ = ["main", "word_errors"]

_PIECE = ASR_RATE // 50
_LENGTHS_S = (2, 5, 10, 20)
_REPEATS = 5
_TICK_S = 0.005

Samples = NDArray[np.float32]


@dataclass(slots=True)
class Turn:
    """Seconds. ``first_s``: from the turn's announcement to the first words. ``final_s``: from the
    end of the turn, as decided, to its text."""

    length_s: float
    first_s: float
    final_s: float
    readings: int
    text: str


class _Listening:
    """What a transcriber needs of a session, which nobody listens to."""

    heard_ms = 0
    spoken_item_id: str | None = None

    def speech_started(self, audio_start_ms: int) -> None:
        self.spoken_item_id = "item"

    def speech_stopped(self, audio_end_ms: int) -> None: ...
    def transcript_delta(self, item_id: str, delta: str) -> None: ...
    def transcribed(self, item_id: str, text: str, seconds: float) -> None: ...
    def transcription_failed(self, item_id: str, code: str, message: str) -> None: ...


@dataclass(slots=True)
class _Loop:
    """The event loop's delays: each tick that came late, by how much."""

    late_s: list[float] = field(default_factory=list)

    async def watch(self) -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_TICK_S)
            self.late_s.append(time.perf_counter() - before - _TICK_S)


async def _listen(recognizer: Recognizer, audio: Samples, silence_ms: int) -> list[Turn]:
    """Speak the recording in real time; returns its turns."""
    session = cast("DialogueSession", _Listening())
    settings = DialogueSettings(vad_silence_ms=silence_ms)
    config = DialogueConfig(settings, input_rate=ASR_RATE, transcription=TranscriptionRequest())
    listener = Listener(session, config)
    heard: list[tuple[float, Heard]] = []
    transcriber = Transcriber(
        session, recognizer, config, on_heard=lambda one: heard.append((time.perf_counter(), one))
    )
    turns: list[Turn] = []
    ends: list[asyncio.Task[None]] = []
    began = 0.0

    async def end() -> None:
        ended, turn = time.perf_counter(), transcriber.end()
        first_s = next((at for at, one in heard if one.text), ended) - began
        readings = len(heard)
        text = await turn.final()
        now = time.perf_counter()
        turns.append(Turn(turn.seconds, first_s, now - ended, readings, text))

    start = time.perf_counter()
    padded = np.concatenate([audio, np.zeros(2 * ASR_RATE, np.float32)])
    for at in range(0, len(padded), _PIECE):
        await asyncio.sleep(max(0.0, start + at / ASR_RATE - time.perf_counter()))
        for event in listener.push(padded[at : at + _PIECE], while_speaking=False):
            transcriber.follow(event, listener.silent_ms)
            if isinstance(event, TurnBegan):
                began = time.perf_counter()
                heard.clear()
            elif isinstance(event, TurnEnded):
                ends.append(asyncio.create_task(end()))
                await asyncio.sleep(0)
    await asyncio.gather(*ends)
    await transcriber.close()
    return turns


async def _read_alone(
    recognizer: Recognizer, audio: Samples, seconds: float
) -> tuple[float, float]:
    """Medians of one turn of so much audio: its time, and the processor's."""
    times, cpu = [], []
    for _ in range(_REPEATS):
        turn = recognizer.listen(language="en", on_heard=lambda _: None)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        turn.push(audio[: int(seconds * ASR_RATE)])
        await turn.finish()
        times.append(time.perf_counter() - wall_s)
        cpu.append(time.process_time() - cpu_s)
    return statistics.median(times), statistics.median(cpu)


def word_errors(said: str, understood: str) -> tuple[int, int]:
    """Words that were added, left out or replaced, and how many were said."""
    right, got = (re.findall(r"[\w']+", text.casefold()) for text in (said, understood))
    row = list(range(len(got) + 1))
    for i, word in enumerate(right, 1):
        before, row = row, [i]
        for j, other in enumerate(got, 1):
            row.append(min(before[j] + 1, row[-1] + 1, before[j - 1] + (word != other)))
    return row[-1], len(right)


async def _measure(args: argparse.Namespace) -> None:
    recognizer = create_recognizer(
        AsrSettings(engine=args.engine, model=args.model, language="en", timeout_s=60)
    )
    if recognizer is None:
        raise EngineError("engine_missing", "No engine is installed: pip install 'wsavatar[local]'")
    track = read_audio(args.file)
    mono = np.ascontiguousarray(track.samples.mean(axis=1, dtype=np.float32))
    audio = resample(mono, track.sample_rate, ASR_RATE)
    started = time.perf_counter()
    await recognizer.start()
    print(f"{recognizer.name}: ready after {time.perf_counter() - started:.1f} s")
    for seconds in _LENGTHS_S:
        if seconds * ASR_RATE <= len(audio):
            wall_s, cpu_s = await _read_alone(recognizer, audio, seconds)
            print(
                f"{seconds:2} s of speech at once: {wall_s * 1000:.0f} ms, "
                f"{cpu_s * 1000:.0f} ms of the processor"
            )
    loop = _Loop()
    watching = asyncio.create_task(loop.watch(), name="watch the loop")
    cpu_s, wall_s = time.process_time(), time.perf_counter()
    turns = await _listen(recognizer, audio, args.silence_ms)
    cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
    watching.cancel()
    await recognizer.close()
    _report(turns, loop, cpu_s / wall_s, args.said)


def _report(turns: Sequence[Turn], loop: _Loop, cores: float, said: Path | None) -> None:
    for turn in turns:
        print(
            f"turn of {turn.length_s:4.1f} s: first words after {turn.first_s * 1000:4.0f} ms, "
            f"{turn.readings} readings, text {turn.final_s * 1000:4.0f} ms after its end: "
            f"{turn.text}"
        )
    if turns:
        finals = sorted(turn.final_s for turn in turns)
        print(f"text after the end: median {statistics.median(finals) * 1000:.0f} ms", end=", ")
        print(f"worst {finals[-1] * 1000:.0f} ms, of {len(turns)} turns")
    late = sorted(loop.late_s)
    print(f"processor: {cores:.2f} cores while speech comes, voice activity included")
    print(f"event loop late: p99 {late[int(0.99 * len(late))] * 1000:.1f} ms", end=", ")
    print(f"worst {late[-1] * 1000:.1f} ms")
    if said is not None:
        understood = " ".join(turn.text for turn in turns)
        wrong, count = word_errors(said.read_text(encoding="utf-8"), understood)
        print(f"words: {count - wrong} of {count} right")


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="English speech: wav, flac, ogg, …")
    parser.add_argument("--engine", default="auto", help="as asr.engine")
    parser.add_argument("--model", default="", help="as asr.model")
    parser.add_argument("--silence-ms", type=int, default=500, help="that ends a turn")
    parser.add_argument("--said", type=Path, help="a text file of what is said, to count words")
    args = parser.parse_args(argv)
    try:
        asyncio.run(_measure(args))
    except EngineError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
