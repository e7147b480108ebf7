"""What cuts avatars out of their background while the server runs: the network of the package.

It is loaded for the first avatar that needs it, not at the start. A part of
`wsavatar.serve.assembly`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from wsavatar.avatars.person_masks import MaskMaker
from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.machine import usable_cores
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
        """Pictures with their masks, in order; as many are made at once as there are cores."""
        mask = self._mask()

        def pair(number: int) -> tuple[np.ndarray, np.ndarray]:
            picture = pictures[number]
            return picture, mask.masks([picture], [landmarks[number]])[0]

        cores = usable_cores()
        with ThreadPoolExecutor(cores, "find-person") as threads:

            def begin(number: int) -> Future[tuple[np.ndarray, np.ndarray]]:
                try:
                    return threads.submit(pair, number)
                except RuntimeError as error:  # the process waits for this thread to end
                    raise WsavatarError("the server stops") from error

            numbers = iter(range(len(landmarks)))
            try:
                waiting = deque(begin(n) for n in islice(numbers, cores + 1))
                while waiting:
                    yield waiting.popleft().result()
                    waiting.extend(begin(n) for n in islice(numbers, 1))
            finally:
                threads.shutdown(wait=False, cancel_futures=True)

    def _mask(self) -> PersonMask:
        from wsavatar.person.mask import load_person_mask

        with self._loading:
            if self._loaded is None:
                self._loaded = load_person_mask(self._settings)
            return self._loaded
