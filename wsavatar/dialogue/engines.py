"""The engines of one server: recognition, language model, voices. Sessions share them.

An engine that does not start is a problem to show, never a server that does not start: it is tried
again when it is next asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from urllib.parse import urlsplit

from wsavatar.config import Settings
from wsavatar.errors import WsavatarError

from .asr import Recognizer, create_recognizer
from .engine import EngineError, EngineStatus, Kind, SharedEngine
from .llm import LanguageModel, create_language_model
from .tts import Voice, VoiceError, VoiceList, Voices, create_voices

__all__ = ["RETRY_S", "Engines"]

_log = logging.getLogger(__name__)

RETRY_S = 10.0
"""Pause between two tries to start an engine."""
_START_S = 10.0
"""The server waits so long for its engines; one that is slower starts while it serves."""
_LASTING = {"engine_missing", "engine_unreachable", "engine_unauthorized"}
"""Codes of errors that the next answer would meet too."""


class Engines:
    """Engines by the settings. Nothing is loaded before `start`."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        self._problems: dict[Kind, str] = {}
        self._started: set[Kind] = set()
        self._tried_s: dict[Kind, float] = {}
        self._starting: dict[Kind, asyncio.Task[None]] = {}
        self.recognizer: Recognizer | None = None
        self.language_model: LanguageModel | None = None
        self.voices: Voices | None = None
        try:
            self.recognizer = create_recognizer(settings.asr)
        except EngineError as error:
            self._problems["asr"] = str(error)
        try:
            self.language_model = create_language_model(settings.llm)
        except EngineError as error:
            self._problems["llm"] = str(error)
        try:
            self.voices = create_voices(settings.tts)
            if problem := self.voices.problem:
                self._problems["tts"] = problem
        except VoiceError as error:
            self._problems["tts"] = str(error)

    def voice(self, name: str = "") -> Voice:
        """The configured voice, or one by its name. Raises VoiceError."""
        if self.voices is None:
            raise VoiceError(self._problems["tts"])
        return self.voices.voice(name)

    def voice_list(self) -> VoiceList:
        """The voices to choose, as far as they are known now. Called on the event loop."""
        return self.voices.listed() if self.voices is not None else VoiceList((), complete=True)

    def problem(self, kind: Kind) -> str:
        """Why there is no such engine, and what to type; empty: there is one."""
        return next(one.problem for one in self.status() if one.kind == kind)

    async def start(self) -> None:
        """Load the engines, at the same time. A failure is logged and shown by `status`; what takes
        longer than `_START_S` goes on."""
        if problem := self._upstream_problem():
            _log.warning("upstream: %s", problem)
        tasks = [self._begin(kind, engine) for kind, engine in self._there()]
        try:
            late = (await asyncio.wait(tasks, timeout=_START_S))[1] if tasks else ()
        except asyncio.CancelledError:
            for task in tasks:
                task.cancel()
            raise
        for task in late:
            _log.info("%s: it takes longer, and goes on meanwhile", task.get_name())

    async def close(self) -> None:
        starting = [task for task in self._starting.values() if not task.done()]
        for task in starting:
            task.cancel()
        if starting:
            await asyncio.wait(starting)
        for _, engine in self._there():
            await engine.close()

    def status(self) -> Sequence[EngineStatus]:
        """Every kind of engine, in the order of a turn. Called on the event loop: an engine that
        does not work is tried again meanwhile."""
        self._try_again()
        own = [
            self._status("asr", self.recognizer, "speech recognition"),
            self._status("llm", self.language_model, "language model"),
            self._status("tts", self.voices, "voice"),
        ]
        host = urlsplit(self.settings.upstream.url).netloc
        if not host:
            return own
        # Whether it answers is known to the sessions that use it.
        problem = self._upstream_problem()
        return [*own, EngineStatus("upstream", host, problem, ready=not problem)]

    def failed(self, kind: Kind, error: EngineError) -> None:
        """An engine that had started failed while it was used."""
        _log.warning("%s: %s", kind, error)
        if error.code in _LASTING:
            self._problems[kind] = str(error)
            self._tried_s[kind] = self._clock()

    @property
    def converse(self) -> bool:
        """Whether there is all that a conversation needs, and it works."""
        return not any(one.problem for one in self.status() if one.kind != "upstream")

    def _there(self) -> Iterator[tuple[Kind, SharedEngine]]:
        engines: dict[Kind, SharedEngine | None] = {
            "asr": self.recognizer,
            "llm": self.language_model,
            "tts": self.voices,
        }
        return ((kind, engine) for kind, engine in engines.items() if engine is not None)

    def _try_again(self) -> None:
        """Start engines that failed, those alone that were not tried just now."""
        now_s = self._clock()
        for kind, engine in self._there():
            due = kind in self._tried_s and now_s >= self._tried_s[kind] + RETRY_S
            running = kind in self._starting and not self._starting[kind].done()
            if self._problems.get(kind) and due and not running:
                self._begin(kind, engine)

    def _begin(self, kind: Kind, engine: SharedEngine) -> asyncio.Task[None]:
        task = asyncio.create_task(self._start(kind, engine), name=f"start {kind}")
        self._starting[kind] = task
        return task

    async def _start(self, kind: Kind, engine: SharedEngine) -> None:
        before, problem = self._problems.get(kind, ""), ""
        try:
            await engine.start()
            self._started.add(kind)
            _log.info("%s: %s", kind, engine.name)
        except EngineError as error:
            problem = str(error)
        except Exception:  # a library's: the server goes on without this engine
            _log.exception("%s could not be started", kind)
            problem = f"{engine.name or kind} could not be started: the log says why."
        self._tried_s[kind] = self._clock()
        self._problems[kind] = problem
        if problem and problem != before:
            _log.warning("%s: %s", kind, problem)

    def _upstream_problem(self) -> str:
        """Which setting the upstream lacks, where there is one."""
        upstream = self.settings.upstream
        if not upstream.url:
            return ""
        address = import_module("wsavatar.dialogue.upstream.address")  # it imports this package
        try:
            address.address_of(upstream, os.environ)
        except WsavatarError as error:
            return str(error)
        return ""

    def _status(self, kind: Kind, engine: SharedEngine | None, what: str) -> EngineStatus:
        problem = self._problems.get(kind, "")
        if engine is None:
            return EngineStatus(kind, "", problem or f"There is no {what}: {_ADVICE[kind]}")
        ready = kind in self._started and not problem
        return EngineStatus(kind, engine.name, problem, engine.note, ready)


_ADVICE: dict[Kind, str] = {
    "asr": "pip install 'wsavatar[chat]', or set asr.engine and asr.base_url.",
    "llm": "set llm.engine and llm.base_url, or leave llm.engine auto.",
    "tts": "set tts.engines.",
}
