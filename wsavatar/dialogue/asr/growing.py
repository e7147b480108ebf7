"""Recognition by reading a growing turn again and again, for engines that read whole recordings.

Which turn is read next, how much of it, and which words of it no longer change. It knows no engine:
an engine is a function that reads samples.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsavatar.dialogue.engine import EngineError

from .base import ASR_RATE, Heard
from .words import Agreement

__all__ = ["Growing", "Growth", "Read", "Slots", "quietest"]

_log = logging.getLogger(__name__)

Samples = NDArray[np.float32]

MAX_UNREAD_S = 300.0
"""Audio of a turn that waits to be read. A turn that is further behind fails."""
_PROMPT_CHARS = 200
"""Of the text before a part, which the engine is told so that it goes on in the same way."""


class Read(Protocol):
    """Reads samples at ASR_RATE. Raises EngineError.

    ``on_text`` may be called with the text so far, on the event loop.
    """

    def __call__(
        self, samples: Samples, *, language: str, prompt: str, on_text: Callable[[str], None]
    ) -> Awaitable[str]: ...


@dataclass(frozen=True, slots=True)
class Growth:
    """How a growing turn is read. A part of it that is finished is not read again."""

    step_s: float = 0.6
    """New audio after which it is read again, at the earliest."""
    share: float = 0.5
    """Of the time, for reading turns that are still spoken: if a reading takes longer than
    ``step_s`` allows for all of them, each is read less often."""
    finish_s: float = 12.0
    """From this length on, a part is finished at the next pause."""
    longest_s: float = 25.0
    """A longer one is cut where it is quietest."""
    while_spoken: bool = True
    """False: it is read at pauses and at the end only."""


class Slots:
    """An engine's readings: at most ``at_once`` in progress; the rest wait.

    Turns that are over are first, then those that pause; among equals, who waits longest for a
    reading. A turn waits for one reading at a time, and is read as far as it is when its slot
    comes, so that nothing queues up.
    """

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: list[tuple[Growing, asyncio.Future[None]]] = []
        self.count = 0
        """Readings that were begun."""
        self.spoken = 0
        """Turns in progress."""

    @asynccontextmanager
    async def take(self, turn: Growing) -> AsyncIterator[None]:
        """Wait for a slot for one reading of this turn."""
        await self._wait(turn)
        self.count += 1
        turn.served = self.count
        try:
            yield
        finally:
            self._free += 1
            self._give()

    async def _wait(self, turn: Growing) -> None:
        given: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiter = (turn, given)
        self._waiting.append(waiter)
        self._give()
        try:
            await given
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not given.cancelled():  # given in the same moment
                self._free += 1
                self._give()
            raise

    def _give(self) -> None:
        while self._free and self._waiting:
            waiter = min(self._waiting, key=lambda one: (-one[0].urgency, one[0].served))
            self._waiting.remove(waiter)
            if not waiter[1].done():
                self._free -= 1
                waiter[1].set_result(None)


class Growing:
    """A `Recognition`. Create it on the event loop.

    ``timeout_s``: how long `finish` waits for one reading. ``clock``: for how long readings take.
    """

    def __init__(
        self,
        read: Read,
        slots: Slots,
        growth: Growth,
        on_heard: Callable[[Heard], None],
        *,
        language: str = "",
        prompt: str = "",
        timeout_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._slots = slots
        self._growth = growth
        self._on_heard = on_heard
        self._language, self._prompt = language, prompt
        self._timeout_s = timeout_s
        self._clock = clock
        self.served = slots.count  # the number of its last reading among all
        self._parts: list[Samples] = []  # of what is not finished
        self._length = 0
        self._read_to = 0  # how much of that the newest text covers
        self._finished = ""  # text of the parts before
        self._text = ""
        self._agreement = Agreement()
        self._paused = self._over = False
        self._error: EngineError | None = None
        self._failed = False  # a reading failed: the next one is at the end
        self._cost_s = 0.0  # of the last reading
        self._readings = 0
        self._grown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def urgency(self) -> int:
        return 2 if self._over else int(self._paused)

    def push(self, samples: Samples) -> None:
        if self._over or self._error is not None or not len(samples):
            return
        if self._task is None:
            self._slots.spoken += 1
            self._task = asyncio.create_task(self._run(), name="recognise")
            self._task.add_done_callback(self._ended)
        self._parts.append(samples)
        self._length += len(samples)
        self._paused = False
        if self._length > MAX_UNREAD_S * ASR_RATE:
            self._parts, self._length, self._read_to = [], 0, 0
            self._error = EngineError(
                "engine_timeout",
                "Speech recognition is slower than speech. Use a smaller model (asr.model) or a "
                "faster engine.",
            )
        self._grown.set()

    def voice_ended(self) -> None:
        self._paused = True
        self._grown.set()

    async def finish(self) -> str:
        self._over = True
        self._grown.set()
        while self._task is not None and not self._task.done():
            before = self._readings
            await asyncio.wait([self._task], timeout=self._timeout_s)
            if not self._task.done() and self._readings == before:
                self._task.cancel()
                raise EngineError(
                    "engine_timeout",
                    f"Speech recognition took more than {self._timeout_s:g} s: use a smaller model "
                    "(asr.model), or wait for longer (asr.timeout_s).",
                )
        if self._task is not None:
            await self._task  # raises what it raised
        if self._error is not None:
            raise self._error
        return self._text

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._slots.spoken -= 1
        if not task.cancelled():
            task.exception()  # `finish` raises it; without `finish` nobody wants to know

    async def _run(self) -> None:
        """Read while there is something to read, until the turn is over and read."""
        while not (self._over and self._read_to == self._length):
            self._grown.clear()
            if not self._is_worth_reading():
                await self._grown.wait()
                continue
            async with self._slots.take(self):
                if self._is_worth_reading():  # still: the user may have gone on after a pause
                    samples, finishes = self._next()
                    await self._read_part(samples, finishes=finishes)

    def _is_worth_reading(self) -> bool:
        unread = self._length - self._read_to
        if self._over or not unread:
            return unread > 0
        if self._failed:
            return False
        if self._paused:
            return True
        step_s = max(
            self._growth.step_s, self._cost_s * max(self._slots.spoken, 1) / self._growth.share
        )
        return self._growth.while_spoken and unread >= step_s * ASR_RATE

    def _next(self) -> tuple[Samples, bool]:
        """The part to read, and whether it is finished then."""
        samples = np.concatenate([np.empty(0, np.float32), *self._parts])
        self._parts = [samples]
        growth = self._growth
        if self._length > growth.longest_s * ASR_RATE:
            start = int(growth.finish_s * ASR_RATE)
            return samples[: quietest(samples, start, int(growth.longest_s * ASR_RATE))], True
        return samples, self._paused and self._length >= growth.finish_s * ASR_RATE

    async def _read_part(self, samples: Samples, *, finishes: bool) -> None:
        prompt = " ".join(filter(None, (self._prompt, self._finished[-_PROMPT_CHARS:])))
        started = self._clock()
        try:
            text = await self._read(
                samples, language=self._language, prompt=prompt, on_text=self._tell
            )
        except EngineError as error:
            if self._over:
                raise
            self._failed = True
            _log.info("a turn in progress could not be read: %s", error)
            return
        finally:
            self._cost_s = self._clock() - started
            self._readings += 1
        self._take(len(samples), text.strip(), finishes=finishes)

    def _tell(self, text: str) -> None:
        """The beginning of a reading came."""
        self._text = _joined(self._finished, text.strip())
        self._on_heard(Heard(self._text, self._agreement.stable))

    def _take(self, read: int, text: str, *, finishes: bool) -> None:
        if self._error is not None:
            return  # the audio is gone
        self._text = _joined(self._finished, text)
        stable = self._agreement.add(self._text)
        self._read_to = read
        if finishes:
            stable = self._agreement.add(self._text)
            self._finished = self._text
            rest = np.concatenate(self._parts)[read:]
            self._parts, self._length, self._read_to = [rest], len(rest), 0
        whole = self._read_to == self._length
        self._on_heard(Heard(self._text, stable, whole))


def quietest(samples: Samples, start: int, end: int) -> int:
    """The sample in the middle of the quietest 0.2 s that lie between two positions."""
    block = ASR_RATE // 50
    blocks = samples[start : start + (end - start) // block * block].reshape(-1, block)
    power = np.mean(blocks**2, axis=1)
    width = min(10, len(power))
    if not width:
        return end
    quiet = np.convolve(power, np.ones(width), "valid")
    return start + (int(np.argmin(quiet)) * block) + width * block // 2


def _joined(before: str, text: str) -> str:
    return f"{before} {text}" if before and text else before or text
