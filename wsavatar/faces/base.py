"""What every face model has in common, as the renderer, the avatars' store and a session see it.

Shapes only: a model is a package beside this module, named in `wsavatar.faces.registry`. Nothing
here knows a model, its weights or torch.
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
    """Consecutive frames of one response, with all the audio that they depend on.

    What else it holds is its model's own. It can be pickled, to be sent to a device's process.
    """

    @property
    def first_frame(self) -> int: ...

    @property
    def frame_count(self) -> int: ...

    @property
    def blocks(self) -> range:
        """Which blocks of the response's audio its frames depend on; neighbours share some.

        A block's features cost the same wherever they are made, and are made once for a stream.
        """


class SpeechChunker(Protocol):
    """Cuts one response's audio into chunks: push samples, then flush once."""

    @property
    def sample_rate(self) -> int:
        """Samples per second that `push` takes."""

    def push(self, samples: np.ndarray, /) -> Sequence[Chunk]:
        """Add float32 mono samples [n]; return the chunks now complete."""

    def flush(self) -> Sequence[Chunk]:
        """The audio has ended: return the rest, so that frames total ``ceil(seconds * fps)``."""


class SpeechWindows(Protocol):
    """The sample rate and the windows in which a model takes speech.

    Known from its small files, without its weights.
    """

    def open_chunker(self, fps: Fraction, chunk_ms: int, /) -> SpeechChunker:
        """For one response's audio, cut about every ``chunk_ms`` of it.

        Raises ValueError for a rate or a length that is not positive.
        """


class SpeechConditions(Protocol):
    """Turns chunks into what conditions their frames. For one thread.

    It may keep what a stream's next chunk will need again.
    """

    def make(self, chunks: Sequence[tuple[int, Any]], /) -> tuple[Sequence[Any], int]:
        """(stream, chunk) each -> for each chunk, a row for each of its frames.

        And how many blocks' features had to be made for it.
        """


class FaceModel(Protocol):
    """A loaded model on one device, as the renderer sees it.

    Arrays are the model's own kind: numpy on a CPU, tensors elsewhere. Rows of conditions go back
    into `generate` as they came.
    """

    @property
    def windows(self) -> SpeechWindows: ...

    @property
    def device(self) -> Any:
        """Where it runs. ``str`` names it; on a GPU it is torch's device."""

    @property
    def batch_sizes(self) -> Sequence[int]:
        """Batch sizes that run as they are; empty: any. Others are filled up to the next."""

    def warm_up(self, batch_sizes: Sequence[int], /) -> None:
        """Make `generate` as fast as it gets at these batch sizes, the first call included."""

    def conditions(self) -> SpeechConditions:
        """New, for one thread of whoever draws."""

    def generate(self, inputs: Any, conditions: Sequence[Any], /) -> Any:
        """b rows of `AvatarFace.inputs` and b conditions -> patches, uint8 [b, S, S, 3] RGB."""

    def memory_used(self) -> float:
        """Share of the device's memory in use, by anyone, 0 to 1; 0 where it is not known."""

    def release(self) -> None:
        """Give memory that is only cached back to the device."""


class AvatarPreparer(Protocol):
    """A loaded model, as the avatars' store sees it. Any thread may call."""

    def prepared_key(self, *, detail: bool) -> str:
        """Changes with all that `prepare` depends on beside the avatar itself."""

    def prepare(
        self,
        avatar: AvatarFile,
        frames: np.ndarray,
        landmarks: np.ndarray,
        progress: Progress | None = None,
        *,
        detail: bool,
    ) -> AvatarFace:
        """Find the face in ``frames`` uint8 [n, H, W, 3], by landmarks [n, 68, 2]. Takes seconds.

        With `wsavatar.faces.avatar_face.Detail`, or without. Raises AvatarError naming the frame
        whose face has no place in the picture.
        """

    def restore(self, avatar: AvatarFile, arrays: Mapping[str, np.ndarray]) -> AvatarFace:
        """What `AvatarFace.arrays` gave, checked. Raises ValueError or KeyError if unfit."""
