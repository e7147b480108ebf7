"""The frames of one response: chunks to the renderer, pictures to the outbox, the idle cycle after.

Each frame is settled once: sent, or dropped. It knows when frames are heard by the estimate of the
client's playback, and nothing of audio, texts, or why a response ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial

from wsavatar.faces.base import Chunk
from wsavatar.render.jobs import FrameOutcome, RenderedFrame
from wsavatar.session.dependencies import Dependencies
from wsavatar.session.engine import AvatarInfo, FrameStream
from wsavatar.session.frame_report import FrameReport
from wsavatar.session.outbox import Settled
from wsavatar.session.outputs import Outputs
from wsavatar.session.response_format import ResponseFormat
from wsavatar.session.timeline import PREROLL_S, IdleClock, PlaybackEstimate
from wsavatar.session.turn_report import TurnReport

__all__ = ["ResponseFrames"]


class ResponseFrames:
    """Of one response; of one without video there are none. `close` it once.

    ``settled`` is called when a frame was sent or dropped.
    """

    def __init__(
        self,
        dependencies: Dependencies,
        form: ResponseFormat,
        outputs: Outputs,
        turn: TurnReport,
        report: FrameReport,
        *,
        generation: int,
        avatar: AvatarInfo,
        idle: IdleClock,
        playback: PlaybackEstimate,
        settled: Callable[[], None],
    ) -> None:
        self._deps = dependencies
        self._form = form
        self._outputs = outputs
        self._turn = turn
        self._report = report
        self._generation = generation
        self._avatar = avatar
        self._idle = idle
        self._playback = playback
        self._tell_settled = settled
        self._fps = form.video.fps if form.video is not None else Fraction(1)
        self._stream: FrameStream | None = None
        self._first_cycle_index = 0
        self._first_chunk_s: float | None = None
        self._first_was_seen = False
        self._closed = False

    @property
    def all_settled(self) -> bool:
        """Whether every frame so far was sent or dropped."""
        return self._report.all_settled

    def submit(self, chunks: Sequence[Chunk], now_s: float) -> None:
        """Render these, each due when it is heard."""
        if self._stream is None and chunks:
            self._stream = self._open(now_s)
        for chunk in chunks:
            assert self._stream is not None
            # Counted first: the renderer may settle frames before submit returns.
            self._report.submitted += chunk.frame_count
            due_s = self._playback.due_s(float(chunk.first_frame / self._fps), now_s)
            self._stream.submit(chunk, due_s)

    def was_shown(self, shown: int, late: int) -> None:
        """The client's report: frames shown, and late, so far."""
        self._report.was_shown(shown, late)

    def end(self, at_s: float) -> None:
        """All are settled; the last is shown until ``at_s``."""
        submitted = self._report.submitted
        self._tell_end(submitted, self._resume_idle(submitted, at_s))

    def cut(self, position_s: float, now_s: float) -> None:
        """The response was broken off at this position."""
        self._tell_end(self._report.sent_until, self.rest(position_s, now_s))

    def rest(self, position_s: float, now_s: float) -> int:
        """The idle cycle goes on from the frame of this position; returns its index there."""
        return self._resume_idle(self._until(position_s), now_s)

    def close(self, *, cancel: bool) -> None:
        """Free the renderer. ``cancel``: what is not rendered yet is not wanted."""
        self._closed = True
        if self._stream is not None:
            if cancel:
                self._stream.cancel()
            self._stream.close()

    def _open(self, now_s: float) -> FrameStream:
        """The first chunk is complete: the avatar begins to speak."""
        assert self._form.video is not None
        self._first_chunk_s = now_s
        self._first_cycle_index = self._idle.index_at(now_s + PREROLL_S)
        self._playback.rendering(now_s)
        self._report.begin(self._first_cycle_index)
        return self._deps.renderer.open_stream(
            self._avatar,
            self._form.video,
            self._generation,
            self._first_cycle_index,
            self._on_frame,
        )

    def _on_frame(self, outcome: FrameOutcome) -> None:
        """The outcome of a frame; called on the event loop, once for each submitted frame."""
        if self._closed:
            self._deps.metrics.frames_dropped.labels("cancelled").inc()
        elif isinstance(outcome, RenderedFrame):
            if not self._first_was_seen and self._first_chunk_s is not None:
                self._first_was_seen = True
                now_s = self._deps.clock()
                self._playback.showing(now_s)
                self._turn.first_frame()
                self._deps.metrics.observe_first_frame(now_s - self._first_chunk_s)
            self._deps.downlink.frame(
                outcome,
                binary=self._form.binary,
                response_id=self._outputs.response_id,
                output_index=self._outputs.message_index,
                settled=partial(self._settled, outcome.frame_index),
                is_late=partial(self._is_late, outcome.frame_index),
            )
        else:
            self._report.was_dropped(outcome.reason)
            self._tell_settled()

    def _settled(self, frame_index: int, outcome: Settled) -> None:
        """The outbox sent or dropped a frame."""
        if outcome == "sent":
            self._report.was_sent(frame_index)
        else:
            self._report.was_dropped("cancelled" if self._closed else outcome)
        self._tell_settled()

    def _is_late(self, frame_index: int) -> bool:
        """Whether the client plays what comes after this frame."""
        return self._until(self._playback.position_s(self._deps.clock())) > frame_index

    def _until(self, position_s: float) -> int:
        """How many frames are shown before this position."""
        return min(self._report.submitted, int(position_s * self._fps))

    def _resume_idle(self, frames_shown: int, at_s: float) -> int:
        if self._stream is not None:
            per_frame = Fraction(self._avatar.fps).limit_denominator(1001) / self._fps
            self._idle.resume(self._first_cycle_index + int(frames_shown * per_frame), at_s)
        return self._idle.index_at(at_s)

    def _tell_end(self, end_frame: int, cycle_index: int) -> None:
        if self._form.video is not None and self._outputs.has_message:
            self._report.end(self._outputs.message_index, end_frame, cycle_index)
