"""Splits a stream of microphone audio into turns with their audio.

Voice activity is detected at 16 kHz; the audio of a turn has the input's samples. This module knows
voice activity and sample counts, not the use of a turn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsavatar.media.audio import resample
from wsavatar.media.low_delay import LowDelayResampler

from .silero import BLOCK_SAMPLES
from .vad import ANNOUNCED_WITHIN_SAMPLES, VAD_RATE, SpeechStarted, VadEvent, VoiceActivity

__all__ = ["TurnAudio", "TurnBegan", "TurnEnded", "TurnEvent", "Turns"]

_RESAMPLER_DELAY_S = 0.005
"""Maximum delay of a resampler."""

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TurnBegan:
    """The user speaks, from ``audio_start_ms`` on the stream's timeline."""

    audio_start_ms: int


@dataclass(frozen=True, slots=True)
class TurnAudio:
    """The next audio of the turn: float32 mono at the stream's rate, without gaps."""

    samples: Array


@dataclass(frozen=True, slots=True)
class TurnEnded:
    """The user has stopped; the turn's audio ends at ``audio_end_ms``."""

    audio_end_ms: int


TurnEvent = TurnBegan | TurnAudio | TurnEnded


class Turns:
    """Finds turns in a stream. Audio outside turns is dropped, except for the padding.

    ``rate``: samples per second of the stream. ``start_ms``: its start on the session's timeline,
    on which all times are.
    """

    def __init__(self, vad: VoiceActivity, rate: int, start_ms: int = 0) -> None:
        self.vad = vad
        self.rate = rate
        self._to_vad = LowDelayResampler(rate, VAD_RATE)
        self._kept = np.empty(0, np.float32)  # received and not returned
        self._kept_from = 0  # its first sample's number at `rate`, from `_origin_ms` on
        self._origin_ms = start_ms  # time of sample 0
        self._vad_origin_ms = start_ms  # time of the detector's sample 0
        self._cleared_ms = start_ms  # no turn reaches back behind this
        self._is_open = False  # a turn was begun and has not ended
        self._early: list[VadEvent] = []  # found as the rate changed

    @property
    def position_ms(self) -> int:
        """Start of the audio that was not returned yet."""
        return self._ms(self._kept_from)

    @property
    def silent_ms(self) -> int:
        """Silence at the end of what was received, in or after a turn."""
        return self.vad.silent_ms

    def push(self, samples: Array, *, min_voice_ms: int = 0) -> list[TurnEvent]:
        """Add audio; returns the resulting events in order.

        A turn starts after ``min_voice_ms`` of continuous voice.
        """
        self._kept = np.concatenate([self._kept, samples])
        events: list[TurnEvent] = []
        early, self._early = self._early, []
        found = self.vad.push(self._to_vad.push(samples), min_voice_ms=min_voice_ms)
        for event in (*early, *found):
            if isinstance(event, SpeechStarted):
                start_ms = max(self._vad_origin_ms + event.audio_start_ms, self._cleared_ms)
                self._drop(self._position(start_ms))
                self._is_open = True
                events.append(TurnBegan(start_ms))
            else:
                end_ms = self._vad_origin_ms + event.audio_end_ms
                events += self._audio(self._position(end_ms))
                self._is_open = False
                # The detector may be some samples behind the audio returned.
                events.append(TurnEnded(max(end_ms, self._ms(self._kept_from))))
        if self.vad.speaking:
            events += self._audio(self._end)
        else:
            self._drop(self._end - self._lookback(min_voice_ms))
        return events

    def clear(self) -> list[TurnEvent]:
        """Drop audio received so far; a turn in progress ends here."""
        was_open, self._is_open = self._is_open, False
        self.vad.forget()
        self._drop(self._end)
        self._early = []
        self._cleared_ms = self._ms(self._end)
        return [TurnEnded(self._ms(self._end))] if was_open else []

    def change_rate(self, rate: int) -> None:
        """Continue at another rate, within a turn too."""
        if rate == self.rate:
            return
        self._origin_ms = self._ms(self._kept_from)
        self._kept = resample(self._kept, self.rate, rate)
        self._kept_from = 0
        self._early += self.vad.push(self._to_vad.flush())
        self.rate, self._to_vad = rate, LowDelayResampler(rate, VAD_RATE)

    @property
    def _end(self) -> int:
        return self._kept_from + len(self._kept)

    def _lookback(self, min_voice_ms: int) -> int:
        """Samples to keep, because a turn is detected late."""
        onset = max(ANNOUNCED_WITHIN_SAMPLES, min_voice_ms * VAD_RATE // 1000 + BLOCK_SAMPLES)
        judged_late = (onset + BLOCK_SAMPLES) / VAD_RATE + _RESAMPLER_DELAY_S
        return int((self.vad.prefix_padding_ms / 1000 + judged_late) * self.rate)

    def _position(self, ms: int) -> int:
        return (ms - self._origin_ms) * self.rate // 1000

    def _ms(self, position: int) -> int:
        return self._origin_ms + position * 1000 // self.rate

    def _audio(self, end: int) -> list[TurnEvent]:
        audio = self._kept[: max(0, end - self._kept_from)]
        self._drop(end)
        return [TurnAudio(audio)] if len(audio) else []

    def _drop(self, until: int) -> None:
        count = min(max(until - self._kept_from, 0), len(self._kept))
        self._kept = self._kept[count:]
        self._kept_from += count
