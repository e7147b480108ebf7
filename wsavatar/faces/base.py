"""Interfaces of face models for the renderer, the avatars' store and sessions.

A model is a package beside this module, named in `wsavatar.faces.registry`. Nothing here knows a
model, its weights or torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from wsavatar.faces.avatar_face import AvatarFace

if TYPE_CHECKING:
    from wsavatar.avatars.format import AvatarFile

__all__ = [
    "AvatarPictures",
    "AvatarPreparer",
    "Chunk",
    "FaceModel",
    "Progress",
    "SpeechChunker",
    "SpeechConditions",
    "SpeechWindows",
]

Progress = Callable[[int, int], None]
"""Called with (frames done, frames in all)."""


class Chunk(Protocol):
    """Consecutive frames of one response, with all audio that they depend on.

    Other members are the model's. It can be pickled for a device's process.
    """

    @property
    def first_frame(self) -> int: ...

    @property
    def frame_count(self) -> int: ...

    @property
    def blocks(self) -> range:
        """Blocks of the response's audio that its frames depend on; neighbours share some.

        Features of all blocks cost the same, and are computed once for a stream.
        """


class SpeechChunker(Protocol):
    """Cuts one response's audio into chunks: push samples, then flush once."""

    @property
    def sample_rate(self) -> int:
        """Samples per second of `push`."""

    def push(self, samples: np.ndarray, /) -> Sequence[Chunk]:
        """Add float32 mono samples [n]; return the chunks now complete."""

    def flush(self) -> Sequence[Chunk]:
        """End of the audio: return the rest, ``ceil(seconds * fps)`` frames in all."""


class SpeechWindows(Protocol):
    """How a model takes speech: sample rate and windows. Known without loading its weights."""

    def open_chunker(
        self, fps: Fraction, chunk_ms: int, first_ms: int | None = None, /
    ) -> SpeechChunker:
        """A chunker for one response's audio, with chunks of about ``chunk_ms``; in its first
        second, of ``first_ms``.

        Raises ValueError for a rate or a length that is not positive.
        """


class SpeechConditions(Protocol):
    """Computes the conditions of a chunk's frames. Not thread-safe.

    It may cache features that a stream's next chunk needs again.
    """

    def make(self, chunks: Sequence[tuple[int, Any]], /) -> tuple[Sequence[Any], int]:
        """Pairs (stream, chunk) -> for each chunk, a row for each of its frames.

        And the number of blocks whose features were computed.
        """


class FaceModel(Protocol):
    """A loaded model on one device, for the renderer.

    Arrays are of the model's kind: numpy on a CPU, tensors elsewhere. Rows of conditions are passed
    to `generate` unchanged.
    """

    @property
    def windows(self) -> SpeechWindows: ...

    @property
    def device(self) -> Any:
        """Its device. ``str`` names it; on a GPU it is torch's device."""

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Batch sizes that run without padding; empty: any. Others are padded to the next."""

    def warm_up(self, batch_sizes: Sequence[int], /) -> None:
        """Prepare `generate` for these batch sizes, so that the first call is fast too."""

    def conditions(self) -> SpeechConditions:
        """A new instance, for one thread."""

    def generate(self, inputs: Any, conditions: Sequence[Any], /) -> Any:
        """b rows of `AvatarFace.inputs` and b conditions -> patches, uint8 [b, S, S, 3] RGB."""

    def memory_used(self) -> float:
        """Share of the device's memory in use by any program, 0 to 1; 0 where unknown."""

    def release(self) -> None:
        """Release cached memory of the device."""


class AvatarPictures(Protocol):
    """The pictures of an avatar. Taken one by one, since together they may not fit into memory."""

    def __len__(self) -> int: ...

    def part(self, index: int, region: tuple[int, int, int, int], /) -> np.ndarray:
        """A region (x, y, w, h) of one, uint8 [h, w, 3] RGB: costs less than the whole one."""


class AvatarPreparer(Protocol):
    """A loaded model, for the avatars' store. Thread-safe."""

    def prepared_key(self, *, detail: bool) -> str:
        """Identifies everything but the avatar that `prepare` depends on."""

    def prepare(
        self,
        avatar: AvatarFile,
        pictures: AvatarPictures,
        landmarks: np.ndarray,
        progress: Progress | None = None,
        *,
        detail: bool,
        tuning: Any = None,
    ) -> AvatarFace:
        """Prepare n ``pictures`` with landmarks [n, 68, 2]. Takes seconds.

        With or without `wsavatar.faces.avatar_face.Jaw`; ``tuning``: of `read_tuning`. Raises
        AvatarError with the frame whose face is not usable.
        """

    def read_tuning(self, data: bytes) -> Any:
        """What `wsavatar.faces.registry.finetune` learned of a person, checked, for `prepare`.

        Raises ValueError, with a sentence for the user, for data that does not fit this model.
        """

    def restore(self, avatar: AvatarFile, arrays: Mapping[str, np.ndarray]) -> AvatarFace:
        """The face of `AvatarFace.arrays`, checked. Raises ValueError or KeyError if unfit."""
