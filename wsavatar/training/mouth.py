"""Visemes with times in, mouth controls over time out: how the synthetic faces speak.

Dominance blending after Cohen and Massaro (1993): every phone pulls the mouth towards its viseme
with a strength that falls off around its middle, so that shapes flow into each other. Lip closure
is a case of its own, because blending leaves lips open: a bilabial closes them for its duration.
This module knows no renderer; a viseme is a mapping of control names to weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["Segment", "mouth_controls"]

Segment = tuple[str, float, float]
"""(viseme, start in s, end in s)."""

# Strength of a viseme against its neighbours: high where the lips must meet, low for the tongue.
_DOMINANCE = {
    "M": 3.0, "FV": 2.6, "W": 2.0, "OO": 1.8, "SH": 1.8, "AA": 1.3, "AO": 1.4, "OW": 1.5,
    "SIL": 0.8, "TD": 0.55, "KG": 0.45, "S": 0.9, "L": 0.9, "TH": 1.2, "R": 1.0, "EE": 1.2,
}  # fmt: skip
_RISE_S = 0.045
_SEAL_RAMP_S = 0.05
_REST = "SIL"


def mouth_controls(
    segments: Sequence[Segment],
    times_s: np.ndarray,
    visemes: Mapping[str, Mapping[str, float]],
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Blend visemes at the given times.

    Returns the control names, float32 weights [times, names], and a boolean mask [times] of the
    moments inside a bilabial's closure.
    """
    names = sorted({name for shape in visemes.values() for name in shape})
    numerator = np.zeros((len(times_s), len(names)))
    denominator = np.full(len(times_s), 1e-6)
    # Outside speech the mouth rests, so that an end pulls it shut as a pause does.
    padded = [(_REST, -10.0, 0.0), *segments]
    end = max((s[2] for s in segments), default=0.0)
    padded.append((_REST, end, end + 10.0))
    seal = np.zeros(len(times_s))
    closed = np.zeros(len(times_s), bool)
    for viseme, start, stop in padded:
        middle, half = (start + stop) / 2, max((stop - start) / 2, 0.02)
        if viseme == _REST:
            # A long pause must be at rest all through, not only around its middle.
            beyond = np.maximum(np.abs(times_s - middle) - np.maximum(half - 0.06, half * 0.55), 0)
            width = _RISE_S + 0.02
        else:
            beyond = np.maximum(np.abs(times_s - middle) - half * 0.55, 0)
            width = _RISE_S + 0.25 * half
        pull = _DOMINANCE.get(viseme, 1.0) * np.exp(-((beyond / width) ** 1.5))
        shape = visemes.get(viseme, visemes[_REST])
        numerator += pull[:, None] * np.array([shape.get(name, 0.0) for name in names])
        denominator += pull
        if viseme == "M":
            outside = np.maximum(np.maximum(start - times_s, times_s - stop), 0)
            seal = np.maximum(seal, 1 - np.clip(outside / _SEAL_RAMP_S, 0, 1))
            closed |= (times_s >= start) & (times_s <= stop)
    weights = (numerator / denominator[:, None]).astype(np.float32)
    if "lipSeal" in names:
        column = names.index("lipSeal")
        smooth = seal * seal * (3 - 2 * seal)
        weights[:, column] = np.maximum(weights[:, column], smooth)
    return names, weights, closed
