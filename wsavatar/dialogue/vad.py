"""Where speech begins and ends in a stream of audio, however it is cut.

Knows probabilities (`silero`) and hysteresis; not who asks or what is done about it. It counts
samples of the stream, never by a clock.
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
"""Speech goes on down to this much below the threshold: word endings are faint."""

_ONSET_BLOCKS = 2
"""So many blocks in a row (64 ms) begin speech: a click is no word."""

_SETTLING_BLOCKS = 8
"""No speech is announced in a stream's first 256 ms. A microphone opens with the room's noise at
once, and the network, which has heard nothing yet, may take that step for a voice, for 200 ms at
most. Who does speak from the first sample on is found a moment later, from the first sample on."""

ANNOUNCED_WITHIN_SAMPLES = _SETTLING_BLOCKS * BLOCK_SAMPLES
"""Speech is announced at most this long after it began, of what was judged."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Speech began. ``audio_start_ms`` is on the stream's timeline, prefix padding included."""

    audio_start_ms: int

    @property
    def start_sample(self) -> int:
        return self.audio_start_ms * VAD_RATE // 1000


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """Silence lasted ``silence_ms``. ``audio_end_ms`` is where that was known, as in the Realtime
    API: it includes the silence. ``voice_end_ms`` is where the voice itself ended."""

    audio_end_ms: int
    voice_end_ms: int

    @property
    def end_sample(self) -> int:
        return self.audio_end_ms * VAD_RATE // 1000


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
        self._seen = 0  # samples judged so far
        self._onset = 0  # blocks in a row above the threshold
        self._voice_end = 0  # sample after the last block that was voice
        self._free_from = 0  # padding never reaches back into the speech before

    def configure(self, threshold: float, prefix_padding_ms: int, silence_ms: int) -> None:
        """Go on with other settings, in the middle of speech too."""
        self._threshold = threshold
        self._goes_on_above = max(threshold - _HYSTERESIS, 0.01)
        self.prefix_padding_ms = prefix_padding_ms
        self._padding = prefix_padding_ms * VAD_RATE // 1000
        self._silence = silence_ms * VAD_RATE // 1000

    def forget(self) -> None:
        """Speech so far does not count: what goes on is new speech, and begins here at the
        earliest."""
        self.speaking, self._onset = False, 0
        self._free_from = self._seen + len(self._pending)

    def push(self, samples: Array, *, min_voice_ms: int = 0) -> list[VadEvent]:
        """Receive more of the stream; say what became known by it, in order.

        ``min_voice_ms``: so much voice in a row begins speech, where that is more than usual.
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
        if self._onset < onset_blocks or self._seen < _SETTLING_BLOCKS * BLOCK_SAMPLES:
            return None
        onset = self._seen - self._onset * BLOCK_SAMPLES
        self.speaking, self._onset, self._voice_end = True, 0, self._seen
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
