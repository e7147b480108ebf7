"""Time of a device's stages: a moving average a frame, and the sum since the start."""

from __future__ import annotations

import threading

__all__ = ["STAGES", "StageTimes"]

STAGES = ("features", "generate", "paste", "encode")


class StageTimes:
    """Counts each of `STAGES`. Thread-safe."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._ms = dict.fromkeys(STAGES, 0.0)
        self._seconds = dict.fromkeys(STAGES, 0.0)

    def measure(self, stage: str, seconds: float, frames: int) -> None:
        """So many frames took ``seconds`` of this stage."""
        now_ms = 1000 * seconds / frames
        with self._guard:
            before_ms = self._ms[stage]
            self._ms[stage] = now_ms if not before_ms else before_ms + 0.1 * (now_ms - before_ms)
            self._seconds[stage] += seconds

    def ms_a_frame(self) -> dict[str, float]:
        """Moving averages, in milliseconds."""
        return {stage: round(ms, 3) for stage, ms in self._ms.items()}

    def seconds(self) -> dict[str, float]:
        """Sums; of threads that work at the same time, each one's time counts."""
        return {stage: round(seconds, 3) for stage, seconds in self._seconds.items()}
