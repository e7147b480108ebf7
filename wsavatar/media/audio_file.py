"""Audio files in: any container and codec that PyAV reads, or a video's sound, mono or stereo.

This module owns decoding and the mix of many channels down to two. It knows neither models nor
the wire. Nothing a file claims is believed without a bound: samples are counted as they come.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np

from wsavatar.errors import WsavatarError
from wsavatar.media.container import open_container, reason

__all__ = ["AudioFile", "AudioFileError", "AudioTrack", "read_audio"]

MAX_AUDIO_S = 3600

_log = logging.getLogger(__name__)
_MINUS_3_DB = 0.5**0.5


class AudioFileError(WsavatarError, ValueError):
    """A file cannot be read as sound; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Sound in memory: float32 [n, channels] in [-1, 1], one or two channels."""

    samples: np.ndarray
    sample_rate: int

    @property
    def seconds(self) -> Fraction:
        return Fraction(len(self.samples), self.sample_rate)


def read_audio(path: Path) -> AudioTrack:
    """All of an `AudioFile`. Raises AudioFileError."""
    file = AudioFile(path)
    return AudioTrack(np.concatenate(list(file.pieces())), file.sample_rate)


class AudioFile:
    """A file's first audio stream, in pieces: memory does not grow with its length.

    At its own rate: mono and stereo as they are, more channels as the standard stereo downmix. A
    WAV file whose header gives no length (0 or the greatest number, as programs write that stream
    it) is read to its end, a file that breaks off up to there, and damaged pieces are left out.

    The file is read through when it is opened, so that its length is known and its errors come
    before any work: AudioFileError where it is missing, holds no sound, or is longer than an hour.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise AudioFileError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
        self.path = path
        self.sample_rate = 0
        self.sample_count = 0
        self.channels = 0
        """1 or 2."""
        self.start_s = Fraction(0)
        """When its first sample is heard, on the clock that a video in the same file has too."""
        widest, peak = 0, 0.0
        for piece, channels, rate, time_s in _decoded(path, says_damage=True):
            self._check_finite(piece, rate)
            if not self.sample_count:
                self.start_s = time_s
            self.sample_rate = rate
            self.sample_count += len(piece)
            self.channels = max(self.channels, piece.shape[1])
            widest, peak = max(widest, channels), max(peak, float(np.abs(piece).max(initial=0)))
            if self.sample_count > MAX_AUDIO_S * rate:
                raise AudioFileError(
                    f"{path}: is over {MAX_AUDIO_S // 60} minutes; cut it into parts"
                )
        if not self.sample_count:
            raise AudioFileError(f"{path}: holds no sound (0 samples)")
        # Channels that are mixed add up: as loud as they were, or as loud as fits.
        self._gain = np.float32(1 / max(1.0, peak)) if widest > 2 else np.float32(1)

    @property
    def seconds(self) -> Fraction:
        return Fraction(self.sample_count, self.sample_rate)

    def pieces(self) -> Iterator[np.ndarray]:
        """All of it, float32 [n, channels] each. Raises AudioFileError."""
        for piece in _decoded(self.path, says_damage=False):
            samples = piece.samples * self._gain
            yield np.broadcast_to(samples, (len(samples), self.channels))

    def _check_finite(self, piece: np.ndarray, rate: int) -> None:
        wrong = np.flatnonzero(~np.isfinite(piece).all(axis=1))
        if len(wrong):
            at = self.sample_count + int(wrong[0])
            value = piece[wrong[0]][~np.isfinite(piece[wrong[0]])][0]
            raise AudioFileError(
                f"{self.path}: sample {at} (at {at / rate:.3f} s) is {value}, not finite"
            )


class _Piece(NamedTuple):
    samples: np.ndarray  # float32 [n, 1 or 2]
    channels: int  # that they were mixed from
    rate: int
    time_s: Fraction  # 0 where the file does not say


def _decoded(path: Path, *, says_damage: bool) -> Iterator[_Piece]:
    with _audio_stream(path) as (container, stream):
        converter, form = None, None
        rate = count = 0
        for frame in _frames(path, container, stream, says_damage=says_damage):
            rate = rate or frame.sample_rate
            if frame.sample_rate != rate:
                raise AudioFileError(
                    f"{path}: its sample rate changes from {rate} to {frame.sample_rate} Hz "
                    f"after {count / rate:.2f} s"
                )
            if converter is None or form != (frame.format.name, frame.layout.name):
                form = (frame.format.name, frame.layout.name)  # broadcasts change it on the way
                # Not planar: PyAV gives no more than eight planes.
                converter = av.AudioResampler(format="flt")
            for piece in converter.resample(frame):
                channels = piece.layout.nb_channels
                count += piece.samples
                samples = piece.to_ndarray().reshape(-1, channels)
                time_s = Fraction((frame.pts or 0) * (frame.time_base or 0))
                yield _Piece(_downmixed(samples, piece.layout), channels, rate, time_s)


@contextmanager
def _audio_stream(path: Path) -> Iterator[tuple[Any, Any]]:
    try:
        with open_container(path) as container:
            if not container.streams.audio:
                raise AudioFileError(f"{path}: holds no audio stream")
            yield container, container.streams.audio[0]
    except (av.FFmpegError, OSError) as error:
        raise AudioFileError(f"{path}: cannot be read as audio ({reason(error)})") from error


def _frames(path: Path, container: Any, stream: Any, *, says_damage: bool) -> Iterator[Any]:
    """Decoded frames. What is damaged is left out, as players do, and the log says so."""
    damaged = 0
    for packet in container.demux(stream):
        try:
            yield from packet.decode()
        except av.error.InvalidDataError:
            damaged += 1
    if damaged and says_damage:
        _log.warning("%s: %d damaged pieces were left out", path, damaged)


# -- many channels --------------------------------------------------------------------------------

# ITU-R BS.775: centre and surrounds at -3 dB, no low-frequency effects; the channels that it does
# not know as ATSC A/52 and FFmpeg have them.
_GAINS: dict[str, tuple[float, float]] = {
    "FL": (1, 0),
    "FR": (0, 1),
    "FC": (_MINUS_3_DB, _MINUS_3_DB),
    "LFE": (0, 0),
    "LFE2": (0, 0),
    "BC": (0.5, 0.5),
    **{name: (_MINUS_3_DB, 0) for name in ("BL", "SL", "FLC", "TFL", "TBL", "TSL", "WL")},
    **{name: (0, _MINUS_3_DB) for name in ("BR", "SR", "FRC", "TFR", "TBR", "TSR", "WR")},
    "DL": (1, 0),
    "DR": (0, 1),
}
# What a file means that does not say which channel is which: the order of WAVE files.
_USUAL = {
    3: "FL FR FC",
    4: "FL FR BL BR",
    5: "FL FR FC BL BR",
    6: "FL FR FC LFE BL BR",
    7: "FL FR FC LFE BC SL SR",
    8: "FL FR FC LFE BL BR SL SR",
}


def _downmixed(samples: np.ndarray, layout: Any) -> np.ndarray:
    """Float32 [n, channels] -> [n, 1 or 2]."""
    count = samples.shape[1]
    if count <= 2:
        return samples
    names = [channel.name for channel in layout.channels]
    if not set(names) <= set(_GAINS):
        names = _USUAL.get(count, "").split()
    if names:
        gains = np.array([_GAINS[name] for name in names], np.float32)
    else:  # separate tracks, say: all of them in the middle, at the same power
        gains = np.full((count, 2), count**-0.5, np.float32)
    mixed: np.ndarray = samples @ gains
    return mixed
