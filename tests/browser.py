"""A real browser for the page's tests: how it is started, and what its page must have done."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser_sync import measure

__all__ = [
    "FAKE_DEVICE",
    "FLAGS",
    "WATCH",
    "assert_in_step",
    "chromium",
    "generations",
    "microphone",
    "once_more",
    "others_use",
    "report_of",
    "wait_for_event",
]

WATCH = Path(__file__).parent / "browser_watch.js"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
]
FAKE_DEVICE = "--use-fake-device-for-media-stream"
_FAKE_PERMISSION = "--use-fake-ui-for-media-stream"


def chromium() -> str:
    """The browser's path; skips the test where there is none."""
    wished = os.environ.get("CHROMIUM", "")
    for name in (wished, "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    pytest.skip("no Chromium is installed (apt-get install chromium)")


def microphone(wav: Path) -> tuple[str, ...]:
    """Flags for a microphone that hears this file."""
    return (FAKE_DEVICE, _FAKE_PERMISSION, f"--use-file-for-fake-audio-capture={wav}")


def others_use() -> float:
    """Share of this machine's processors in use during the next second; 0 where it is not told."""
    stat = Path("/proc/stat")

    def busy_and_all() -> tuple[int, int]:
        fields = [int(field) for field in stat.read_text().split("\n")[0].split()[1:9]]
        return sum(fields) - fields[3] - fields[4], sum(fields)

    if not stat.exists():
        return 0.0
    busy, all_ = busy_and_all()
    time.sleep(1)
    busy_after, all_after = busy_and_all()
    return (busy_after - busy) / max(1, all_after - all_)


def wait_for_event(page: Any, kind: str, timeout_ms: int = 30_000) -> None:
    page.wait_for_function(
        "kind => watch.events.includes(kind)", arg=kind, timeout=timeout_ms, polling=100
    )


def report_of(page: Any) -> dict[str, Any]:
    """What the bystander has, once the sound of this moment has reached it."""
    page.wait_for_timeout(700)
    assert page.complaints == []
    report: dict[str, Any] = page.evaluate("watch.report()")
    return report


def generations(report: dict[str, Any]) -> list[int]:
    return sorted({int(generation) for generation in report["responses"]})


def assert_in_step(
    report: dict[str, Any],
    generation: int,
    at_least_frames: int,
    *,
    within_ms: float = 10,
    may_skip: bool = False,
) -> str:
    """Every frame shown once and in order, with its sound. Returns the figures.

    ``may_skip``: one frame in a hundred may be left out where the next one is due already. A
    machine that stops the browser for the time of a frame is excused that, one in a hundred.
    """
    sync = measure(report, generation)
    received = [index for own, index, _ in report["received"] if own == generation]
    figures = (
        f"{len(sync.indices)} frames shown of {len(received)} received, {len(sync.unpainted)} had "
        f"no animation frame, "
        f"|pts - heard| p50 {sync.percentile(50):.1f} ms, p99 {sync.percentile(99):.1f} ms, "
        f"max {sync.percentile(100):.1f} ms; refresh {sync.refresh_ms:.2f} ms; "
        f"sound wandered {sync.wander_ms:.2f} ms"
    )
    print(figures)
    assert received == list(range(len(received))), "frames are missing on the wire"
    excused = [index for index in sync.unpainted if index not in sync.indices]
    assert len(excused) <= max(1, len(sync.indices) // 100), figures
    assert len(sync.indices) + len(excused) >= at_least_frames, figures
    everything = [index for index in range(max(sync.indices) + 1) if index not in excused]
    skipped = sorted(set(everything) - set(sync.indices))
    assert len(skipped) <= may_skip * max(1, len(everything) // 100), f"missing: {figures}"
    shown = [index for index in everything if index not in skipped]
    assert sync.indices == shown, f"doubled or out of order: {figures}"
    assert sync.wander_ms < 0.5, f"the sound has gaps: {figures}"
    # 99 %; in a short response one frame is more than a percent, and one may miss its refresh.
    beyond = int(np.sum(np.abs(sync.errors_ms) > within_ms))
    assert beyond <= max(1, len(sync.indices) // 100), f"{beyond} beyond {within_ms} ms: {figures}"
    return figures


def once_more(check: Callable[[], None]) -> None:
    """A shared machine may stall the browser in one short response, but hardly in two."""
    try:
        check()
    except AssertionError as error:
        print(f"once more, for: {error}")
        check()
