"""What a microphone hears of loudspeakers: the same sound later, quieter, with a room around it.

Pure. The room is one direct path and noise that decays exponentially, as is usual for
reverberation behind its first reflections.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["Loudspeaker"]

Array = NDArray[np.float32]

_FIRST_REFLECTION_S = 0.002


class Loudspeaker:
    """``gain_db``: power of the echo over that of the sound. ``delay_s``: of the direct path.

    ``reverberation_s``: time in which reverberation decays by 60 dB; 0: there is none.
    ``direct_db``: power of the direct path over that of the reverberation.
    """

    def __init__(
        self,
        rate: int,
        *,
        delay_s: float,
        gain_db: float = -20.0,
        reverberation_s: float = 0.4,
        direct_db: float = 3.0,
        seed: int = 0,
    ) -> None:
        random = np.random.default_rng(seed)
        delay = round(delay_s * rate)
        count = round(reverberation_s * rate)
        path = np.zeros(delay + max(count, 1))
        if count:
            tail = random.standard_normal(count) * 10 ** (-3 * np.arange(count) / count)
            tail[: round(_FIRST_REFLECTION_S * rate)] = 0
            path[delay:] = tail * np.sqrt(10 ** (-direct_db / 10) / np.sum(tail**2))
        path[delay] = 1.0
        self._path = path * 10 ** (gain_db / 20) / np.sqrt(np.sum(path**2))
        self._later: NDArray[np.float64] = np.zeros(len(path) - 1)

    def push(self, played: Array) -> Array:
        """What is heard while this is played: float32 of the same length."""
        size = 1 << (len(played) + len(self._path) - 2).bit_length()
        spectrum = np.fft.rfft(played, size) * np.fft.rfft(self._path, size)
        both = len(played) + len(self._path) - 1
        whole = np.fft.irfft(spectrum, size)[:both].astype(np.float64)
        whole[: len(self._later)] += self._later
        self._later = whole[len(played) :]
        return whole[: len(played)].astype(np.float32)
