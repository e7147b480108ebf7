"""Finds start and end of speech in a stream of audio, independent of how it is cut.

Knows probabilities (`silero`) and hysteresis, not their use. Times are counted in samples of the
stream, not by a clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .silero import BLOCK_SAMPLES, SileroStream

__all__ = [
    "ANNOUNCED_WITHIN_SAMPLES",
    "VAD_RATE",
    "SpeechStarted",
    "SpeechStopped",
    "VadEvent",
    "VoiceActivity",
]

VAD_RATE = 16_000

_HYSTERESIS = 0.15
"""Speech continues down to this much below the threshold, because word endings are weak."""

_ONSET_BLOCKS = 2
"""Consecutive blocks that start speech (64 ms), so that a click does not."""

_UNSURE_BLOCKS = 7
"""Blocks of voice that interrupt, if the network is sure of none of them: where a hum begins, it
takes it for a voice for some blocks. Of speech it is sure in the first three."""
_SURE = 0.7
"""It is sure from this share of the way from the threshold to 1."""

_SETTLING_BLOCKS = 8
"""No speech is announced in a stream's first 256 ms. A microphone starts with background noise, and
the network, without context, may classify that step as voice, for 200 ms at most. Speech from the
first sample on is announced after that, with its true start."""

ANNOUNCED_WITHIN_SAMPLES = _SETTLING_BLOCKS * BLOCK_SAMPLES
"""Maximum delay of an announcement after the start of speech, in samples evaluated."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech started. ``audio_start_ms`` is on the stream's timeline, prefix padding included."""

    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Silence lasted ``silence_ms``. ``audio_end_ms`` is where that was known, as in the Realtime
    API: it includes the silence. ``voice_end_ms`` is where the voice itself ended."""

    audio_end_ms: int
    voice_end_ms: int


VadEvent = SpeechStarted | SpeechStopped


class VoiceActivity:
    """A detector for one stream of float32 mono at 16 kHz.

    ``probability`` takes the stream's next `BLOCK_SAMPLES` samples and says how likely they are
    speech; by default Silero's network. Raises `SileroError` where its weights are missing.
    """

    def __init__(
        self,
        threshold: float = 0.5,
        prefix_padding_ms: int = 300,
        silence_ms: int = 500,
        probability: Callable[[Array], float] | None = None,
    ) -> None:
        self.speaking = False
        self.configure(threshold, prefix_padding_ms, silence_ms)
        self._probability = probability or SileroStream().probability
        self._pending = np.empty(0, np.float32)
        self._seen = 0  # samples evaluated so far
        self._onset = 0  # blocks in a row above the threshold
        self._peak = 0.0  # the highest probability of these
        self._voice_end = 0  # sample after the last block that was voice
        self._free_from = 0  # padding never reaches back into the speech before

    @property
    def silent_ms(self) -> int:
        """How long the stream has been without voice at its end, from the last speech on."""
        return _ms(self._seen - self._voice_end)

    def configure(self, threshold: float, prefix_padding_ms: int, silence_ms: int) -> None:
        """Change the settings, during speech too."""
        self._threshold = threshold
        self._sure = threshold + _SURE * (1 - threshold)
        self._goes_on_above = max(threshold - _HYSTERESIS, 0.01)
        self.prefix_padding_ms = prefix_padding_ms
        self._padding = prefix_padding_ms * VAD_RATE // 1000
        self.set_silence_ms(silence_ms)

    def set_silence_ms(self, silence_ms: int) -> None:
        """The silence that ends speech, also of speech that is silent already."""
        self._silence = silence_ms * VAD_RATE // 1000

    def forget(self) -> None:
        """Drop the state: continuing speech is new speech that starts here at the earliest."""
        self.speaking, self._onset, self._peak = False, 0, 0.0
        self._free_from = self._seen + len(self._pending)

    def push(self, samples: Array, *, min_voice_ms: int = 0) -> list[VadEvent]:
        """Add audio; returns the resulting events in order.

        ``min_voice_ms``: continuous voice that starts speech, if longer than the default. Of some
        of it the network must be sure, or it must last longer.
        """
        onset_blocks = max(_ONSET_BLOCKS, -(-min_voice_ms * VAD_RATE // (1000 * BLOCK_SAMPLES)))
        audio = np.concatenate([self._pending, samples])
        whole = len(audio) - len(audio) % BLOCK_SAMPLES
        self._pending = audio[whole:].copy()
        events = []
        for start in range(0, whole, BLOCK_SAMPLES):
            event = self._judge(audio[start : start + BLOCK_SAMPLES], onset_blocks)
            if event is not None:
                events.append(event)
        return events

    def _judge(self, block: Array, onset_blocks: int) -> VadEvent | None:
        level = self._probability(block)
        self._seen += BLOCK_SAMPLES
        if self.speaking:
            return self._while_speaking(level)
        begins = self._threshold if self._onset < _ONSET_BLOCKS else self._goes_on_above
        self._onset = self._onset + 1 if level >= begins else 0
        self._peak = max(self._peak, level) if self._onset else 0.0
        if onset_blocks > _ONSET_BLOCKS and self._peak < self._sure:
            onset_blocks = max(onset_blocks, _UNSURE_BLOCKS)
        if self._onset < onset_blocks or self._seen < _SETTLING_BLOCKS * BLOCK_SAMPLES:
            return None
        onset = self._seen - self._onset * BLOCK_SAMPLES
        self.speaking, self._onset, self._peak, self._voice_end = True, 0, 0.0, self._seen
        return SpeechStarted(_ms(max(onset - self._padding, self._free_from, 0)))

    def _while_speaking(self, level: float) -> SpeechStopped | None:
        if level >= self._goes_on_above:
            self._voice_end = self._seen
        if self._seen - self._voice_end < self._silence:
            return None
        self.speaking, self._free_from = False, self._seen
        return SpeechStopped(_ms(self._seen), _ms(self._voice_end))


def _ms(samples: int) -> int:
    return samples * 1000 // VAD_RATE
