"""A simulated viewer of one response: plays like the page, and counts late and missing frames.

Pure: all times are arguments, in seconds of one clock. It knows neither sockets nor JSON.

* *Playback* starts when audio and frames reach 650 ms (frames come in order: those that lack were
  dropped), or 1.3 s after the audio alone would have sufficed. It then runs in real time. Without
  audio it stops until 60 ms are buffered again: an *underrun*.
* A frame is *late* if playback had passed its pts when it arrived.
* *First-frame latency* belongs to a chunk: the time from sending the packet with the last sample
  that the server needs to cut the chunk, to the first of the chunk's frames that arrives.
  `plan_chunks` finds that packet.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from wsavatar.faces.base import SpeechChunker
from wsavatar.protocol.session_config import AudioFormat
from wsavatar.session.timeline import SpeechTimeline

__all__ = ["PREROLL_S", "PlannedChunk", "Playback", "Viewer", "plan_chunks"]

PREROLL_S = 0.65
PATIENCE_S = 1.3
RESUME_S = 0.06


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
    chunker: SpeechChunker,
) -> list[PlannedChunk]:
    """The chunks that mode ``mirror`` cuts from ``packets`` packets of ``packet_samples`` each.

    Runs a session's timeline and chunker on silence: the cuts depend on the number of samples,
    not on their values. Chunks that are cut after the end of the speech are left out, because
    nobody waits for them.
    """
    timeline = SpeechTimeline(rate, AudioFormat(), chunker)
    silence = np.zeros(packet_samples, np.float32)
    return [
        PlannedChunk(chunk.first_frame, chunk.frame_count, packet)
        for packet in range(packets)
        for chunk in timeline.push(silence).chunks
    ]


class Playback:
    """The playback position of a viewer, by the page's rules."""

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
        """Audio has arrived."""
        self.position(now_s)
        if self._first_sound_s is None:
            self._first_sound_s = now_s
        self._received_s += seconds
        self._go_on(now_s)

    def reach(self, seconds: float, now_s: float) -> None:
        """Frames up to ``seconds`` have arrived."""
        self.position(now_s)
        self._reach_s = seconds
        self._go_on(now_s)

    def end(self, now_s: float) -> None:
        """The audio is complete."""
        self.position(now_s)
        self._ended = True
        self._go_on(now_s)

    def position(self, now_s: float) -> float:
        """Seconds of the response played until ``now_s``; 0 before the start. Never decreases."""
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
    """Frames that arrived before their audio was sent: the plan is for other settings."""
    _sent_s: dict[int, float] = field(default_factory=dict)
    _answered: dict[int, float] = field(default_factory=dict)
    _indices: set[int] = field(default_factory=set)
    _reach: int = 0
    _next_sample: int = 0
    _unshown_us: deque[int] = field(default_factory=deque)

    @property
    def packets_sent(self) -> int:
        """Microphone packets given to the socket so far."""
        return len(self._sent_s)

    @property
    def first_frame_ms(self) -> list[float]:
        """First-frame latencies, one for each planned chunk of which a frame arrived."""
        return [
            1000 * (arrived - self._sent_s[self.plan[number].packet])
            for number, arrived in sorted(self._answered.items())
        ]

    def sent(self, packet: int, now_s: float) -> None:
        """A microphone packet was given to the socket."""
        self._sent_s[packet] = now_s

    def sound(self, offset: int | None, samples: int, rate: int, now_s: float) -> None:
        """Audio from sample ``offset`` on has arrived; None where the encoding has no offset."""
        if offset is not None and offset != self._next_sample:
            self.audio_gaps += 1
            self._next_sample = offset
        self._next_sample += samples
        self.playback.sound(samples / rate, now_s)

    @property
    def samples(self) -> int:
        """Samples of audio received so far."""
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
        self._reach = max(self._reach, index + 1)
        self.playback.reach(self._reach / self.fps, now_s)

    def end(self, now_s: float) -> None:
        """The response's audio is complete."""
        self.playback.end(now_s)

    def shown(self, now_s: float) -> int:
        """Frames due until ``now_s``, for the playback reports."""
        position_us = 1e6 * self.playback.position(now_s)
        while self._unshown_us and self._unshown_us[0] <= position_us:
            self._unshown_us.popleft()
        return self.frames - len(self._unshown_us)

    def missing(self, expected: int, dropped: int) -> int:
        """Of ``expected`` frames, those that neither arrived nor were reported as dropped."""
        return max(0, expected - self.frames - dropped)

    def _answer(self, index: int, now_s: float) -> None:
        number = bisect_right(self.plan, index, key=lambda chunk: chunk.first_frame) - 1
        if number < 0 or number in self._answered:
            return
        chunk = self.plan[number]
        if index >= chunk.first_frame + chunk.frame_count:
            return  # a chunk that was cut after the end of the speech
        if chunk.packet in self._sent_s:
            self._answered[number] = now_s
        else:
            self.unplanned += 1
