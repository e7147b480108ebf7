"""Detects whether more frames are wanted than the renderer makes.

Counts the outcomes of live frames and distinguishes an overload from a short stall. It knows no
device, no session and no protocol, and reads no clock: times are arguments.

The server is *over its capacity* once frames have been dropped, as late or overload, for `BEGIN_S`
without a pause of `PAUSE_S`, and were at least `LOST_SHARE` of those wanted in that time. This ends
when no frame has been dropped for `END_S`. So a single stall is not reported, and an overload that
comes and goes is reported once.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Capacity", "Load", "LoadMeter"]

BEGIN_S = 2.0
PAUSE_S = 1.0
END_S = 5.0
LOST_SHARE = 0.05
_SLOT_S = 0.1

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Load:
    """Whether the server is over its capacity, and the rates of the last `BEGIN_S`.

    Frames are counted when they end: ``wanted`` are those rendered and those dropped.
    """

    over: bool = False
    frames_per_s_wanted: float = 0.0
    frames_per_s_made: float = 0.0


@dataclass(slots=True)
class _Slot:
    """Frames that ended in one `_SLOT_S`."""

    number: int
    made: int = 0
    lost: int = 0


class LoadMeter:
    """Counts outcomes of frames. Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._slots: deque[_Slot] = deque()  # of the last `BEGIN_S`
        self._losing_since_s: float | None = None
        self._lost_s = 0.0  # when the last frame was dropped
        self._over = False

    def made(self, now_s: float) -> None:
        """A frame was rendered."""
        self._slot(now_s).made += 1

    def lost(self, now_s: float) -> None:
        """A frame was dropped as late or overload."""
        self._slot(now_s).lost += 1
        if self._losing_since_s is None or now_s - self._lost_s > PAUSE_S:
            self._losing_since_s = now_s
        self._lost_s = now_s

    def load(self, now_s: float) -> Load:
        """The load now. Call it regularly: an overload ends by time alone."""
        self._forget(now_s)
        made = sum(slot.made for slot in self._slots)
        lost = sum(slot.lost for slot in self._slots)
        if self._over:
            self._over = now_s - self._lost_s < END_S
        elif self._losing_since_s is not None:
            goes_on = now_s - self._lost_s <= PAUSE_S
            lasts = now_s - self._losing_since_s >= BEGIN_S
            self._over = goes_on and lasts and lost >= LOST_SHARE * (made + lost)
        return Load(self._over, (made + lost) / BEGIN_S, made / BEGIN_S)

    def _slot(self, now_s: float) -> _Slot:
        number = int(now_s / _SLOT_S)
        if not self._slots or self._slots[-1].number != number:
            self._slots.append(_Slot(number))
            self._forget(now_s)
        return self._slots[-1]

    def _forget(self, now_s: float) -> None:
        oldest = int(now_s / _SLOT_S) - round(BEGIN_S / _SLOT_S)
        while self._slots and self._slots[0].number <= oldest:
            self._slots.popleft()


class Capacity:
    """The renderer's load, with notifications. For the event loop only.

    ``on_change`` callbacks are called as ``over`` changes, within about a second.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._meter = LoadMeter()
        self._over = False
        self._callbacks: list[Callable[[Load], None]] = []

    @property
    def over(self) -> bool:
        """Whether the server is over its capacity."""
        return self._over

    def load(self) -> Load:
        """The load now."""
        return self._meter.load(self._clock())

    def on_change(self, callback: Callable[[Load], None]) -> Callable[[], None]:
        """Call ``callback`` when ``over`` changes; returns a function that removes it."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def made(self) -> None:
        """A frame was rendered."""
        self._meter.made(self._clock())

    def lost(self) -> None:
        """A frame was dropped as late or overload."""
        self._meter.lost(self._clock())

    def check(self) -> None:
        """Call the callbacks after a change. Called about once a second."""
        load = self.load()
        if load.over == self._over:
            return
        self._over = load.over
        told = "over" if load.over else "no longer over"
        _log.warning(
            "%s capacity: %.0f frames/s wanted, %.0f made",
            told,
            load.frames_per_s_wanted,
            load.frames_per_s_made,
        )
        for callback in list(self._callbacks):
            try:
                callback(load)
            except Exception:  # an error of one callback must not affect others
                _log.exception("a callback for a change of load failed")
