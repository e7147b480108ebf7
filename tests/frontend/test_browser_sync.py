"""The measurement of sync itself: it is right about a perfect page, and no lie goes unnoticed.

The page is simulated, so that the answer is known to the millisecond.
"""

from __future__ import annotations

import base64
import copy
from typing import Any

import numpy as np
import pytest
import soxr

from tests.browser import assert_in_step
from tests.browser_sync import WIRE_RATE, measure

RATE, SECONDS, FPS = 48_000, 8, 25
REFRESH_MS = 1000 / 60
STARTS_S = 2.0  # context time of the response's first sample
LATENCY_MS = 300.0  # from the context's clock to the page's
GENERATION = 3


def _base64(samples: np.ndarray) -> str:
    return base64.b64encode((samples * 32767).astype("<i2").tobytes()).decode()


@pytest.fixture(scope="module")
def perfect() -> dict[str, Any]:
    """What a bystander reports of a page that shows each frame at its best refresh."""
    sound = np.random.default_rng(1).normal(0, 0.1, SECONDS * WIRE_RATE).clip(-1, 1)
    output = np.zeros(int((STARTS_S + SECONDS + 1) * RATE))
    played = soxr.resample(sound, WIRE_RATE, RATE)
    output[int(STARTS_S * RATE) :][: len(played)] = played
    paints = np.arange(0, (STARTS_S + SECONDS) * 1000, REFRESH_MS) + LATENCY_MS
    heard = paints + REFRESH_MS - LATENCY_MS - 1000 * STARTS_S
    last = SECONDS * FPS - 1
    # A frame's turn begins at the refresh nearest to its pts.
    shown = np.floor((heard + REFRESH_MS / 2) * FPS / 1000).astype(int)
    draws: list[list[Any]] = []
    for index, paint_ms in zip(shown, paints, strict=True):
        if 0 <= index <= last and (not draws or draws[-1][1] != index):
            draws.append([GENERATION, int(index), int(index) * 1_000_000 // FPS, float(paint_ms)])
    block = RATE // 10
    return {
        "sampleRate": RATE,
        "paints": paints.tolist(),
        "pairs": [[at, (at - LATENCY_MS) / 1000, at] for at in paints.tolist()],
        "draws": draws,
        "received": [[GENERATION, i, i * 1_000_000 // FPS] for i in range(last + 1)],
        "responses": {str(GENERATION): [[0, _base64(sound)]]},
        "recorded": [
            [start, _base64(output[start : start + block])]
            for start in range(0, len(output), block)
        ],
    }


def test_a_perfect_page_is_at_most_half_a_refresh_off(perfect: dict[str, Any]) -> None:
    """Every frame is counted, and the error is what a screen of 60 Hz cannot avoid."""
    assert_in_step(perfect, GENERATION, SECONDS * FPS, within_ms=REFRESH_MS / 2 + 0.1)
    assert measure(perfect, GENERATION).wander_ms < 0.1


@pytest.mark.parametrize("late_ms", [2 * REFRESH_MS, -2 * REFRESH_MS])
def test_frames_that_are_off_are_seen(perfect: dict[str, Any], late_ms: float) -> None:
    """A page whose frames are two refreshes late or early is not in step."""
    report = copy.deepcopy(perfect)
    for draw in report["draws"]:
        draw[3] += late_ms
    assert measure(report, GENERATION).percentile(50) > 20
    with pytest.raises(AssertionError, match="beyond 10 ms"):
        assert_in_step(report, GENERATION, 1)


def test_a_missing_frame_is_seen(perfect: dict[str, Any]) -> None:
    """A frame that was received and not shown is missing, unless the browser stood still."""
    report = copy.deepcopy(perfect)
    draw = report["draws"].pop(100)
    with pytest.raises(AssertionError, match="missing"):
        assert_in_step(report, GENERATION, 1)
    report["pairs"] = [pair for pair in report["pairs"] if abs(pair[0] - draw[3] - 15) > 40]
    assert measure(report, GENERATION).unpainted == [draw[1]]


def test_a_doubled_frame_is_seen(perfect: dict[str, Any]) -> None:
    """A frame that comes again after its successor is out of order."""
    report = copy.deepcopy(perfect)
    report["draws"].insert(102, [*report["draws"][100][:3], report["draws"][101][3] + REFRESH_MS])
    with pytest.raises(AssertionError, match="doubled or out of order"):
        assert_in_step(report, GENERATION, 1)


def test_silence_and_a_page_without_frames_are_seen(perfect: dict[str, Any]) -> None:
    """Sound that was not output, or no frame at all, is an error and not a good figure."""
    silent = copy.deepcopy(perfect)
    silent["recorded"] = [[frame, "AAAA" * (len(data) // 4)] for frame, data in silent["recorded"]]
    with pytest.raises(AssertionError, match="silent|not what was sent"):
        measure(silent, GENERATION)
    with pytest.raises(AssertionError, match="no frame"):
        measure({**perfect, "draws": []}, GENERATION)


def test_a_gap_in_the_sound_is_seen(perfect: dict[str, Any]) -> None:
    """Sound that jumps by 5 ms in mid-response has wandered by as much."""
    report = copy.deepcopy(perfect)
    middle = int((STARTS_S + SECONDS / 2) * RATE)
    report["recorded"] = [
        [frame + (RATE // 200 if frame >= middle else 0), data]
        for frame, data in report["recorded"]
    ]
    assert measure(report, GENERATION).wander_ms == pytest.approx(5, abs=0.2)
