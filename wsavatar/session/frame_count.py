"""What became of one response's frames: made, sent, dropped, shown. Each ends exactly once."""

from __future__ import annotations

from wsavatar.metrics import Metrics

__all__ = ["FrameCount"]


class FrameCount:
    """Of one response; also counted in the server's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.submitted = self.sent = self.dropped = 0
        self.sent_until = 0
        """The frame after the last one sent."""
        self._shown = self._late = 0  # by the client, as counted so far

    @property
    def all_settled(self) -> bool:
        """Whether no frame is still in the making or waiting."""
        return self.sent + self.dropped >= self.submitted

    def was_sent(self, frame_index: int) -> None:
        self.sent += 1
        self.sent_until = frame_index + 1
        self._metrics.frames_sent.inc()

    def was_dropped(self, reason: str) -> None:
        self.dropped += 1
        self._metrics.frames_dropped.labels(reason).inc()

    def was_shown(self, shown: int, late: int) -> None:
        """A client's report: new frames of it count, up to those that were sent."""
        shown = max(self._shown, min(shown, self.sent))
        late = max(self._late, min(late, shown))
        self._metrics.client_shown.inc(shown - self._shown)
        self._metrics.client_late.inc(late - self._late)
        self._shown, self._late = shown, late
