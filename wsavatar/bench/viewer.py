"""One viewer of one response: plays as the page does, and counts what comes too late or not at all.

Pure: every time is handed in, in seconds of one clock. It knows neither sockets nor JSON.

* *Playback* begins when 650 ms of sound and of frames without a gap are in hand (what the page
  waits for in live speech), or 1.3 s after the sound alone would have done. It then goes on at the
  speed of time. Where the sound runs dry it stands, until 60 ms are in hand again: an *underrun*.
* A frame is *late* where playback had passed its pts as it arrived.
* *First-frame latency* belongs to a chunk: the time from sending the packet with the last sample
  that the server needed to cut that chunk, to the first of the chunk's frames that arrived.
  `plan_chunks` says which packet that is.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from wsavatar.dialogue.base import SPEECH_RATE
from wsavatar.media.audio import Resampler
from wsavatar.protocol.session_config import AudioFormat
from wsavatar.session.timeline import SpeechTimeline
from wsavatar.speech.chunker import Chunker, FeatureGrid

__all__ = ["PREROLL_S", "PlannedChunk", "Playback", "Viewer", "plan_chunks"]

PREROLL_S = 0.65
PATIENCE_S = 1.3
RESUME_S = 0.06
HEARING_RATE = 16_000


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """A chunk that the server will cut: its frames, and the packet that completes it."""

    first_frame: int
    frame_count: int
    packet: int


def plan_chunks(
    packets: int,
    packet_samples: int,
    rate: int,
    grid: FeatureGrid,
    fps: int,
    chunk_ms: int,
) -> list[PlannedChunk]:
    """Which chunks a mirror cuts while it hears ``packets`` packets of ``packet_samples`` each.

    The same resamplers and the same chunker as a session's run over silence: where chunks are cut
    depends on how much was heard, never on what. What is cut when the speech has ended is no
    chunk of this list: nobody waits for it live.
    """
    hears, speaks = Resampler(rate, HEARING_RATE), Resampler(HEARING_RATE, SPEECH_RATE)
    chunker = Chunker(grid, Fraction(fps), grid.sample_rate * chunk_ms // 1000)
    timeline = SpeechTimeline(AudioFormat(), chunker)
    silence = np.zeros(packet_samples, np.float32)
    return [
        PlannedChunk(chunk.first_frame, chunk.frame_count, packet)
        for packet in range(packets)
        for chunk in timeline.push(speaks.push(hears.push(silence))).chunks
    ]


class Playback:
    """Where a viewer is in the sound, by the page's rules."""

    def __init__(self) -> None:
        self.started = False
        self.underruns = 0
        self._running = False
        self._ended = False
        self._received_s = 0.0
        self._reach_s = 0.0
        self._position_s = 0.0
        self._first_sound_s: float | None = None
        self._last_s = 0.0

    def sound(self, seconds: float, now_s: float) -> None:
        """More sound has arrived."""
        self.position(now_s)
        if self._first_sound_s is None:
            self._first_sound_s = now_s
        self._received_s += seconds
        self._go_on(now_s)

    def reach(self, seconds: float, now_s: float) -> None:
        """Frames are in hand from 0 to ``seconds`` without a gap."""
        self.position(now_s)
        self._reach_s = seconds
        self._go_on(now_s)

    def end(self, now_s: float) -> None:
        """No more sound will come."""
        self.position(now_s)
        self._ended = True
        self._go_on(now_s)

    def position(self, now_s: float) -> float:
        """Seconds of the response played by now; 0 before it began. Time never goes back."""
        if self._running:
            self._position_s += now_s - self._last_s
            if self._position_s >= self._received_s:
                self._position_s = self._received_s
                self._running = False
                self.underruns += not self._ended
        self._last_s = now_s
        return self._position_s

    def _go_on(self, now_s: float) -> None:
        if not self.started:
            self.started = self._running = self._may_start(now_s)
        elif not self._running:
            ahead_s = self._received_s - self._position_s
            self._running = ahead_s >= RESUME_S or (self._ended and ahead_s > 0)

    def _may_start(self, now_s: float) -> bool:
        if self._first_sound_s is None:
            return False
        sound = self._ended or self._received_s >= PREROLL_S
        wanted_s = min(PREROLL_S, self._received_s) if self._ended else PREROLL_S
        if sound and self._reach_s >= wanted_s:
            return True
        return now_s - self._first_sound_s >= PREROLL_S + PATIENCE_S


@dataclass(slots=True)
class Viewer:
    """Counts of one session. Call `sent`, `sound`, `frame` and `end` as things happen."""

    fps: int
    plan: Sequence[PlannedChunk]
    playback: Playback = field(default_factory=Playback)
    frames: int = 0
    duplicates: int = 0
    late: int = 0
    worst_late_ms: float = 0.0
    bytes: int = 0
    audio_gaps: int = 0
    unplanned: int = 0
    """Frames that came before the sound they need was sent: the plan is of other settings."""
    _sent_s: dict[int, float] = field(default_factory=dict)
    _answered: dict[int, float] = field(default_factory=dict)
    _indices: set[int] = field(default_factory=set)
    _reach: int = 0
    _next_sample: int = 0
    _unshown_us: deque[int] = field(default_factory=deque)

    @property
    def packets_sent(self) -> int:
        """Packets of the microphone handed to the socket so far."""
        return len(self._sent_s)

    @property
    def first_frame_ms(self) -> list[float]:
        """First-frame latencies, one for each planned chunk of which a frame arrived."""
        return [
            1000 * (arrived - self._sent_s[self.plan[number].packet])
            for number, arrived in sorted(self._answered.items())
        ]

    def sent(self, packet: int, now_s: float) -> None:
        """A packet of the microphone is handed to the socket."""
        self._sent_s[packet] = now_s

    def sound(self, offset: int | None, samples: int, rate: int, now_s: float) -> None:
        """Sound from sample ``offset`` on (None: the encoding does not say) has arrived."""
        if offset is not None and offset != self._next_sample:
            self.audio_gaps += 1
            self._next_sample = offset
        self._next_sample += samples
        self.playback.sound(samples / rate, now_s)

    @property
    def samples(self) -> int:
        """Samples of sound up to which the response was received."""
        return self._next_sample

    def frame(self, index: int, pts_us: int, size: int, now_s: float) -> None:
        """A frame of ``size`` bytes has arrived."""
        if index in self._indices:
            self.duplicates += 1
            return
        self._indices.add(index)
        self.frames += 1
        self.bytes += size
        self._answer(index, now_s)
        self._unshown_us.append(pts_us)
        position_s = self.playback.position(now_s)
        if self.playback.started and position_s * 1e6 > pts_us:
            self.late += 1
            self.worst_late_ms = max(self.worst_late_ms, 1000 * position_s - pts_us / 1000)
        while self._reach in self._indices:
            self._reach += 1
        self.playback.reach(self._reach / self.fps, now_s)

    def end(self, now_s: float) -> None:
        """The response's sound is complete."""
        self.playback.end(now_s)

    def shown(self, now_s: float) -> int:
        """Frames whose time has come by now, for the reports that a page sends."""
        position_us = 1e6 * self.playback.position(now_s)
        while self._unshown_us and self._unshown_us[0] <= position_us:
            self._unshown_us.popleft()
        return self.frames - len(self._unshown_us)

    def missing(self, expected: int, dropped: int) -> int:
        """Of frames ``expected``, those that neither came nor were reported as dropped.

        None, in a sound server.
        """
        return max(0, expected - self.frames - dropped)

    def _answer(self, index: int, now_s: float) -> None:
        number = bisect_right(self.plan, index, key=lambda chunk: chunk.first_frame) - 1
        if number < 0 or number in self._answered:
            return
        chunk = self.plan[number]
        if index >= chunk.first_frame + chunk.frame_count:
            return  # of what was cut when the speech had ended
        if chunk.packet in self._sent_s:
            self._answered[number] = now_s
        else:
            self.unplanned += 1
