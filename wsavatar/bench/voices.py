"""How fast voices speak, how loud, and where words are: ``python -m wsavatar.bench.voices``.

Each engine says phrases of three lengths: time to the first sound and to the last, the processor's
time for a second of speech, and the level of speech. Of engines that time words, the same phrases
show how far estimated times are from those.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsavatar.config import TtsSettings
from wsavatar.dialogue.base import SPEECH_RATE, Word
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.tts import Voice, VoiceError, create_voices
from wsavatar.dialogue.tts.text import phrases
from wsavatar.dialogue.tts.words import estimated

__all__ = ["main"]

_PHRASES = (
    "Sure, I can help you with that,",
    "The quick brown fox jumps over the lazy dog.",
    "Please call Stella, and ask her to bring these things with her from the store, six spoons of "
    "fresh snow peas as well.",
)
_TEXT = (
    "Well, I can certainly help you with that, if you like. The quick brown fox jumps over the "
    "lazy dog. Why? Because it can. Please call Stella, and ask her to bring these things with her "
    "from the store: six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a "
    "snack for her brother Bob. In 1989, about 350 million people watched it, and most of them "
    "paid $5.20 for the privilege. The rainbow is a division of white light into many beautiful "
    "colors. These take the shape of a long round arch, with its path high above, and its two ends "
    "apparently beyond the horizon."
)
_BLOCK = SPEECH_RATE // 50


@dataclass(slots=True)
class _Said:
    """One phrase. Seconds."""

    audio: NDArray[np.float32]
    words: list[Word]
    first_s: float
    all_s: float
    processor_s: float


async def _say(voice: Voice, text: str) -> _Said:
    parts: list[NDArray[np.float32]] = []
    words: list[Word] = []
    first_s = 0.0
    start_s, processor_s = time.perf_counter(), time.process_time()
    async with aclosing(voice.speak(text)) as speech:
        async for part in speech:
            if isinstance(part, tuple):
                words += part
            else:
                first_s = first_s or time.perf_counter() - start_s
                parts.append(part)
    all_s, processor_s = time.perf_counter() - start_s, time.process_time() - processor_s
    audio = np.concatenate([np.empty(0, np.float32), *parts])
    return _Said(audio, words, first_s, all_s, processor_s)


def _level(audio: NDArray[np.float32]) -> float:
    """RMS of the blocks of 20 ms within 40 dB of the loudest, in dBFS."""
    blocks = audio[: len(audio) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    powers: NDArray[np.float64] = np.mean(blocks.astype(np.float64) ** 2, axis=1)
    loud = powers[powers > float(np.max(powers)) / 10_000]
    return float(10 * np.log10(np.mean(loud)))


async def _measure(name: str, settings: TtsSettings, repeats: int) -> None:
    voices = create_voices(settings)
    start_s = time.perf_counter()
    await voices.start()
    print(f"{name}: ready after {time.perf_counter() - start_s:.2f} s")
    try:
        for text in _PHRASES:
            said = [await _say(voices.voice().for_response(), text) for _ in range(repeats)]
            seconds = len(said[-1].audio) / SPEECH_RATE
            first_ms = 1000 * statistics.median(one.first_s for one in said)
            all_ms = 1000 * statistics.median(one.all_s for one in said)
            processor_ms = 1000 * statistics.median(one.processor_s for one in said)
            print(
                f"  {len(text):3} characters, {seconds:.1f} s: first sound {first_ms:.0f} ms, all "
                f"{all_ms:.0f} ms, processor {processor_ms / seconds:.0f} ms for a second, "
                f"{_level(said[-1].audio):.1f} dBFS"
            )
        await _compare_words(voices.voice())
    finally:
        await voices.close()


async def _compare_words(voice: Voice) -> None:
    errors_s: list[float] = []
    for phrase in phrases(_TEXT):
        said = await _say(voice.for_response(), phrase.text)
        guesses = estimated(phrase.text, said.audio, SPEECH_RATE)
        for word, guess in zip(said.words, guesses, strict=True):
            if not word.estimated:
                errors_s.append(abs(word.start_s - guess.start_s))
    if errors_s:
        median_s, worst_s = statistics.median(errors_s), sorted(errors_s)[int(0.95 * len(errors_s))]
        print(
            f"  estimated words: {median_s:.2f} s from the engine's in the median, {worst_s:.2f} s "
            f"at the 95th percentile of {len(errors_s)}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="*", default=["piper", "espeak"], help="as tts.engines")
    parser.add_argument("--voice", default="", help="as tts.voice")
    parser.add_argument("--base-url", default="", help="as tts.base_url")
    parser.add_argument("--repeats", type=int, default=9)
    args = parser.parse_args(argv)
    for name in args.engines:
        settings = TtsSettings(engines=(name,), voice=args.voice, base_url=args.base_url)
        try:
            asyncio.run(_measure(name, settings, args.repeats))
        except (EngineError, VoiceError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
