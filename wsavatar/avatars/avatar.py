"""A prepared avatar: everything that a frame needs besides the audio.

This module knows neither sessions nor how a face is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from wsavatar.avatars.background import ORIGINAL, TRANSPARENT, Background, CutOut
from wsavatar.avatars.format import AvatarFile
from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.faces.masks import Masks
from wsavatar.media.pictures import Pictures

__all__ = ["AvatarInfo", "PreparedAvatar", "cycle_index"]


class AvatarInfo(Protocol):
    """A prepared avatar as a session knows it. ``fps``: of its idle cycle.

    ``background``: the name of what is behind it (`wsavatar.avatars.background`). ``digest``: of
    its files as they were when it was prepared (`wsavatar.avatars.cache.cache_key`). The last four
    are as its ``avatar.json`` says (docs/avatars.md); empty: it does not.
    """

    @property
    def id(self) -> str: ...

    @property
    def fps(self) -> float: ...

    @property
    def frame_count(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def background(self) -> str: ...

    @property
    def digest(self) -> str: ...

    @property
    def voice(self) -> str: ...

    @property
    def language(self) -> str: ...

    @property
    def instructions(self) -> str: ...

    @property
    def greeting(self) -> str: ...


@dataclass(frozen=True, slots=True, weakref_slot=True)
class PreparedAvatar:
    """A prepared avatar: its pictures, and a face model's data of it.

    ``region`` (x, y, w, h) encloses every pixel that a drawn face can change, on the grid of
    `AvatarFace.region`; it is sent in mouth-region mode.
    """

    id: str
    name: str
    width: int
    height: int
    fps: float
    pictures: Pictures  # n, with the mouth at rest, before the background
    region: tuple[int, int, int, int]
    face: AvatarFace
    voice: str = ""
    language: str = ""
    instructions: str = ""
    greeting: str = ""
    background: str = ORIGINAL
    digest: str = ""

    @classmethod
    def of(
        cls, avatar: AvatarFile, pictures: Pictures, face: AvatarFace, digest: str = ""
    ) -> PreparedAvatar:
        """Put an avatar's file, its pictures and its face together."""
        return cls(
            avatar.id,
            avatar.name,
            avatar.width,
            avatar.height,
            avatar.fps,
            pictures,
            face.region(avatar.width, avatar.height),
            face,
            avatar.voice,
            avatar.language,
            avatar.instructions,
            avatar.greeting,
            digest=digest,
        )

    @property
    def frame_count(self) -> int:
        return len(self.pictures)

    @property
    def channels(self) -> int:
        """Of its pictures: 3, or 4 with an alpha channel."""
        return 4 if self.background == TRANSPARENT else 3

    def before(self, background: Background, masks: Masks) -> PreparedAvatar:
        """The same avatar before another background; ``masks``: where the person is."""
        face = self.face
        if face.jaw is None:  # what a model drew of the old background is not shown
            face = replace(face, masks=_covered(face, masks))
        pictures = CutOut(self.pictures, masks, background)
        return replace(self, pictures=pictures, face=face, background=background.name)

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self.pictures.nbytes + self.face.nbytes


def _covered(face: AvatarFace, masks: Masks) -> Masks:
    """The masks of the patches, where the person is."""
    return Masks(
        cv2.multiply(own, np.ascontiguousarray(mask[top:bottom, left:right]), scale=1 / 255)
        for own, mask, (left, top, right, bottom) in zip(
            face.masks, masks, face.paste_boxes.tolist(), strict=True
        )
    )


def cycle_index(frame_index: int, frame_count: int) -> int:
    """Index of the source frame: forward, then backward, without repeating the ends.

    >>> [cycle_index(i, 4) for i in range(9)]
    [0, 1, 2, 3, 2, 1, 0, 1, 2]
    """
    if frame_count < 2:
        return 0
    period = 2 * (frame_count - 1)
    offset = frame_index % period
    return offset if offset < frame_count else period - offset
