"""What the scripts of stock clients share: their command line, and the voice they send.

These scripts run in an environment of their own, without this repository's dependencies: the
clients' packages pin another release of websockets. `test_stock_clients` starts servers and
them: ``python use_livekit.py URL VOICE.wav SCENARIO…``. A scenario is a coroutine that takes a
`Visit`; it passes when it returns. `scripts` runs them.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import sys
import traceback
import wave
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

RATE = 24_000
"""Samples per second of everything that is sent and received."""
TIMEOUT_S = 120.0

Scenario = Callable[["Visit"], Awaitable[None]]


@dataclass(frozen=True)
class Visit:
    """Where the server is, and what to say to it. ``voice``: PCM16 mono at RATE."""

    url: str
    voice: bytes

    @property
    def base_url(self) -> str:
        """The address that an SDK adds ``/realtime`` to."""
        return self.url.removesuffix("/realtime")

    def packets(self, silence_s: float = 1.0) -> Iterator[bytes]:
        """The voice in packets of 20 ms, and silence after it."""
        sound = self.voice + bytes(2 * int(silence_s * RATE))
        step = RATE // 50 * 2
        for start in range(0, len(sound), step):
            yield sound[start : start + step]


async def until(happened: Callable[[], bool]) -> None:
    """Wait for something that an SDK has no event for."""
    while not happened():  # noqa: ASYNC110
        await asyncio.sleep(0.05)


def run(module: str) -> None:
    """Run the scenarios that the command line names: coroutines of this module, one by one.

    Prints a line of JSON for each: its name, and what was wrong, or null.
    """
    scenarios = {
        name: function
        for name, function in vars(sys.modules[module]).items()
        if inspect.iscoroutinefunction(function)
        and function.__module__ == module
        and not name.startswith("_")
    }
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("voice", type=Path)
    parser.add_argument("scenarios", choices=scenarios, nargs="+")
    args = parser.parse_args()
    with wave.open(str(args.voice)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE, 1, 2)
        visit = Visit(args.url, file.readframes(file.getnframes()))

    async def limited(scenario: Scenario) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            await scenario(visit)

    for name in args.scenarios:
        fault = None
        try:
            asyncio.run(limited(scenarios[name]))
        except Exception:
            fault = traceback.format_exc()
        print(json.dumps({"scenario": name, "fault": fault}), flush=True)
