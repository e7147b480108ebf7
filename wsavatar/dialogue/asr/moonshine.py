"""Moonshine on this machine, through the package moonshine-voice: fast on a CPU, for English.

Its wheels for Linux carry the model tiny-en. That one reads whole recordings, like Whisper, but its
cost follows their length; so a growing turn is read again and again (`growing`). The package's own
voice activity is switched off: turns have been found already, and it would cut them once more.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsavatar.config import AsrSettings
from wsavatar.dialogue.engine import EngineError

from .base import ASR_RATE
from .growing import Growth
from .guard import said
from .local import LocalRecognizer

__all__ = ["MoonshineRecognizer", "bundled_model"]

_INSTALL = "pip install 'moonshine-voice>=0.0.73,<0.1'"
_OPTIONS = {
    "vad_threshold": "0",
    "vad_max_segment_duration": "600",
    "return_audio_data": "false",
}
_PIECE = ASR_RATE // 10
"""Samples that are passed on in one call: each holds the interpreter's lock for 0.1 ms."""

Samples = NDArray[np.float32]


class MoonshineRecognizer(LocalRecognizer):
    """A `Recognizer`. ``asr.model``: a directory of a model whose name has its size ("base-en");
    empty: tiny-en of the package."""

    def __init__(self, settings: AsrSettings) -> None:
        directory = Path(settings.model) if settings.model else bundled_model()
        title = directory.name if directory is not None else "tiny-en"
        super().__init__(
            settings,
            lambda: _load(directory),
            name=f"Moonshine, {title}",
            note="The speech recognition has 27 M parameters, and understands English. For a "
            "better one: asr.engine: faster-whisper, asr.model: small"
            if title == "tiny-en"
            else "",
            # Its cost grows faster than the length.
            growth=Growth(step_s=0.5, finish_s=8.0, longest_s=15.0),
        )

    @staticmethod
    def suits(settings: AsrSettings) -> bool:
        """Whether it is installed with a model, and English is spoken."""
        is_english = settings.language.split("-")[0].lower() in ("", "en")
        return is_english and not settings.model and bundled_model() is not None


class _Moonshine:
    """A `Model`."""

    def __init__(self, transcriber: Any, flag: int) -> None:
        self._transcriber = transcriber
        self._flag = flag

    def read(self, samples: Samples, language: str, prompt: str) -> str:
        if language not in ("", "en"):
            raise EngineError(
                "engine_failed",
                "Moonshine is for English here. For another language: asr.engine: faster-whisper, "
                "asr.model: base",
            )
        from moonshine_voice import MoonshineError

        try:
            return self._text(samples)
        except MoonshineError as error:
            raise EngineError(
                "engine_failed", f"Moonshine could not read: {str(error)[:200]}"
            ) from error

    def close(self) -> None:
        self._transcriber.close()

    def _text(self, samples: Samples) -> str:
        # In pieces, although the turn is whole: the package turns samples into ctypes one by one.
        stream = self._transcriber.create_stream(update_interval=float("inf"))
        try:
            stream.start()
            for start in range(0, len(samples), _PIECE):
                stream.add_audio(samples[start : start + _PIECE], ASR_RATE)
            lines = stream.update_transcription(self._flag).lines
            stream.stop()
        finally:
            stream.close()
        return said(" ".join(line.text.strip() for line in lines), samples)


def bundled_model() -> Path | None:
    """The directory of tiny-en in the package; None: not installed, or a version without it."""
    spec = find_spec("moonshine_voice")
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent / "assets" / "tiny-en"
    return directory if directory.is_dir() else None


def _load(directory: Path | None) -> _Moonshine:
    # Several threads take twice the time of the cores, and the face needs those. Read as the model
    # is loaded.
    os.environ.setdefault("MOONSHINE_ORT_SINGLE_THREAD", "1")
    try:
        from moonshine_voice import MoonshineError, Transcriber, string_to_model_arch
    except ImportError as error:
        raise EngineError("engine_missing", f"Moonshine is not installed: {_INSTALL}") from error
    except OSError as error:  # its library
        raise EngineError(
            "engine_missing", f"Moonshine does not run on this machine: {error}"
        ) from error
    if directory is None:
        raise EngineError(
            "engine_missing", f"This version of moonshine-voice has no model in it: {_INSTALL}"
        )
    try:
        # "tiny-en", "small-streaming-en": size and kind, then the language
        arch = string_to_model_arch(directory.name.rpartition("-")[0])
        transcriber = Transcriber(str(directory), arch, options=_OPTIONS)
    except ValueError:
        raise EngineError(
            "engine_missing",
            f"asr.model: the directory of a model of Moonshine is named like tiny-en or base-en, "
            f"not {directory.name!r}.",
        ) from None
    except MoonshineError as error:
        raise EngineError("engine_missing", f"asr.model: {directory}: {error}") from error
    return _Moonshine(transcriber, Transcriber.MOONSHINE_FLAG_FORCE_UPDATE)
