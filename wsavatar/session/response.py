"""One thing the avatar says: its events in order, its audio at once, its frames as they come.

A response lives from ``response.created`` to ``response.done``. It ends exactly once: completed
after all of its frames came out, cancelled or failed at once. What arrives for it afterwards is
counted and forgotten. It knows the timeline and the renderer's stream; not sockets, not what the
dialogue means by it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from wsavatar.dialogue.base import SPEECH_RATE
from wsavatar.faces.base import Chunk
from wsavatar.metrics import Metrics
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import ProtocolError
from wsavatar.render.jobs import FrameOutcome, RenderedFrame, VideoFormat
from wsavatar.session.conversation import Conversation
from wsavatar.session.downlink import Downlink
from wsavatar.session.engine import AvatarInfo, Face, FaceStream
from wsavatar.session.timeline import PREROLL_S, IdleClock, PlaybackEstimate, SpeechTimeline, Spoken

__all__ = ["MAX_AHEAD_S", "CancelReason", "SpokenResponse", "Surroundings"]

MAX_AHEAD_S = 10.0
"""How far speech may run ahead of what the client hears. Beyond it the speaker waits."""
_MAX_TRANSCRIPT_CHARS = 200_000

CancelReason = Literal["turn_detected", "client_cancelled"]
Outcome = Literal["completed", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a session lends to its responses."""

    downlink: Downlink
    conversation: Conversation
    face: Face
    chunk_ms: int
    metrics: Metrics
    clock: Callable[[], float] = time.monotonic


class SpokenResponse:
    """A `wsavatar.dialogue.base.Response`. All on the event loop; only `audio` ever waits."""

    def __init__(
        self,
        around: Surroundings,
        *,
        generation: int,
        avatar: AvatarInfo,
        idle: IdleClock,
        config: wire.SessionConfig,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._around = around
        self._generation = generation
        self._avatar = avatar
        self._idle = idle
        self._metadata = metadata
        self._config = config  # as it was when the response began
        self._binary = config.avatar.video.encoding == "binary"
        video = config.avatar.video
        self._video = VideoFormat(Fraction(video.fps), video.region, video.quality, video.max_width)
        self._timeline = SpeechTimeline(
            config.audio.output.format,
            around.face.open_chunker(self._video.fps, around.chunk_ms),
        )
        self._playback = PlaybackEstimate()
        self._moved = asyncio.Event()  # playback was reported, or the response is over
        self._id = wire.new_id("resp")
        self._item_id = wire.new_id("item")
        self._transcript = ""
        self._stream: FaceStream | None = None
        self._first_cycle_index = 0
        self._first_chunk_s: float | None = None
        self._first_frame_seen = False
        self._render_failed = False
        self._submitted = self._sent = self._dropped = 0
        self._client_shown = self._client_late = 0  # as counted so far
        self._all_said = False
        self._outcome: Outcome | None = None
        self._begin()

    # -- what others may know ---------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._id

    @property
    def item_id(self) -> str:
        return self._item_id

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def cancelled(self) -> bool:
        """Nothing that is said from now on will be heard."""
        return self._outcome in ("cancelled", "failed")

    @property
    def over(self) -> bool:
        return self._outcome is not None

    # -- what a dialogue does ---------------------------------------------------------------------

    async def audio(self, samples: np.ndarray) -> None:
        """Say float32 mono samples at SPEECH_RATE; waits while the client has enough in hand."""
        step = SPEECH_RATE * self._around.chunk_ms // 1000
        for start in range(0, len(samples), step):
            await self._until_wanted()
            if self._silent:
                return
            self._deliver(self._timeline.push(samples[start : start + step]))

    async def text(self, delta: str) -> None:
        """Add to the transcript."""
        delta = delta[: _MAX_TRANSCRIPT_CHARS - len(self._transcript)]
        if self._silent or not delta:
            return
        self._transcript += delta
        self._around.downlink.event(wire.OutputTranscriptDelta(delta=delta, **self._part_ids()))

    async def done(self) -> None:
        """All was said. The response completes once its frames are out."""
        if self._silent:
            return
        self._deliver(self._timeline.flush())
        self._all_said = True
        self._end_item("completed")
        self._complete_if_all_out()

    async def fail(self, code: str, message: str) -> None:
        """It cannot be said: an error event, and the end."""
        if self.over:
            return
        error = ProtocolError(code, message, type="server_error")
        self._around.downlink.error(error)
        self._break_off("failed", error=error)

    # -- what the session does --------------------------------------------------------------------

    def cancel(self, reason: CancelReason) -> None:
        """Interrupt: nothing of this response is sent after its ``response.done``."""
        if not self.over:
            self._break_off("cancelled", reason=reason)

    def playback(self, position_s: float, frames_shown: int, frames_late: int) -> None:
        """The client says what it hears now, and how many frames it has shown so far."""
        self._playback.reported(position_s, self._around.clock())
        self._moved.set()
        self._count_shown(frames_shown, frames_late)

    def truncated(self, audio_end_s: float) -> None:
        """The client stopped playing here: the idle cycle goes on from what it showed."""
        self._resume_idle(self._frames_until(audio_end_s), self._around.clock())

    def abandon(self) -> None:
        """The client is gone: free the renderer, send nothing."""
        if not self.over:
            self._end("cancelled", cancel_stream=True)

    # -- its course -------------------------------------------------------------------------------

    @property
    def _silent(self) -> bool:
        return self._all_said or self.over

    def _begin(self) -> None:
        downlink = self._around.downlink
        item = wire.assistant_item(self._item_id, status="in_progress")
        downlink.event(wire.ResponseCreated(response=self._object("in_progress")))
        downlink.event(wire.OutputItemAdded(response_id=self._id, item=item))
        previous = self._around.conversation.add(item, audio_ms=0)
        downlink.event(wire.ConversationItemAdded(previous_item_id=previous, item=item))
        part = wire.ContentPart(transcript="")
        downlink.event(wire.ContentPartAdded(part=part, **self._part_ids()))

    async def _until_wanted(self) -> None:
        """Wait until the client has less than MAX_AHEAD_S in hand, or nothing is wanted."""
        while not self._silent:
            excess_s = self._playback.ahead_s(self._around.clock()) - MAX_AHEAD_S
            if excess_s <= 0:
                return
            self._moved.clear()
            try:
                async with asyncio.timeout(excess_s):
                    await self._moved.wait()
            except TimeoutError:
                pass

    def _deliver(self, spoken: Spoken) -> None:
        now = self._around.clock()
        if spoken.wire:
            self._send_audio(spoken, now)
        if self._stream is None and spoken.chunks:
            self._start_speaking(now)
        for chunk in spoken.chunks:
            self._submit(chunk, now)

    def _start_speaking(self, now: float) -> None:
        """The first chunk is complete: from here on the client may begin to play."""
        self._first_chunk_s = now
        self._first_cycle_index = self._idle.index_at(now + PREROLL_S)
        self._playback.rendering(now)
        self._around.downlink.event(
            wire.AvatarSwitchToSpeaking(
                turn_id=self._id,
                generation=self._generation,
                frame_index=0,
                cycle_index=self._first_cycle_index,
            )
        )
        self._stream = self._around.face.open_stream(
            self._avatar, self._video, self._generation, self._first_cycle_index, self._on_frame
        )

    def _send_audio(self, spoken: Spoken, now: float) -> None:
        form = self._config.audio.output.format
        self._around.downlink.audio(
            spoken.wire,
            binary=self._binary,
            response_id=self._id,
            item_id=self._item_id,
            generation=self._generation,
            offset=spoken.offset,
            rate=form.rate,
        )
        seconds = len(spoken.wire) / (form.bytes_per_sample * form.rate)
        self._playback.sent(seconds, now)
        self._around.metrics.audio_out_s.inc(seconds)

    def _submit(self, chunk: Chunk, now: float) -> None:
        assert self._stream is not None
        # Counted first: the renderer may settle frames before submit returns.
        self._submitted += chunk.frame_count
        self._stream.submit(
            chunk, self._playback.due_s(float(chunk.first_frame / self._video.fps), now)
        )

    def _on_frame(self, outcome: FrameOutcome) -> None:
        """The renderer settled a frame; called on the event loop, once for each submitted."""
        if self.over:
            self._around.metrics.frames_dropped.labels("cancelled").inc()
        elif isinstance(outcome, RenderedFrame):
            if not self._first_frame_seen and self._first_chunk_s is not None:
                self._first_frame_seen = True
                now = self._around.clock()
                self._playback.showing(now)
                self._around.metrics.observe_first_frame(now - self._first_chunk_s)
            self._around.downlink.frame(
                outcome, binary=self._binary, response_id=self._id, settled=self._settled
            )
        else:
            self._count_drop(outcome.reason)
            if outcome.reason == "failed" and not self._render_failed:
                self._render_failed = True
                self._around.downlink.error(
                    ProtocolError(
                        "render_failed",
                        "Some frames of this response could not be made; its audio is whole.",
                        type="server_error",
                    )
                )
            self._complete_if_all_out()

    def _settled(self, sent: bool) -> None:
        """The outbox sent or dropped a frame."""
        if sent:
            self._sent += 1
            self._around.metrics.frames_sent.inc()
        else:
            self._count_drop("cancelled" if self.over else "slow_client")
        self._complete_if_all_out()

    def _count_shown(self, shown: int, late: int) -> None:
        """Count what is new in a client's report. More than was sent cannot be shown."""
        shown = max(self._client_shown, min(shown, self._sent))
        late = max(self._client_late, min(late, shown))
        self._around.metrics.client_shown.inc(shown - self._client_shown)
        self._around.metrics.client_late.inc(late - self._client_late)
        self._client_shown, self._client_late = shown, late

    def _count_drop(self, reason: str) -> None:
        self._dropped += 1
        self._around.metrics.frames_dropped.labels(reason).inc()

    # -- its end ----------------------------------------------------------------------------------

    def _complete_if_all_out(self) -> None:
        if self.over or not self._all_said or self._sent + self._dropped < self._submitted:
            return
        self._end("completed")
        end_s = self._playback.due_s(self._timeline.seconds, self._around.clock())
        self._send_end(self._resume_idle(self._submitted, end_s))

    def _break_off(
        self,
        outcome: Literal["cancelled", "failed"],
        *,
        reason: CancelReason | None = None,
        error: ProtocolError | None = None,
    ) -> None:
        now = self._around.clock()
        shown = self._frames_until(self._playback.position_s(now))
        self._end(outcome, cancel_stream=True)
        self._around.downlink.outbox.discard(self._generation)
        if not self._all_said:
            self._end_item("incomplete")
        self._send_end(self._resume_idle(shown, now), reason=reason, error=error)

    def _end(self, outcome: Outcome, *, cancel_stream: bool = False) -> None:
        self._outcome = outcome
        self._moved.set()
        if self._stream is not None:
            if cancel_stream:
                self._stream.cancel()
            self._stream.close()
        self._around.metrics.responses.labels(outcome).inc()

    def _end_item(self, status: Literal["completed", "incomplete"]) -> None:
        downlink, ids = self._around.downlink, self._part_ids()
        item = wire.assistant_item(self._item_id, status=status, transcript=self._transcript)
        downlink.event(wire.OutputAudioDone(**ids))
        downlink.event(wire.OutputTranscriptDone(transcript=self._transcript, **ids))
        part = wire.ContentPart(transcript=self._transcript)
        downlink.event(wire.ContentPartDone(part=part, **ids))
        audio_ms = int(self._timeline.seconds * 1000)
        previous = self._around.conversation.add(item, audio_ms=audio_ms)
        downlink.event(wire.ConversationItemDone(previous_item_id=previous, item=item))
        downlink.event(wire.OutputItemDone(response_id=self._id, item=item))

    def _send_end(
        self,
        cycle_index: int,
        *,
        reason: CancelReason | None = None,
        error: ProtocolError | None = None,
    ) -> None:
        assert self._outcome is not None
        downlink = self._around.downlink
        downlink.event(
            wire.VideoDone(
                response_id=self._id,
                frames_sent=self._sent,
                frames_dropped=self._submitted - self._sent,
            )
        )
        if self._stream is not None:
            downlink.event(
                wire.AvatarSwitchToIdle(
                    turn_id=self._id,
                    generation=self._generation,
                    frame_index=self._submitted,
                    cycle_index=cycle_index,
                )
            )
        status = self._outcome
        item = wire.assistant_item(
            self._item_id,
            status="completed" if self._all_said else "incomplete",
            transcript=self._transcript,
        )
        downlink.event(
            wire.ResponseDone(response=self._object(status, (item,), reason=reason, error=error))
        )

    def _resume_idle(self, frames_shown: int, at_s: float) -> int:
        """The idle cycle goes on after so many frames of this response; returns its index there."""
        if self._stream is not None:
            per_frame = Fraction(self._avatar.fps).limit_denominator(1001) / self._video.fps
            self._idle.resume(self._first_cycle_index + int(frames_shown * per_frame), at_s)
        return self._idle.index_at(at_s)

    def _frames_until(self, position_s: float) -> int:
        return min(self._submitted, int(position_s * self._video.fps))

    def _object(
        self, status: wire.ResponseStatus, output: tuple[wire.Item, ...] = (), **why: Any
    ) -> wire.ResponseObject:
        audio = self._config.audio.output
        return wire.response_object(
            self._id,
            generation=self._generation,
            status=status,
            output=output,
            metadata=self._metadata,
            format=audio.format,
            voice=audio.voice,
            **why,
        )

    def _part_ids(self) -> dict[str, Any]:
        return {"response_id": self._id, "item_id": self._item_id}
