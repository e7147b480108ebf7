"""The engines of one server: recognition, language model, voices. Sessions share them.

An engine that does not start is a problem to show, never a server that does not start: it is tried
again when it is next needed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from wsavatar.config import Settings

from .asr import Recognizer, create_recognizer
from .engine import EngineError, EngineStatus, Kind, SharedEngine
from .llm import LanguageModel, create_language_model
from .tts import Voice, VoiceError, VoiceList, Voices, create_voices

__all__ = ["Engines"]

_log = logging.getLogger(__name__)


class Engines:
    """Engines by the settings. Nothing is loaded before `start`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._problems: dict[Kind, str] = {}
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
        """Load the engines, at the same time. A failure is logged and shown by `status`."""
        shared: dict[Kind, SharedEngine | None] = {
            "asr": self.recognizer,
            "llm": self.language_model,
            "tts": self.voices,
        }
        await asyncio.gather(*(self._start(kind, one) for kind, one in shared.items() if one))

    async def close(self) -> None:
        for engine in (self.recognizer, self.language_model, self.voices):
            if engine is not None:
                await engine.close()

    def status(self) -> Sequence[EngineStatus]:
        """Every kind of engine, in the order of a turn."""
        return (
            self._status("asr", self.recognizer, "speech recognition"),
            self._status("llm", self.language_model, "language model"),
            self._status("tts", self.voices, "voice"),
        )

    @property
    def converse(self) -> bool:
        """Whether there is all that a conversation needs, and it works."""
        return not any(one.problem for one in self.status())

    async def _start(self, kind: Kind, engine: SharedEngine) -> None:
        try:
            await engine.start()
            self._problems.pop(kind, None)
            _log.info("%s: %s", kind, engine.name)
        except EngineError as error:
            self._problems[kind] = str(error)
            _log.warning("%s: %s", kind, error)

    def _status(self, kind: Kind, engine: SharedEngine | None, what: str) -> EngineStatus:
        problem = self._problems.get(kind, "")
        if engine is None:
            return EngineStatus(kind, "", problem or f"There is no {what}. {_ADVICE}")
        return EngineStatus(kind, engine.name, problem, engine.note)


_ADVICE = "Install one: pip install 'wsavatar[chat]'; or name one in the configuration."
