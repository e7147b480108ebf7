"""A face model that is none: a square whose grey is how loud the speech is. For `test_registry`.

It is what a new face model must bring, all of it: windows, what it keeps of an avatar, drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from wsavatar.avatars.format import AvatarFile
from wsavatar.config import Settings
from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.faces.base import Progress

RATE = 8000
SIDE = 16


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
    def open_chunker(self, fps: Fraction, chunk_ms: int, first_ms: int) -> LoudnessChunker:
        return LoudnessChunker(fps)


class PlainFace:
    windows = Windows()
    device = "cpu"
    batch_sizes = ()

    def warm_up(self, batch_sizes: Sequence[int]) -> None: ...

    def conditions(self) -> PlainFace:
        return self

    def make(self, chunks: Sequence[tuple[int, LoudnessChunk]]) -> tuple[list[np.ndarray], int]:
        return [chunk.loudness for _, chunk in chunks], sum(c.frame_count for _, c in chunks)

    def generate(self, inputs: Sequence[np.ndarray], conditions: Sequence[float]) -> np.ndarray:
        greys = (np.array(conditions) * 255).round().astype(np.uint8)
        return np.broadcast_to(greys[:, None, None, None], (len(greys), SIDE, SIDE, 3)).copy()

    def memory_used(self) -> float:
        return 0.0

    def release(self) -> None: ...

    def prepared_key(self, *, detail: bool) -> str:
        return "plain"

    def prepare(
        self,
        avatar: AvatarFile,
        pictures: Sequence[np.ndarray],
        landmarks: np.ndarray,
        progress: Progress | None = None,
        *,
        detail: bool,
    ) -> AvatarFace:
        x, y = landmarks[:, :, 0].mean(), landmarks[:, :, 1].mean()
        box = np.array([x - 8, y - 8, x + 8, y + 8]).astype(np.int32)
        boxes = np.tile(box, (len(pictures), 1))
        mask = np.full((SIDE, SIDE), 255, np.uint8)
        return AvatarFace(boxes, boxes, (mask,) * len(pictures), np.zeros((len(pictures), 1)))

    def restore(self, avatar: AvatarFile, arrays: Mapping[str, np.ndarray]) -> AvatarFace:
        return AvatarFace.from_arrays(arrays, avatar.frame_count)


def model_directory(settings: Settings) -> Path:
    return Path()


def find_problems(settings: Settings) -> list[str]:
    return []


def speech_windows(settings: Settings) -> Windows:
    return Windows()


def load_configured(settings: Settings, device: str | None) -> PlainFace:
    return PlainFace()
