"""A stream of microphone audio, taken apart into turns that carry their own audio.

Knows voice activity and sample counts; not what a dialogue does with a turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .silero import BLOCK_SAMPLES
from .vad import ANNOUNCED_WITHIN_SAMPLES, VAD_RATE, SpeechStarted, VoiceActivity

__all__ = ["TurnAudio", "TurnBegan", "TurnEnded", "TurnEvent", "Turns"]

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TurnBegan:
    """Someone speaks. ``audio_start_ms``: since when, on the stream's timeline."""

    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class TurnAudio:
    """More of the turn: float32 mono at 16 kHz, from its beginning on without a gap."""

    samples: Array


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """They have stopped. ``audio_end_ms``: where the turn's audio ends."""

    audio_end_ms: int


TurnEvent = TurnBegan | TurnAudio | TurnEnded


class Turns:
    """Finds turns in a stream. Audio outside turns is let go of, but for the padding's length."""

    def __init__(self, vad: VoiceActivity, prefix_padding_ms: int) -> None:
        self._vad = vad
        self._kept = np.empty(0, np.float32)  # heard, and not given out
        self._kept_from = 0  # where on the stream it begins
        # A turn may turn out to have begun this long ago: padding, onset, and a block unjudged.
        padding = prefix_padding_ms * VAD_RATE // 1000
        self._keep = padding + ANNOUNCED_WITHIN_SAMPLES + BLOCK_SAMPLES

    def push(self, samples: Array) -> list[TurnEvent]:
        """Hear more; say what became of it, in order."""
        self._kept = np.concatenate([self._kept, samples])
        events: list[TurnEvent] = []
        for event in self._vad.push(samples):
            if isinstance(event, SpeechStarted):
                self._release(event.start_sample)
                events.append(TurnBegan(event.audio_start_ms))
            else:
                events += self._audio(event.end_sample)
                events.append(TurnEnded(event.audio_end_ms))
        if self._vad.speaking:
            events += self._audio(self._kept_from + len(self._kept))
        else:
            self._release(self._kept_from + len(self._kept) - self._keep)
        return events

    def _audio(self, end: int) -> list[TurnEvent]:
        count = end - self._kept_from
        audio = self._kept[:count]
        self._release(end)
        return [TurnAudio(audio)] if len(audio) else []

    def _release(self, until: int) -> None:
        count = min(max(until - self._kept_from, 0), len(self._kept))
        self._kept = self._kept[count:]
        self._kept_from += count
