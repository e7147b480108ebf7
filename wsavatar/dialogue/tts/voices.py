"""The voices of one server: its engines in order, and what all sessions know of them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from wsavatar.config import TtsSettings
from wsavatar.dialogue.engine import EngineError

from .base import Voice, VoiceEngine, VoiceError, VoiceList, VoiceUnreachable, WordTime
from .fallback import FallbackVoice, Link, ServiceState
from .pauses import PausedVoice

__all__ = ["MakeEngine", "VoiceCheck", "Voices"]

_log = logging.getLogger(__name__)

MakeEngine = Callable[[TtsSettings, float], VoiceEngine]
"""Makes an engine that may take so many seconds to the first sound, and from one to the next."""

AUTO = "auto"
_MAX_LISTED = 2000
_MAX_NAMES = 8
_CHECK_S = 30.0
_LOOK_UP_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class VoiceCheck:
    """One engine was used once. ``problem`` empty: it spoke, first after ``seconds``."""

    name: str
    problem: str
    seconds: float


class Voices:
    """A `SharedEngine`: the engines that the settings name, in order, of those there are.

    "auto" stands for those of ``automatic`` that are set up. Raises VoiceError for a name that is
    none of them.
    """

    def __init__(
        self,
        settings: TtsSettings,
        engines: Mapping[str, MakeEngine],
        automatic: Sequence[str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        unknown = [name for name in settings.engines if name != AUTO and name not in engines]
        if unknown:
            there = ", ".join([AUTO, *engines])
            raise VoiceError(f"No speech engine {unknown[0]!r}; these are: {there}.")
        self._settings = settings
        self._engines = _chosen(settings, engines, automatic)
        self._states = [ServiceState(engine.name) for engine in self._engines]
        self._failures: dict[str, str] = {}  # of engines that did not start
        self._look_up: asyncio.Task[None] | None = None
        self._look_up_again_s = 0.0
        self._clock = clock

    def voice(self, name: str = "") -> Voice:
        """A session's voice: of names with commas between them, each engine's is the first that it
        knows. A name that it does not know means its default voice, of the name's language where
        it has one. Engines that own one of the names go before those that would speak in another
        voice."""
        names = [one.strip() for one in (name or self._settings.voice).split(",", _MAX_NAMES)]
        engines = sorted(
            zip(self._engines, self._states, strict=True),
            key=lambda engine: not any(map(engine[0].owns, names)),
        )
        links = [
            Link(engine.synthesizer(next(filter(engine.knows, names), names[0])), state)
            for engine, state in engines
        ]
        return PausedVoice(FallbackVoice(links))

    def listed(self) -> VoiceList:
        """The voices to choose, as far as they are known now. Call it on the event loop: it begins
        to ask those services for theirs that were not asked lately."""
        now_s = self._clock()
        if self._look_up is None or (self._look_up.done() and now_s > self._look_up_again_s):
            self._look_up_again_s = now_s + _LOOK_UP_AGAIN_S
            self._look_up = asyncio.create_task(self._look_up_all(), name="look up voices")
        infos = [info for engine in self._engines for info in engine.voices()]
        return VoiceList(tuple(infos[:_MAX_LISTED]), complete=self._look_up.done())

    @property
    def name(self) -> str:
        """The engines that are set up, in their order."""
        return ", then ".join(engine.name for engine in self._usable())

    @property
    def note(self) -> str:
        """What a user should know: of the first engine that can be reached, as far as known, and
        of those that cannot be used."""
        usable = self._usable()
        if not usable:
            return ""
        down = [e for e, state in zip(self._engines, self._states, strict=True) if state.is_down]
        first = next((engine for engine in usable if engine not in down), usable[0])
        return " ".join(filter(None, [first.note, *map(self._problem, self._engines)]))

    @property
    def problem(self) -> str:
        """Why nothing can be said, and what to type; empty: an engine is set up."""
        return "" if self._usable() else " ".join(map(self._problem, self._engines))

    async def start(self) -> None:
        """Load what takes long, so that the first answer does not wait. Raises EngineError if no
        engine can be used."""
        await asyncio.gather(*(self._start(engine) for engine in self._engines))
        if self.problem:
            raise EngineError("engine_missing", self.problem)

    async def check(self) -> str:
        """Every engine says a word; how long each took. Raises EngineError if none can."""
        checks = await self.check_each()
        if all(one.problem for one in checks):
            raise EngineError("engine_failed", " ".join(one.problem for one in checks))
        said = [one.problem or f"{one.name} spoke after {one.seconds:.2f} s" for one in checks]
        return "; ".join(said) + "."

    async def close(self) -> None:
        if self._look_up is not None:
            self._look_up.cancel()
            await asyncio.wait([self._look_up])
        for engine in self._engines:
            await engine.close()

    async def check_each(self) -> list[VoiceCheck]:
        """Every engine says a word."""
        return [await self._check(engine) for engine in self._engines]

    def _usable(self) -> list[VoiceEngine]:
        return [engine for engine in self._engines if not self._problem(engine)]

    def _problem(self, engine: VoiceEngine) -> str:
        return engine.problem() or self._failures.get(engine.name, "")

    async def _start(self, engine: VoiceEngine) -> None:
        if engine.problem():
            return
        try:
            await engine.start()
            self._failures.pop(engine.name, None)
        except VoiceError as error:
            self._failures[engine.name] = str(error)
            _log.warning("%s", error)

    async def _check(self, engine: VoiceEngine) -> VoiceCheck:
        start_s = time.monotonic()
        problem = engine.problem()
        try:
            if not problem and not await _speaks(engine, self._settings.voice.partition(",")[0]):
                problem = f"{engine.name} sent no sound."
        except VoiceError as error:
            problem = str(error)
        except TimeoutError:
            problem = f"{engine.name} sent no sound in {_CHECK_S:g} s."
        return VoiceCheck(engine.name, problem, time.monotonic() - start_s)

    async def _look_up_all(self) -> None:
        for engine, state in zip(self._engines, self._states, strict=True):
            if self._problem(engine):
                continue
            try:
                await engine.look_up()
            except VoiceUnreachable as error:
                state.unreachable(self._clock(), error)
            except VoiceError as error:
                _log.info("The voices of %s are not known: %s", engine.name, error)


def _chosen(
    settings: TtsSettings, engines: Mapping[str, MakeEngine], automatic: Sequence[str]
) -> list[VoiceEngine]:
    """The engines of the settings in order; each but the last has half of the time, since another
    one speaks for it."""
    names: list[str] = []
    for name in settings.engines:
        if name == AUTO:
            names += [one for one in automatic if not engines[one](settings, 0).problem()]
        else:
            names.append(name)
    names = list(dict.fromkeys(names)) or [automatic[-1]]
    times = [settings.timeout_s / 2] * (len(names) - 1) + [settings.timeout_s]
    return [engines[name](settings, time_s) for name, time_s in zip(names, times, strict=True)]


async def _speaks(engine: VoiceEngine, name: str) -> bool:
    async with asyncio.timeout(_CHECK_S):
        async with aclosing(engine.synthesizer(name).speak("Hello.")) as parts:
            async for part in parts:
                if not isinstance(part, WordTime) and len(part):
                    return True
    return False
