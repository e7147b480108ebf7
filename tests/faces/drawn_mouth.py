"""A tiny face model: a mouth that is open as the sound is loud. For `test_registry`.

It is all that a new face model must bring: settings, windows, what it keeps of an avatar, drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict

from wsavatar.avatars.format import AvatarFile
from wsavatar.config import Settings, model_options
from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.faces.base import AvatarPictures, Progress

RATE = 8000
SIDE = 32
SKIN, MOUTH = 200, 20
"""The greys of its patch."""


class Options(BaseModel):
    """Its settings, in the section ``model``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    widest: float = 1.0
    """Part of the patch that the mouth is high at full loudness."""


def options(settings: Settings) -> Options:
    """Its part of the settings. Raises ConfigError."""
    return model_options(settings, Options)


@dataclass(frozen=True)
class LoudnessChunk:
    first_frame: int
    loudness: np.ndarray

    @property
    def frame_count(self) -> int:
        return len(self.loudness)

    @property
    def blocks(self) -> range:
        return range(self.first_frame, self.first_frame + self.frame_count)


class LoudnessChunker:
    sample_rate = RATE

    def __init__(self, fps: Fraction) -> None:
        self._step = int(RATE / fps)
        self._samples = np.zeros(0, np.float32)
        self._next_frame = 0

    def push(self, samples: np.ndarray) -> list[LoudnessChunk]:
        self._samples = np.concatenate([self._samples, samples])
        return self._cut(len(self._samples) // self._step)

    def flush(self) -> list[LoudnessChunk]:
        return self._cut(-(-len(self._samples) // self._step))

    def _cut(self, frames: int) -> list[LoudnessChunk]:
        if not frames:
            return []
        pieces = [self._samples[n * self._step : (n + 1) * self._step] for n in range(frames)]
        self._samples = self._samples[frames * self._step :]
        chunk = LoudnessChunk(self._next_frame, np.array([np.abs(p).max() for p in pieces]))
        self._next_frame += frames
        return [chunk]


class Windows:
    def open_chunker(
        self, fps: Fraction, chunk_ms: int, first_ms: int | None = None
    ) -> LoudnessChunker:
        return LoudnessChunker(fps)


class DrawnMouth:
    windows = Windows()
    device = "cpu"
    batch_sizes = ()

    def __init__(self, widest: float) -> None:
        self._widest = widest

    def warm_up(self, batch_sizes: Sequence[int]) -> None: ...

    def conditions(self) -> DrawnMouth:
        return self

    def make(self, chunks: Sequence[tuple[int, LoudnessChunk]]) -> tuple[list[np.ndarray], int]:
        return [chunk.loudness for _, chunk in chunks], sum(c.frame_count for _, c in chunks)

    def generate(self, inputs: Sequence[np.ndarray], conditions: Sequence[float]) -> np.ndarray:
        patches = np.full((len(conditions), SIDE, SIDE, 3), SKIN, np.uint8)
        for patch, loudness in zip(patches, conditions, strict=True):
            half = round(loudness * self._widest * SIDE / 2)
            patch[SIDE // 2 - half : SIDE // 2 + half, SIDE // 4 : -SIDE // 4] = MOUTH
        return patches

    def memory_used(self) -> float:
        return 0.0

    def release(self) -> None: ...

    def prepared_key(self, *, detail: bool) -> str:
        return "drawn mouth"

    def prepare(
        self,
        avatar: AvatarFile,
        pictures: AvatarPictures,
        landmarks: np.ndarray,
        progress: Progress | None = None,
        *,
        detail: bool,
        tuning: None = None,
    ) -> AvatarFace:
        middles = landmarks[:, 48:].mean(axis=1).round().astype(np.int32)
        boxes = np.concatenate([middles - SIDE // 2, middles + SIDE // 2], axis=1)
        mask = np.full((SIDE, SIDE), 255, np.uint8)
        return AvatarFace(boxes, boxes, (mask,) * len(pictures), np.zeros((len(pictures), 1)))

    def read_tuning(self, data: bytes) -> None:
        raise ValueError("a drawn mouth learns nothing")

    def restore(self, avatar: AvatarFile, arrays: Mapping[str, np.ndarray]) -> AvatarFace:
        return AvatarFace.from_arrays(arrays, avatar.frame_count)


def model_directory(settings: Settings) -> Path:
    return Path()


def find_problems(settings: Settings) -> list[str]:
    return []


def speech_windows(settings: Settings) -> Windows:
    return Windows()


def load_configured(settings: Settings, device: str | None) -> DrawnMouth:
    return DrawnMouth(options(settings).widest)
