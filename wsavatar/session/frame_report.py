"""Counts one response's frames, and tells the client where they begin and end.

Each frame ends exactly once: sent, or dropped. Knows neither pictures nor when they are due.
"""

from __future__ import annotations

from wsavatar.metrics import Metrics
from wsavatar.protocol import events as wire
from wsavatar.session.downlink import Downlink

__all__ = ["FrameReport"]


class FrameReport:
    """Of one response; also counted in the server's metrics."""

    def __init__(
        self, downlink: Downlink, metrics: Metrics, response_id: str, generation: int
    ) -> None:
        self._downlink = downlink
        self._metrics = metrics
        self._response_id = response_id
        self._generation = generation
        self._has_begun = self._has_ended = False
        self.submitted = self.sent = self.dropped = 0
        self.sent_until = 0
        """The frame after the last one sent."""
        self._shown = self._late = 0  # by the client, as counted so far

    @property
    def all_settled(self) -> bool:
        """Whether no frame is still in the making or waiting."""
        return self.sent + self.dropped >= self.submitted

    def begin(self, cycle_index: int) -> None:
        """The first frames are being made; the first is painted on this one of the idle cycle."""
        self._has_begun = True
        self._downlink.event(
            wire.AvatarSwitchToSpeaking(
                turn_id=self._response_id,
                generation=self._generation,
                frame_index=0,
                cycle_index=cycle_index,
            )
        )

    def end(self, output_index: int, end_frame: int, cycle_index: int) -> None:
        """No frame comes from ``end_frame`` on; the idle cycle goes on at ``cycle_index``.

        Called again where the avatar comes to rest before the end that was told.
        """
        if not self._has_ended:
            self._has_ended = True
            self._downlink.event(
                wire.VideoDone(
                    response_id=self._response_id,
                    output_index=output_index,
                    frames_sent=self.sent,
                    frames_dropped=self.submitted - self.sent,
                )
            )
        if self._has_begun:
            self._downlink.event(
                wire.AvatarSwitchToIdle(
                    turn_id=self._response_id,
                    generation=self._generation,
                    frame_index=end_frame,
                    cycle_index=cycle_index,
                )
            )

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
