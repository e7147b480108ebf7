"""One response: its events in order, its audio at once, its frames when rendered.

A response lasts from ``response.created`` to ``response.done`` and ends exactly once:

* *completed*, or *incomplete* where the model stopped early, when all of its audio and frames were
  sent and, if the client reports playback (``avatar.playback``), it was heard to the end;
* *cancelled* or *failed* at once. Later frames are counted and dropped.

Its message is ``completed``, or ``incomplete`` with the text that was heard. A client without
reports may still play when a response is done; `stop` then truncates the message as far as is
known. A response in text, or with calls of functions alone, has no audio and no frames. This module
knows the timeline of its audio; `response_frames` has its frames, `outputs` the items' events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np

from wsavatar.dialogue.base import Word
from wsavatar.faces.base import SpeechChunker
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import CancelReason, ProtocolError
from wsavatar.session.dependencies import Dependencies
from wsavatar.session.engine import AvatarInfo
from wsavatar.session.frame_report import FrameReport
from wsavatar.session.outputs import Outputs
from wsavatar.session.played import PlayedAudio
from wsavatar.session.response_format import ResponseFormat
from wsavatar.session.response_frames import ResponseFrames
from wsavatar.session.timeline import IdleClock, PlaybackEstimate, SpeechTimeline, Spoken
from wsavatar.session.transcript import Transcript
from wsavatar.session.turn_report import TurnReport

__all__ = ["MAX_AHEAD_S", "SpokenResponse"]

MAX_AHEAD_S = 10.0
"""Maximum time by which speech runs ahead of playback. Above it the speaker waits."""
_HEARD_SLACK_S = 0.02
"""Remaining audio with which a response counts as heard to the end."""

Outcome = Literal["completed", "incomplete", "cancelled", "failed"]
Incomplete = Literal["max_output_tokens", "content_filter"]


class SpokenResponse:
    """A `wsavatar.dialogue.base.Response`. On the event loop; only `audio` waits.

    ``reports``: the client reports playback. ``response_id``, ``stopped``: as
    `wsavatar.dialogue.base.DialogueSession.respond` has them.
    """

    def __init__(
        self,
        dependencies: Dependencies,
        form: ResponseFormat,
        *,
        generation: int,
        avatar: AvatarInfo,
        idle: IdleClock,
        reports: bool,
        response_id: str | None = None,
        stopped: Callable[[int], None] | None = None,
    ) -> None:
        self._deps = dependencies
        self._form = form
        self._generation = generation
        self._reports = reports
        self._tell_stopped = stopped
        self._timeline = SpeechTimeline(form.rate, form.audio, _chunker(dependencies, form))
        self._playback = PlaybackEstimate()
        self.played = PlayedAudio(form.rate, self._playback, dependencies.clock)
        self._transcript = Transcript()
        self._moved = asyncio.Event()  # set by a playback report and at the end
        self._id = response_id or wire.new_id("resp")
        self._outputs = Outputs(
            dependencies.downlink, dependencies.conversation, self._id, form, self._transcript
        )
        self._turn = TurnReport(
            self._id,
            form.trace,
            dependencies.metrics,
            dependencies.downlink if form.for_avatars else None,
        )
        self._frames = ResponseFrames(
            dependencies,
            form,
            self._outputs,
            self._turn,
            FrameReport(dependencies.downlink, dependencies.metrics, self._id, generation),
            generation=generation,
            avatar=avatar,
            idle=idle,
            playback=self._playback,
            settled=self._check_all_sent,
        )
        self._reported_s = 0.0  # the furthest position that the client has reported
        self._broken_off_s: float | None = None  # what was heard when it was broken off
        self._failure: ProtocolError | None = None
        self._incomplete: Incomplete | None = None
        self._all_said = False
        self._all_sent = False
        self._outcome: Outcome | None = None
        self._timer: asyncio.TimerHandle | None = None
        dependencies.downlink.event(wire.ResponseCreated(response=self._object("in_progress")))

    # -- state ------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        return self._id

    @property
    def item_id(self) -> str:
        """The id of its message, begun or not."""
        return self._outputs.message_id

    @property
    def transcript(self) -> Transcript:
        return self._transcript

    @property
    def over(self) -> bool:
        """Whether ``response.done`` was sent."""
        return self._outcome is not None

    @property
    def audible(self) -> bool:
        """Whether the client still plays it or will get more of it."""
        if self._outcome not in (None, "completed", "incomplete"):
            return False
        if not self._all_said:
            return True
        return self._playback.ahead_s(self._deps.clock()) > _HEARD_SLACK_S

    @property
    def playing(self) -> bool:
        """Whether the client still has audio of it to play."""
        return self._playback.ahead_s(self._deps.clock()) > _HEARD_SLACK_S

    @property
    def heard_s(self) -> float:
        """Seconds of its audio that were heard, by the client's reports, else by an estimate."""
        if self._broken_off_s is not None:
            return self._broken_off_s
        position_s = self._playback.position_s(self._deps.clock())
        return min(max(position_s, self._reported_s), self._transcript.sent_s)

    # -- for the dialogue -------------------------------------------------------------------------

    async def audio(self, samples: np.ndarray) -> None:
        """Say float32 mono samples at the format's rate. Waits while the client has enough."""
        if self._form.in_text:
            return
        step = self._form.rate * self._deps.audio.chunk_ms // 1000
        for start in range(0, len(samples), step):
            await self._until_wanted()
            if self._silent:
                return
            self._outputs.begin_message()
            piece = samples[start : start + step]
            if not self._form.live:  # what is mirrored is the user's own voice
                self.played.add(piece)
            self._deliver(self._timeline.push(piece))

    async def text(self, delta: str) -> None:
        """Add to the transcript: the words of the following audio; or to the text."""
        if not self._silent:
            self._outputs.text(delta)

    async def words(self, words: Sequence[Word]) -> None:
        """When words of the audio are said."""
        if not self._silent and not self._form.in_text:
            self._outputs.words(words)

    def next_item(self, item_id: str) -> None:
        """What is said or called next, if it begins an item, has this id."""
        if not self._silent:
            self._outputs.next_item(item_id)

    async def arguments(self, call_id: str, name: str, delta: str) -> None:
        """Add to the arguments of a call of a function."""
        if not self._silent:
            self._outputs.arguments(call_id, name, delta)

    async def done(self, incomplete: Incomplete | None = None) -> None:
        """Nothing more is said, written or called."""
        if self._silent:
            return
        self._incomplete = incomplete
        self._deliver(self._timeline.flush())
        self._end_part()
        self._check_all_sent()

    async def fail(self, code: str, message: str, *, at_once: bool = False) -> None:
        """Fail the response, after the audio so far is delivered."""
        if self.over or self._failure is not None:
            return
        self._failure = ProtocolError(code, message, type="server_error")
        self._deps.metrics.errors.labels(code).inc()
        if at_once or not self._timeline.seconds:
            self._break_off("failed")
        elif not self._all_said:
            self._deliver(self._timeline.flush())
            self._end_part(complete=False)
            self._check_all_sent()

    # -- for the session --------------------------------------------------------------------------

    def cancel(self, reason: CancelReason | None) -> None:
        """End the response; nothing of it is sent after its ``response.done``.

        ``reason`` None: another response replaces it.
        """
        if not self.over:
            self._break_off("cancelled", reason=reason)

    def stop(self, reason: CancelReason | None) -> None:
        """Stop the response, whether it is in progress or only still played."""
        if not self.over:
            self._break_off("cancelled", reason=reason)
        elif self.audible:
            heard_s = self._heard_at_most_s()
            self._was_stopped(heard_s)
            if self._reports and self._outputs.is_kept:
                heard_ms = self._deps.conversation.truncate(self.item_id, 0, int(1000 * heard_s))
                self._deps.downlink.event(
                    wire.ConversationItemTruncated(
                        item_id=self.item_id, content_index=0, audio_end_ms=heard_ms
                    )
                )
            self.truncated(self._playback.position_s(self._deps.clock()))

    def playback(self, position_s: float, frames_shown: int, frames_late: int) -> None:
        """A playback report: the position, and frames shown and late so far."""
        self._reports = True
        self._reported_s = max(self._reported_s, position_s)
        self._playback.reported(position_s, self._deps.clock())
        self._moved.set()
        self._frames.was_shown(frames_shown, frames_late)
        self._turn.heard(position_s)
        self._complete_if_heard()

    def truncated(self, audio_end_s: float) -> None:
        """The client stopped playing here; the idle cycle continues from the frame it showed."""
        now = self._deps.clock()
        if self.over:
            self._playback.stopped(audio_end_s, now)
        self._frames.rest(audio_end_s, now)

    def reconnected(self) -> None:
        """The client is back after a connection was lost: go on where it is."""
        self._playback.cut_off(self._transcript.sent_s, self._deps.clock())
        self._moved.set()
        self._complete_if_heard()

    def abandon(self) -> None:
        """The session has ended: free the renderer, send nothing."""
        if not self.over:
            self._end("cancelled", cancel_frames=True)

    # -- in progress ------------------------------------------------------------------------------

    @property
    def _silent(self) -> bool:
        return self._all_said or self.over

    async def _until_wanted(self) -> None:
        """Wait until the client has less than MAX_AHEAD_S of audio, or the response ends.

        Without a connection nobody plays: it waits for the next one.
        """
        while not self._silent:
            is_connected = self._deps.downlink.is_connected
            excess_s = self._playback.ahead_s(self._deps.clock()) - MAX_AHEAD_S
            if is_connected and excess_s <= 0:
                return
            self._moved.clear()
            try:
                async with asyncio.timeout(excess_s if is_connected else None):
                    await self._moved.wait()
            except TimeoutError:
                pass

    def _deliver(self, spoken: Spoken) -> None:
        now = self._deps.clock()
        if spoken.wire:
            self._send_audio(spoken, now)
        self._frames.submit(spoken.chunks, now)

    def _send_audio(self, spoken: Spoken, now: float) -> None:
        form = self._form.audio
        seconds = len(spoken.wire) / (form.bytes_per_sample * form.rate)
        self._playback.sent(seconds, now)
        self._transcript.spoken(seconds)
        self._deps.metrics.audio_out_s.inc(seconds)
        self._deps.downlink.audio(
            spoken.wire,
            binary=self._form.binary,
            part=self._outputs.part_ids,
            generation=self._generation,
            offset=spoken.offset,
            rate=form.rate,
            sent=partial(self._transcript.sent, seconds),
        )

    # -- the end ----------------------------------------------------------------------------------

    def _check_all_sent(self) -> None:
        """Note when the speech is complete and every frame was sent or dropped."""
        if self.over or self._all_sent or not self._all_said or not self._frames.all_settled:
            return
        self._all_sent = True
        self._frames.end(self._playback.due_s(self._timeline.seconds, self._deps.clock()))
        self._complete_if_heard()

    def _complete_if_heard(self) -> None:
        if self.over or not self._all_sent or not self._deps.downlink.is_connected:
            return
        ahead_s = self._playback.ahead_s(self._deps.clock())
        if self._reports and ahead_s > _HEARD_SLACK_S:
            if self._timer is not None:
                self._timer.cancel()
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(ahead_s, self._complete_if_heard)
            return
        if self._failure is not None:
            self._end("failed")
            self._send_done("incomplete", self._transcript.until(self._timeline.seconds))
        elif self._incomplete is not None:
            self._end("incomplete")
            self._send_done("incomplete", self._transcript.text, self._incomplete)
        else:
            self._end("completed")
            self._send_done("completed", self._transcript.text)

    def _break_off(
        self,
        outcome: Literal["cancelled", "failed"],
        *,
        reason: CancelReason | None = None,
    ) -> None:
        now = self._deps.clock()
        self._broken_off_s = self.heard_s
        shown_s = self._playback.position_s(now)
        heard_s = self._heard_at_most_s()
        heard = self._transcript.text if self._form.in_text else self._transcript.until(heard_s)
        self._end(outcome, cancel_frames=True)
        self._deps.downlink.outbox.discard(self._generation)
        self._end_part(complete=False)
        self._frames.cut(shown_s, now)
        self._send_done("incomplete", heard, reason)
        if outcome == "cancelled":
            self._was_stopped(heard_s)

    def _was_stopped(self, heard_s: float) -> None:
        """Tell the dialogue, once."""
        tell, self._tell_stopped = self._tell_stopped, None
        if tell is not None:
            tell(int(1000 * heard_s))

    def _heard_at_most_s(self) -> float:
        """Seconds that were heard: as reported, at most what was sent; else what was sent."""
        sent_s = self._transcript.sent_s
        if not self._reports:
            return sent_s
        position_s = self._playback.position_s(self._deps.clock())
        return min(max(position_s, self._reported_s), sent_s)

    def _end(self, outcome: Outcome, *, cancel_frames: bool = False) -> None:
        self._outcome = outcome
        self._moved.set()
        if self._timer is not None:
            self._timer.cancel()
        self._frames.close(cancel=cancel_frames)
        self._deps.metrics.responses.labels(outcome).inc()
        self._turn.send()

    def _end_part(self, *, complete: bool = True) -> None:
        """No more audio or text."""
        if self._all_said:
            return
        self._all_said = True
        if complete:  # else how long the last text would have been is not known
            self._transcript.finish()
            self._outputs.end_call("completed")
        self._outputs.end_part()

    def _send_done(
        self,
        status: Literal["completed", "incomplete"],
        text: str,
        reason: CancelReason | Incomplete | None = None,
    ) -> None:
        """End the items and the response. ``status``, ``text``: of what was said or written."""
        assert self._outcome is not None
        items = self._outputs.end(status, text)
        error = self._failure if self._outcome == "failed" else None
        response = self._object(self._outcome, items, reason=reason, error=error)
        self._deps.downlink.event(wire.ResponseDone(response=response))

    def _object(
        self, status: wire.ResponseStatus, output: tuple[wire.Item, ...] = (), **why: Any
    ) -> wire.ResponseObject:
        return wire.response_object(
            self._id,
            generation=self._generation,
            status=status,
            output=output,
            metadata=self._form.metadata,
            output_modalities=[self._form.output_modality],
            max_output_tokens=self._form.max_output_tokens,
            format=self._form.audio,
            voice=self._form.voice,
            conversation_id=self._deps.conversation.id if self._form.in_conversation else None,
            **why,
        )


def _chunker(deps: Dependencies, form: ResponseFormat) -> SpeechChunker | None:
    """What cuts the audio for the renderer; None: no frames are wanted."""
    if form.video is None:
        return None
    soon = form.live and not deps.renderer.capacity.over
    chunk_ms = deps.audio.live_chunk_ms if soon else deps.audio.chunk_ms
    return deps.renderer.open_chunker(form.video.fps, chunk_ms, deps.audio.first_chunk_ms)
