"""Tells the user's voice from the avatar's own voice that loudspeakers bring back.

The microphone hears what the client plays: later, quieter and changed by the room. A block of
microphone audio whose power the avatar's audio explains is not the user's voice. In three steps:

* *Delay* (`echo_delay`): where in what the client plays is the microphone's last sound?
* *Gain*: power of the echo over that of the audio, in bands, learned while the two match. An echo
  is never louder than what is heard, so a gain also falls where less is heard.
* *Decision*: the user speaks if half of a block's power is above echo, reverberation and noise,
  each with a margin.

Without an echo nothing is taken away and nothing waits. Only in the first second and a half that a
client plays, while it is not known whether there is an echo, must voice last longer. This module
knows blocks and positions in audio, not how they are played.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .echo_delay import ECHO_RATE, FOUND, SILENCE, WINDOW, EchoDelay, EchoReference
from .silero import BLOCK_SAMPLES

__all__ = ["ECHO_RATE", "EchoGuard", "EchoReference"]

Array = NDArray[np.float32]
Bands = NDArray[np.float64]

_VOICE = 0.3
"""Probability of any voice from which sound is searched for."""
_SEARCH_EVERY = 4
"""Blocks of voice to the next search, where the delay is known."""
_SURE = round(1.6 * ECHO_RATE)
"""Audio that was played without a match, after which there is no echo."""
_UNSURE_BLOCKS = 8
"""Blocks of voice in a row that are the user's before that."""
_MARGIN = 4.0
"""Of the expected echo; four times that at the first match, when the gain is least known."""
_NOISE_MARGIN = 8.0
"""Of the least power of a band in 2 s, for noise is as loud as that only once."""
_CERTAIN = 18.0
"""Strength of a match that is never by chance."""
_HALF, _MORE = 0.5, 0.25
"""Share of a block's power that makes it the user's; and of a block that follows one. Between two
others of the user's it is, too: a loud syllable of the avatar may hide it."""
_EVEN, _BEYOND = 3.0, 0.1
"""A band counts by its power up to three times that of most bands, and by a tenth of what is more,
because rooms resonate."""
_CONTRADICTIONS = 3
"""So often a match is this strong in blocks that seem to be the user's, before it is believed."""
_LINGERS = 0.95
"""What is left of the loudest echo after a block: 20 dB less in 1.4 s."""
_NOISE_BLOCKS = 64
_NOISE_SMOOTHING = 0.7
_MEMORY = 0.9
"""Weight of what was learned before, at each match."""
_MUCH_LESS = 0.1
"""Share of the expected echo; where less is heard the gain is wrong."""
_EVENNESS = 0.02
"""A band with less than this share of the mean band's power has the mean gain."""

_HOP = BLOCK_SAMPLES // 2
_BAND_EDGES_HZ = (200, 400, 600, 850, 1150, 1500, 2000, 2600, 3400, 4500, 6500)
_BANDS = len(_BAND_EDGES_HZ) - 1
_EDGES = [round(hz * BLOCK_SAMPLES / ECHO_RATE) for hz in _BAND_EDGES_HZ]
_HANN = np.hanning(BLOCK_SAMPLES + 1)[:-1].astype(np.float32)
_TAIL_HOPS = 16
_DECAY = 10**-0.19
"""Of reverberation in a hop of 16 ms: 60 dB in 0.5 s."""
_TAIL = _DECAY ** np.maximum(np.arange(_TAIL_HOPS + 1, -1, -1) - 1.0, 0.0)[:, None]
"""Weights of the hops from the oldest that still reverberates to one after the block."""


class EchoGuard:
    """The probability of the user's voice in a stream of blocks at `ECHO_RATE`.

    ``probability`` says it of any voice. ``playing`` gives the responses that may be in the
    microphone now, a few at most.
    """

    def __init__(
        self,
        probability: Callable[[Array], float],
        playing: Callable[[], Sequence[EchoReference]],
    ) -> None:
        self._any_voice = probability
        self._playing = playing
        self._heard = np.zeros(WINDOW, np.float32)
        self._end = 0  # of `_heard` in the stream
        self._behind = 0  # samples that arrived with this block and are behind it
        self._voiced = 0  # blocks with voice in a row
        self._smooth: Bands = np.zeros(_BANDS)
        self._quiet = deque[Bands](maxlen=_NOISE_BLOCKS)
        self._delays: list[EchoDelay] = []
        self._gain = _Gain()
        self._contradictions = 0
        self._users = deque([False] * 3, maxlen=3)  # whether the last blocks are the user's
        self._loudest = 0.0  # echo that is expected, not long ago
        self._played = 0  # samples that were played

    def arrived(self, samples: int) -> None:
        """So many samples arrive at once, of which the next blocks are made."""
        self._behind += samples

    def probability(self, block: Array) -> float:
        """Probability, in [0, 1], that the user speaks in the next [BLOCK_SAMPLES]."""
        level = self._any_voice(block)
        self._heard = np.concatenate([self._heard[len(block) :], block])
        self._end += len(block)
        self._behind = max(self._behind - len(block), 0)
        self._voiced = self._voiced + 1 if level >= _VOICE else 0
        power = _powers(block)[0]
        self._smooth = _NOISE_SMOOTHING * self._smooth + (1 - _NOISE_SMOOTHING) * power
        self._quiet.append(self._smooth)
        known = {id(delay.reference): delay for delay in self._delays}
        self._delays = [known.get(id(one)) or EchoDelay(one) for one in self._playing()]
        audible = [one for one in self._delays if one.look(self._behind / ECHO_RATE)]
        return 0.0 if audible and self._is_echo(power, audible) else level

    def _is_echo(self, power: Bands, audible: Sequence[EchoDelay]) -> bool:
        matches = [one.search(self._heard, self._end) for one in audible if self._searches(one)]
        match = max(matches, default=0.0)
        if any(one.has_begun for one in audible):
            self._played += BLOCK_SAMPLES
        if not self._gain.known and any(one.offset is None for one in audible):
            return self._may_be_echo(match)
        noise = np.min(self._quiet, axis=0)
        rows = [self._rows(one) for one in audible]
        echo = np.sum([(one * _TAIL[-len(one) :]).max(axis=0) for one in rows], axis=0)
        is_echo = self._explains(power, echo, noise)
        if all(one.offset is not None for one in audible):
            steady = np.sum([one[-4:].min(axis=0) for one in rows], axis=0)
            if match >= FOUND and self._may_learn(match, is_echo):
                lasts = 4 * steady >= echo  # elsewhere echo begins, or reverberation is left
                self._gain.learn(np.maximum(power - noise, 0) * lasts, echo * lasts)
            elif not match:
                self._gain.limit(power, steady)
        return is_echo

    def _may_be_echo(self, match: float) -> bool:
        """Where it is not known yet how loud an echo is."""
        if self._played >= _SURE:  # there was none: a weak match may be by chance
            return match >= _CERTAIN
        return match > 0 or self._voiced < _UNSURE_BLOCKS

    def _may_learn(self, match: float, is_echo: bool) -> bool:
        """From a block that is no echo only where that contradicts the matches again and again: the
        echo has become louder."""
        if is_echo:
            self._contradictions = 0
        elif match >= _CERTAIN:
            self._contradictions += 1
        return is_echo or self._contradictions >= _CONTRADICTIONS

    def _explains(self, power: Bands, echo: Bands, noise: Bands) -> bool:
        """Whether echo and noise explain most of a block's power."""
        if not self._gain.known:
            return True  # it was found twice
        expected = _MARGIN * (1 + 3 / self._gain.matches) * self._gain.value * echo
        self._loudest = max(_LINGERS * self._loudest, float(expected.sum()))
        if self._loudest < noise.sum():
            return False  # no echo that could be heard
        more = np.maximum(power - expected - _NOISE_MARGIN * noise, 0)
        weight = np.minimum(power, _EVEN * np.median(power) + _BEYOND * power)
        share = float(np.sum(weight * more / (power + SILENCE**2)) / (np.sum(weight) + SILENCE**2))
        self._users.append(share >= (_MORE if self._users[-1] else _HALF))
        return not (self._users[-1] or sum(self._users) >= 2)

    def _searches(self, delay: EchoDelay) -> bool:
        if delay.offset is None:
            return self._voiced > 0
        return self._voiced > 0 and self._voiced % _SEARCH_EVERY == 0

    def _rows(self, delay: EchoDelay) -> Bands:
        """Powers of the audio that this block may be an echo of, hop by hop: [hops, bands]."""
        if delay.offset is None:
            loudest: Bands = _powers(delay.around).max(axis=0, keepdims=True)
            return loudest
        first = self._end - BLOCK_SAMPLES - delay.offset
        start = first - _TAIL_HOPS * _HOP
        return _powers(delay.reference.read(start, first + BLOCK_SAMPLES + _HOP))


class _Gain:
    """Power of the echo over that of the avatar's audio, in each band."""

    def __init__(self) -> None:
        self.matches = 0
        self.value: Bands = np.zeros(_BANDS)
        self._heard: Bands = np.zeros(_BANDS)
        self._played: Bands = np.zeros(_BANDS)

    @property
    def known(self) -> bool:
        return self.matches > 0

    def learn(self, heard: Bands, played: Bands) -> None:
        """So much was heard of what was played."""
        if played.sum() < SILENCE:
            return
        self.matches += 1
        self._heard = _MEMORY * self._heard + heard
        self._played = _MEMORY * self._played + played
        mean = self._heard.sum() / self._played.sum()
        even = _EVENNESS * self._played.mean()
        self.value = (self._heard + mean * even) / (self._played + even)

    def limit(self, heard: Bands, played: Bands) -> None:
        """No more than this can have been echo."""
        if self.known and heard.sum() < _MUCH_LESS * (self.value * played).sum():
            self.learn(heard, played)


def _powers(samples: Array) -> Bands:
    """Power in each band of each hop: [hops, bands]; in sum about the mean square."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, BLOCK_SAMPLES)[::_HOP]
    spectrum = np.abs(np.fft.rfft(frames * _HANN)) ** 2
    scale = 2 / (BLOCK_SAMPLES * float(np.sum(_HANN**2)))
    bands: Bands = np.add.reduceat(spectrum, _EDGES, axis=1)[:, :_BANDS] * scale
    return bands
