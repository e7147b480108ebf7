"""The last seconds of a response's audio and where in it the client is, for the echo guard.

Knows the estimate of the client's playback; not who asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from wsavatar.dialogue.echo_delay import ECHO_RATE
from wsavatar.media.low_delay import LowDelayResampler
from wsavatar.session.timeline import PlaybackEstimate

__all__ = ["PlayedAudio"]

_KEPT_S = 4.0
"""Of audio that was heard. What is to be heard is bounded by `response.MAX_AHEAD_S`."""
_REVERBERATES_S = 2.0
"""Longest time from the end of the audio to the end of its echo in the microphone."""


class PlayedAudio:
    """A `wsavatar.dialogue.echo_delay.EchoReference`. ``rate``: of the audio."""

    def __init__(self, rate: int, playback: PlaybackEstimate, clock: Callable[[], float]) -> None:
        self._to_echo = LowDelayResampler(rate, ECHO_RATE)
        self._playback = playback
        self._clock = clock
        self._pieces: deque[NDArray[np.float32]] = deque()
        self._first = 0  # sample of the first piece
        self._end = 0

    def add(self, samples: NDArray[np.float32]) -> None:
        """More audio was sent."""
        piece = self._to_echo.push(samples)
        self._pieces.append(piece)
        self._end += len(piece)
        oldest = round((self.position_s() - _KEPT_S) * ECHO_RATE)
        while self._pieces and self._first + len(self._pieces[0]) <= oldest:
            self._first += len(self._pieces.popleft())

    @property
    def may_be_heard(self) -> bool:
        """Whether it may be in the microphone now or later."""
        return self.position_s() < self._end / ECHO_RATE + _REVERBERATES_S

    def position_s(self, ago_s: float = 0.0) -> float:
        return self._playback.since_start_s(self._clock() - ago_s)

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        audio = np.zeros(max(stop - start, 0), np.float32)
        first = self._first
        for piece in self._pieces:
            begin, end = max(first, start), min(first + len(piece), stop)
            if begin < end:
                audio[begin - start : end - start] = piece[begin - first : end - first]
            first += len(piece)
        return audio
