"""What engines of this machine have in common: a model is loaded once, and reads in threads.

Knows no model.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from wsavatar.config import AsrSettings
from wsavatar.dialogue.engine import EngineError

from .base import Heard, Recognition
from .growing import Growing, Growth, Slots
from .sample import check_with

__all__ = ["LocalRecognizer", "Model", "cpu_threads"]

_log = logging.getLogger(__name__)

Samples = NDArray[np.float32]
T = TypeVar("T")

_TRY_AGAIN_S = 30.0
"""After a model could not be loaded."""


class Model(Protocol):
    """A loaded model. Its methods are called in a thread, and block."""

    def read(self, samples: Samples, language: str, prompt: str) -> str:
        """The text of float32 mono at ASR_RATE. Raises EngineError."""
        ...

    def close(self) -> None: ...


class LocalRecognizer:
    """A `Recognizer`. ``load`` blocks, in a thread; it raises EngineError.

    ``at_once``: readings that the model does at the same time. Its threads have the priority of
    the event loop, above those that make the face: somebody waits for the text, and readings of
    turns that are still spoken are limited by `Growth.share`.
    """

    def __init__(
        self,
        settings: AsrSettings,
        load: Callable[[], Model],
        *,
        name: str,
        note: str = "",
        growth: Growth | None = None,
        at_once: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.note = note
        self.language = settings.language
        self._load_model = load
        self._growth = growth or Growth()
        self._timeout_s = settings.timeout_s
        self._slots = Slots(at_once)
        self._threads = ThreadPoolExecutor(at_once, "recognise")
        self._clock = clock
        self._model: Model | None = None
        self._loading: asyncio.Task[Model] | None = None
        self._problem: EngineError | None = None
        self._tried_s = 0.0

    async def start(self) -> None:
        """Load the model."""
        await self._loaded()

    async def check(self) -> str:
        await self._loaded()
        return await check_with(self._read)

    async def close(self) -> None:
        """Waits for a reading in progress, not for a model that is being loaded."""
        if self._loading is not None:
            self._loading.cancel()
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        model, self._model = self._model, None
        if model is not None:
            model.close()

    def listen(
        self, *, language: str = "", prompt: str = "", on_heard: Callable[[Heard], None]
    ) -> Recognition:
        return Growing(
            self._read,
            self._slots,
            self._growth,
            on_heard,
            language=language.split("-")[0].lower(),
            prompt=prompt,
            timeout_s=self._timeout_s,
            clock=self._clock,
        )

    async def _read(
        self, samples: Samples, *, language: str, prompt: str, on_text: Callable[[str], None]
    ) -> str:
        model = self._model
        if model is None:
            try:
                async with asyncio.timeout(self._timeout_s / 2):
                    model = await self._loaded()
            except TimeoutError:
                raise EngineError(
                    "engine_timeout", f"{self.name} is still being loaded: try again in a moment."
                ) from None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, model.read, samples, language, prompt)

    async def _loaded(self) -> Model:
        """The model, loaded now if it is not. A failure stands for a while."""
        if self._model is not None:
            return self._model
        if self._problem is not None and self._clock() < self._tried_s + _TRY_AGAIN_S:
            raise self._problem
        if self._loading is None:
            self._loading = asyncio.create_task(self._load(), name=f"load {self.name}")
            self._loading.add_done_callback(_retrieve)
        return await asyncio.shield(self._loading)

    async def _load(self) -> Model:
        started = time.perf_counter()
        try:
            self._model = await _in_daemon(self._load_model)
            self._problem = None
            _log.info("%s: loaded in %.1f s", self.name, time.perf_counter() - started)
            return self._model
        except EngineError as error:
            self._problem, self._tried_s = error, self._clock()
            raise
        finally:
            self._loading = None


def cpu_threads() -> int:
    """Threads of a model on a CPU: half of the cores, since the face needs them too."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (usable or 1) // 2)


async def _in_daemon(work: Callable[[], T]) -> T:
    """Call it in a thread that does not keep the process from ending, as a download would."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.done():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type]

    def run() -> None:
        value, error = None, None
        try:
            value = work()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(settle, value, error)

    threading.Thread(target=run, name="load recognition", daemon=True).start()
    return await result


def _retrieve(task: asyncio.Task[Model]) -> None:
    """Asyncio reports an exception that nobody asked for; who waits gets it anyway."""
    if not task.cancelled():
        task.exception()
