"""Tells how long the stages of one turn took: the client, the metrics and the log.

Knows a turn's times, not what was said.
"""

from __future__ import annotations

import logging

from wsavatar.dialogue.trace import TurnTrace
from wsavatar.metrics import Metrics
from wsavatar.protocol import events as wire
from wsavatar.session.downlink import Downlink

__all__ = ["TurnReport"]

_log = logging.getLogger(__name__)


class TurnReport:
    """The report of one response's turn: sent once, when its sound is heard, or at its end.

    ``downlink`` None: the client does not know the event.
    """

    def __init__(
        self,
        response_id: str,
        trace: TurnTrace | None,
        metrics: Metrics,
        downlink: Downlink | None,
    ) -> None:
        self._response_id = response_id
        self._trace = trace
        self._downlink = downlink
        self._metrics = metrics

    def first_frame(self) -> None:
        """The first frame was made."""
        if self._trace is not None:
            self._trace.mark("first_frame")

    def heard(self, position_s: float) -> None:
        """The client plays this position of the audio now."""
        if self._trace is not None and position_s > 0:
            self._trace.mark("first_heard", ago_s=position_s)
            self.send()

    def send(self) -> None:
        """Send what is known. Later calls do nothing."""
        trace, self._trace = self._trace, None
        if trace is None:
            return
        times = trace.ms()
        if "first_sound" not in times:
            return  # nothing was said
        self._metrics.observe_turn({stage: ms / 1000 for stage, ms in times.items()})
        _log.info("%s: %s", self._response_id, ", ".join(f"{s} {ms} ms" for s, ms in times.items()))
        if self._downlink is not None:
            self._downlink.event(
                wire.AvatarTurn(
                    response_id=self._response_id,
                    turn_end_ms=times.get("turn_end"),
                    transcript_ms=times.get("transcript"),
                    first_token_ms=times.get("first_token"),
                    first_sound_ms=times.get("first_sound"),
                    first_frame_ms=times.get("first_frame"),
                    first_heard_ms=times.get("first_heard"),
                )
            )
