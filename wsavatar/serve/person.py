"""What cuts avatars out of their background while the server runs: the network of the package.

It is loaded for the first avatar that needs it, not at the start. A part of
`wsavatar.serve.assembly`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from wsavatar.avatars.person_masks import MaskMaker
from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.resources import embedded_weights

if TYPE_CHECKING:
    from wsavatar.person.mask import PersonMask

__all__ = ["mask_maker"]


def mask_maker(settings: Settings) -> MaskMaker:
    """The maker of masks for avatars' stores."""
    weights = embedded_weights() / "person" / "network.safetensors"
    digest = hashlib.sha256(weights.read_bytes() if weights.is_file() else b"")
    return MaskMaker(digest.hexdigest()[:16], _ClipMasks(settings))


class _ClipMasks:
    """The masks of a clip, in order, without flicker."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._loading = threading.Lock()
        self._loaded: PersonMask | None = None

    def __call__(
        self, pictures: Sequence[np.ndarray], landmarks: np.ndarray
    ) -> Iterator[np.ndarray]:
        from wsavatar.person.steady import steady

        return steady(self._pairs(pictures, landmarks))

    def _pairs(
        self, pictures: Sequence[np.ndarray], landmarks: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        mask = self._mask()
        for picture, points in zip(pictures, landmarks, strict=True):
            if not threading.main_thread().is_alive():  # the process waits for this thread to end
                raise WsavatarError("the server stops")
            yield picture, mask.masks([picture], [points])[0]

    def _mask(self) -> PersonMask:
        from wsavatar.person.mask import load_person_mask

        with self._loading:
            if self._loaded is None:
                self._loaded = load_person_mask(self._settings)
            return self._loaded
