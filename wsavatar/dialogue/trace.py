"""When the stages of one turn were reached, from the end of the user's speech to the first sound
that the user hears. Knows neither engines nor the wire."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal, get_args

__all__ = ["STAGES", "Stage", "TurnTrace"]

Stage = Literal[
    "speech_end",  # the user's last voice, as the server received it
    "turn_end",  # the turn is decided to be over, or the client asks for an answer
    "transcript",  # what the user said is known
    "first_token",  # the language model's first text
    "first_sound",  # the voice's first audio
    "first_frame",  # the first frame was sent
    "first_heard",  # the client plays: by its report, `avatar.playback`
]
STAGES: tuple[Stage, ...] = get_args(Stage)


class TurnTrace:
    """The stages of one turn. A stage counts when it is marked first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: dict[Stage, float] = {}

    @classmethod
    def of_turn(cls, silent_ms: int = 0) -> TurnTrace:
        """A turn that is over now, after this silence; or a request, after none."""
        trace = cls()
        if silent_ms:
            trace.mark("speech_end", ago_s=silent_ms / 1000)
        trace.mark("turn_end")
        return trace

    def mark(self, stage: Stage, *, ago_s: float = 0.0) -> None:
        """This stage was reached ``ago_s`` seconds ago."""
        self._times.setdefault(stage, self._clock() - ago_s)

    def ms(self) -> dict[Stage, int]:
        """Milliseconds from the first stage that was marked to each of them, in order."""
        if not self._times:
            return {}
        start = min(self._times.values())
        return {
            stage: round(1000 * (self._times[stage] - start))
            for stage in STAGES
            if stage in self._times
        }
