"""What a face model learns of one person from a clip: the interface of ``run.py finetune``.

Nothing here knows a model, or what the learned bytes mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from wsavatar.errors import WsavatarError

__all__ = [
    "FinetuneError",
    "FinetuneProgress",
    "FinetuneWatch",
    "Finetuned",
    "Finetuner",
    "MouthQuality",
    "TalkingClip",
]

FinetuneProgress = Callable[[str, int, int], None]
"""Called with (what is done: "encode", "listen", "draw" or "learn"; steps done; steps in all)."""

LEAST_GAIN_DB = 0.1
LEAST_SHARPNESS = LEAST_MOVEMENT = 0.9
"""What may be lost of them: errors become smaller by blur, and by a mouth that moves less."""


class FinetuneError(WsavatarError, ValueError):
    """Nothing can be learned; the message says why, and what to do."""


@dataclass(frozen=True, slots=True)
class TalkingClip:
    """One person who talks: n pictures at a constant rate, and their sound."""

    pictures: Callable[[], Iterator[np.ndarray]]
    """The n pictures, uint8 [height, width, 3] RGB, from the first, whenever it is called."""
    fps: Fraction
    width: int
    height: int
    landmarks: np.ndarray  # float32 [n, 68, 2]
    seen: np.ndarray  # bool [n]: the face is to be seen
    audio: np.ndarray  # float32 mono, at the rate of the model's windows; begins with the pictures


@dataclass(frozen=True, slots=True)
class MouthQuality:
    """Drawn mouths against the true ones."""

    psnr_db: float  # mean over the frames
    sharpness: float  # gradient energy over the true one's, median: 1 is as sharp as the person
    movement: float  # of the mouth's pixels over time, over the true one: 1 is as lively

    def keeps(self, before: MouthQuality) -> bool:
        """Whether it is neither blurred nor moves less than before, or than the person."""
        return self.sharpness >= LEAST_SHARPNESS * min(
            before.sharpness, 1.0
        ) and self.movement >= LEAST_MOVEMENT * min(before.movement, 1.0)


@dataclass(frozen=True, slots=True)
class FinetuneWatch:
    """Who is told how learning goes."""

    progress: FinetuneProgress
    checked: Callable[[MouthQuality, MouthQuality], None]
    """Called now and then with (before, now): of a few frames that are not learned from, and are
    not those of `Finetuned`."""


@dataclass(frozen=True, slots=True)
class Finetuned:
    """What was learned, and how well frames are drawn that it was not learned from."""

    data: bytes
    before: MouthQuality
    after: MouthQuality
    held_out_frames: int

    @property
    def is_nearer(self) -> bool:
        """Nearer to the truth than before, clearly."""
        return self.after.psnr_db - self.before.psnr_db >= LEAST_GAIN_DB

    @property
    def is_better(self) -> bool:
        """Nearer to the truth, and neither by blur nor by moving less."""
        return self.is_nearer and self.after.keeps(self.before)


class Finetuner(Protocol):
    """A loaded model that can learn a person."""

    def __call__(self, clip: TalkingClip, seconds: float, watch: FinetuneWatch, /) -> Finetuned:
        """Learn the clip's person in about ``seconds``, or until Ctrl-C. Blocks.

        KeyboardInterrupt, once something was learned, ends learning: the best so far is judged and
        given. Raises FinetuneError.
        """
        ...
