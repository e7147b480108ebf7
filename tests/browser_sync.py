"""How far picture and sound were apart, from what a bystander of the page saw and heard.

Input is the report of ``browser_watch.js``. Nothing of the player's own bookkeeping enters: which
sample of a response was output when is found by correlating what was output with what the server
sent, and what was heard at a paint by reading `AudioContext.getOutputTimestamp()` at that paint.

Definitions
-----------
*Paint time*: the animation frame's timestamp plus one refresh interval, the moment at which the
compositor puts the canvas on the screen. What the screen itself adds is not known to a page.

*Heard at a paint*: the response's media time at the context time that is output at the paint time.
The output clock is read at every paint and jitters: some browsers' by the length of an audio
callback, because they pair the time now with the last callback's context time. A reading is
replaced by the median of those within `_NEAR_MS` of it.

*Sync error* of a frame: its pts minus what is heard at the paint that shows it first.

*Unpainted*: a frame during whose time the browser gave the page no animation frame to show it in.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import soxr

__all__ = ["WIRE_RATE", "Output", "Sync", "locate", "measure", "output_of", "response_audio"]

WIRE_RATE = 24_000
_WINDOW_S = 1.0
_SEARCH_S = 0.25
_AUDIBLE = 0.003
_NEAR_MS = 135.0


@dataclass(frozen=True, slots=True)
class Output:
    """What left the context: float32 samples from context frame ``first`` on, without a gap."""

    rate: int
    first: int
    samples: np.ndarray


@dataclass(frozen=True, slots=True)
class Sync:
    """What one response looked and sounded like."""

    indices: list[int]
    """Frames in the order in which they were first shown."""
    errors_ms: np.ndarray
    """Per frame of ``indices``."""
    unpainted: list[int]
    """Frames before the last one shown that no page could have shown."""
    refresh_ms: float
    wander_ms: float
    """How far the sound's place moved during the response: gaps and jumps."""

    def percentile(self, share: float) -> float:
        """|sync error| in ms that ``share`` percent of the frames stay within."""
        return float(np.percentile(np.abs(self.errors_ms), share, method="higher"))


def output_of(report: dict[str, Any]) -> Output:
    """Put the recorded blocks in their places. Between them nothing was output: silence."""
    blocks = [(frame, _pcm(data)) for frame, data in report["recorded"]]
    assert blocks, "nothing of the output was recorded"
    first, (last, tail) = blocks[0][0], blocks[-1]
    joined = np.zeros(last + len(tail) - first, np.float32)
    end = first
    for frame, samples in blocks:
        assert frame >= end, "the recording overlaps itself"
        joined[frame - first : frame - first + len(samples)] = samples
        end = frame + len(samples)
    return Output(int(report["sampleRate"]), first, joined)


def response_audio(report: dict[str, Any], generation: int) -> np.ndarray:
    """What the server sent of a response, float32 at WIRE_RATE. Its parts must join up."""
    parts = [(offset, _pcm(data)) for offset, data in report["responses"][str(generation)]]
    position = 0
    for offset, samples in parts:
        assert offset == position, f"audio jumps from sample {position} to {offset}"
        position += len(samples)
    return np.concatenate([samples for _, samples in parts])


def locate(output: Output, audio: np.ndarray) -> tuple[float, float]:
    """Context time (s) at which a response's first sample was output, and its wander (ms).

    The beginning is looked for in all of the output, then every audible second around there.
    """
    sent = soxr.resample(audio, WIRE_RATE, output.rate).astype(np.float32)
    window = int(_WINDOW_S * output.rate)
    search = int(_SEARCH_S * output.rate)
    places = []
    for start in range(0, len(sent) - window + 1, window):
        piece = sent[start : start + window]
        if np.sqrt(np.mean(piece**2)) < _AUDIBLE:
            continue
        if not places:
            found, likeness = _find(output.samples, piece)
        else:
            begin = max(0, places[-1] + start - search)
            around = output.samples[begin : begin + window + 2 * search]
            if len(around) < window + search:
                break  # the recording ends here
            found, likeness = _find(around, piece)
            found += begin
        assert likeness > 0.9, f"what was output is not what was sent (likeness {likeness:.2f})"
        places.append(found - start)
    assert places, "the output is silent: no second of the response was heard"
    first = float(np.median(places))
    wander_ms = (max(places) - min(places)) * 1000 / output.rate
    return (output.first + first) / output.rate, wander_ms


def measure(report: dict[str, Any], generation: int) -> Sync:
    """Compare pictures and sound of one response. Raises AssertionError where either is absent."""
    draws = [draw for draw in report["draws"] if draw[0] == generation]
    assert draws, f"no frame of response {generation} was drawn"
    start_s, wander_ms = locate(output_of(report), response_audio(report, generation))
    refresh_ms = float(np.median(np.diff(report["paints"])))
    paints, heard = _heard(report, start_s, refresh_ms)
    indices: list[int] = []
    errors: list[float] = []
    for _, index, pts_us, paint_ms in draws:
        if indices and index == indices[-1]:
            continue
        indices.append(index)
        errors.append(pts_us / 1000 - float(heard[np.searchsorted(paints, paint_ms)]))
    frames = {index: us / 1000 for own, index, us in report["received"] if own == generation}
    unpainted = [
        index
        for index in range(max(indices))
        if index in frames
        and index + 1 in frames
        # Its turn begins at the refresh nearest to its pts.
        and not np.any((heard >= frames[index] - refresh_ms / 2) & (heard < frames[index + 1]))
    ]
    return Sync(indices, np.array(errors), unpainted, refresh_ms, wander_ms)


def _heard(
    report: dict[str, Any], start_s: float, refresh_ms: float
) -> tuple[np.ndarray, np.ndarray]:
    """Paints with a reading of the output clock, and the response's ms that is heard at each."""
    paints, context_s, performance_ms = np.array(report["pairs"]).T
    # Browsers repeat the last reading while no sound flows, and between two audio callbacks.
    is_new = np.concatenate([[True], np.diff(performance_ms) > 0])
    read, ahead_ms = paints[is_new], (1000 * context_s - performance_ms)[is_new]
    first = np.searchsorted(read, read - _NEAR_MS)
    last = np.searchsorted(read, read + _NEAR_MS)
    steady = np.array([np.median(ahead_ms[a:b]) for a, b in zip(first, last, strict=True)])
    latest = np.searchsorted(read, paints, side="right") - 1
    return paints, paints + refresh_ms + steady[latest] - 1000 * start_s


def _find(haystack: np.ndarray, needle: np.ndarray) -> tuple[int, float]:
    """Where the needle lies, and its normalised correlation there."""
    size = 1 << (len(haystack) + len(needle) - 1).bit_length()
    spectrum = np.fft.rfft(haystack, size) * np.conj(np.fft.rfft(needle, size))
    lags = max(1, len(haystack) - len(needle) + 1)
    product = np.fft.irfft(spectrum, size)[:lags]
    power = np.concatenate([[0.0], np.cumsum(haystack.astype(np.float64) ** 2)])
    energy = power[len(needle) : len(needle) + lags] - power[:lags]
    norm = np.sqrt(np.maximum(energy, 1e-3) * float(np.sum(needle.astype(np.float64) ** 2)))
    likeness = product / norm
    best = int(np.argmax(likeness))
    return best, float(likeness[best])


def _pcm(data: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(data), "<i2").astype(np.float32) / 32768
