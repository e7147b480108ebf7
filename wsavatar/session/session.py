"""One conversation: handles client events, runs the dialogue, and produces events and frames.

A session knows no connection. A transport passes messages to `receive` and sends the outbox; a
connection may be replaced while the session goes on. Client events are handled in order, by one
task (`run`). Sessions share only the renderer and the avatars. A session does not know how a face
is made.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

from wsavatar.config import Settings
from wsavatar.dialogue.base import SPEECH_RATE, Dialogue, DialogueConfig, ResponseRequest
from wsavatar.dialogue.conversation import Conversation, Recording
from wsavatar.dialogue.requests import unmet
from wsavatar.metrics import Metrics
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import CancelReason, ProtocolError, SessionConfig, new_id
from wsavatar.render.load import Load
from wsavatar.session.avatar_making import AvatarMaking
from wsavatar.session.configuration import (
    dialogue_config,
    initial_config,
    with_avatar,
)
from wsavatar.session.dependencies import Dependencies
from wsavatar.session.downlink import Downlink
from wsavatar.session.engine import AvatarInfo, Engine
from wsavatar.session.inbox import Inbox, Pending
from wsavatar.session.microphone import Microphone
from wsavatar.session.outbox import Outbox
from wsavatar.session.played import PlayedAudio
from wsavatar.session.requests import new_entry, response_request
from wsavatar.session.response import SpokenResponse
from wsavatar.session.response_format import ResponseFormat
from wsavatar.session.resumption import Resumption
from wsavatar.session.selection import Selection
from wsavatar.session.timeline import IdleClock
from wsavatar.session.transcription import Transcription
from wsavatar.session.user_items import UserItems
from wsavatar.session.video_orders import VideoOrders

__all__ = ["Session"]

_log = logging.getLogger(__name__)

_CLOSE_DIALOGUE_S = 5.0
_WIDEST_SAMPLE_RATE = 96_000  # bytes per second of 48 kHz PCM16


class Session:
    """A `wsavatar.dialogue.base.DialogueSession`. Call `start` once, keep `run` running, `close`.

    ``avatar_id``: the avatar of the address' query. ``avatars`` is to be kept running as well.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Settings,
        metrics: Metrics,
        *,
        avatar_id: str | None = None,
        may_change_avatars: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = new_id("sess")
        self._engine = engine
        self._selection = Selection(engine)
        self._settings = settings
        self._metrics = metrics
        self._wanted_avatar = avatar_id
        self._clock = clock
        self.outbox = Outbox(frame_bytes=settings.server.outbox_bytes, clock=clock)
        self._downlink = Downlink(self.outbox, metrics)
        self.resumption = Resumption(self._downlink, settings.server.resume_s)
        self.avatars = AvatarMaking(
            self._downlink,
            engine.maker,
            settings.server.max_message_bytes,
            is_allowed=may_change_avatars,
            clock=clock,
        )
        self._videos = VideoOrders(self._downlink, engine, settings.tts.voice, clock=clock)
        self._conversation = Conversation()
        self._inbox = Inbox(int(settings.audio.max_buffer_s * _WIDEST_SAMPLE_RATE))
        self._deps = Dependencies(
            self._downlink,
            self._conversation,
            engine.renderer,
            settings.audio,
            metrics,
            clock,
        )
        self._transcription = Transcription(self._downlink, self._conversation)
        self._user_items = UserItems(self._downlink, self._conversation, self._transcription)
        self._response: SpokenResponse | None = None  # the latest, over or not
        self._played = deque[PlayedAudio](maxlen=2)  # of the newest responses
        self._generation = 0
        self._knows_avatars = False  # the client has shown that it does
        self._reports_playback = False
        self._event_id: str | None = None  # the client's, of the event that is being handled
        self._config: SessionConfig
        self._avatar: AvatarInfo
        self._idle: IdleClock
        self._dialogue: Dialogue
        self._microphone = Microphone(settings.audio.max_buffer_s)

    # -- lifecycle --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the avatar and create the dialogue. Raises ProtocolError if either fails."""
        avatar_id = self._wanted_avatar or await self._selection.default_avatar()
        self._avatar = await self._selection.avatar(avatar_id)
        mode = self._selection.mode(self._settings)
        transcriber = self._selection.transcriber()
        self._config = initial_config(self._settings, self._avatar, mode, transcriber)
        self._idle = self._idle_clock()
        config = self._dialogue_config(self._config, self._avatar)
        self._dialogue = self._selection.dialogue(self._config.avatar.mode, self, config)
        self._downlink.event(wire.SessionCreated.of(self._config, self.id))
        if self._wanted_avatar is not None or self._settings.server.frames == "always":
            self._use_extension()

    async def receive(self, message: str | bytes) -> None:
        """Queue a client's message. Waits while the queue is full."""
        await self._take_in(message)
        self.resumption.received += 1

    def disconnected(self) -> None:
        """Nobody sends the outbox now: nothing more is said until `resume`."""
        self._downlink.is_connected = False

    def resume(self, received: int) -> None:
        """Another connection takes over; its client has so many messages. Raises ReplayError."""
        self.outbox.replay.check(received)
        self._downlink.is_connected = True
        if self._response is not None:
            self._response.reconnected()
        self.resumption.resume(received)
        self._metrics.resumed.inc()

    async def _take_in(self, message: str | bytes) -> None:
        try:
            event = message if isinstance(message, bytes) else wire.parse_client_event(message)
        except ProtocolError as error:
            self._downlink.error(error)
            return
        pending = Pending(event)
        match event:
            case wire.AvatarPlayback():
                self._note_playback(event)  # at once: queued events may wait for this report
                return
            case wire.AvatarRequestEvent():
                self._use_extension()
                self.avatars.receive(event)
                return
            case wire.ResponseCancel():
                pending.done = self._cancel_ahead(event.response_id)
            case wire.InputAudioBufferAppend():
                pending.audio_bytes = len(event.audio)
            case bytes():
                pending.audio_bytes = len(event)
        await self._inbox.put(pending)

    async def run(self) -> None:
        """Handle the client's events in order, until cancelled."""
        try:
            await self._dialogue.start()
        except ProtocolError as error:
            self._downlink.error(error)
        if self._knows_avatars:
            await self._welcome()
        while True:
            pending = await self._inbox.take()
            event = pending.event
            self._event_id = None if isinstance(event, bytes) else event.event_id
            try:
                await self._handle(pending)
            except ProtocolError as error:
                error.event_id = error.event_id or self._event_id
                self._downlink.error(error)

    async def overflowed(self) -> None:
        """Wait until the outbox is full; raises OutboxOverflow."""
        await self._downlink.overflowed()

    async def close(self) -> None:
        """End the session: free the renderer, stop the dialogue."""
        if self._response is not None:
            self._response.abandon()
        await self._videos.close()
        if not hasattr(self, "_dialogue"):
            return
        try:
            async with asyncio.timeout(_CLOSE_DIALOGUE_S):
                await self._dialogue.close()
        except Exception:  # the session has ended: only the log remains
            _log.exception("%s: the dialogue did not close", self.id)

    def refuse(self, error: ProtocolError) -> None:
        """Send the reason why the session cannot start."""
        self._downlink.error(error)

    @property
    def is_full(self) -> bool:
        """Whether `receive` waits because the queue is full."""
        return self._inbox.is_full

    def depths(self) -> dict[str, int]:
        """Queue depths, for the server's gauges."""
        return {
            "outbox_frames": self.outbox.frame_count,
            "outbox_frame_bytes": self.outbox.frame_bytes,
            "outbox_message_bytes": self.outbox.message_bytes,
            "inbox_audio_bytes": self._inbox.audio_bytes,
        }

    def tell(self, event: wire.ServerEvent) -> None:
        """Send an event that is ours to a client that knows it."""
        if self._knows_avatars:
            self._downlink.event(event)

    def tell_capacity(self, load: Load) -> None:
        """Report the start or end of overload to a client that gets frames."""
        self.tell(
            wire.AvatarCapacity(
                over=load.over,
                frames_per_s_wanted=round(load.frames_per_s_wanted, 1),
                frames_per_s_made=round(load.frames_per_s_made, 1),
            )
        )

    # -- client events, in order ------------------------------------------------------------------

    async def _handle(self, pending: Pending) -> None:
        event = pending.event
        match event:
            case bytes():
                await self._hear(event, binary=True)
            case wire.InputAudioBufferAppend():
                await self._hear(event.audio, binary=False)
            case wire.InputAudioBufferCommit():
                await self._commit_for_client()
            case wire.InputAudioBufferClear():
                self._microphone.clear()
                await self._dialogue.cleared()
                self._downlink.event(wire.InputAudioBufferCleared())
            case wire.SessionUpdate():
                await self._update(event)
            case wire.ConversationItemCreate():
                await self._create_item(event)
            case wire.ConversationItemDelete():
                self._conversation.delete(event.item_id)
                self._downlink.event(wire.ConversationItemDeleted(item_id=event.item_id))
                await self._dialogue.item_deleted(event.item_id)
            case wire.ConversationItemRetrieve():
                code = "item_retrieve_invalid_item_id"
                item = self._conversation.get(event.item_id, code=code).now()
                self._downlink.event(wire.ConversationItemRetrieved(item=item))
            case wire.ConversationItemTruncate():
                await self._truncate(event)
            case wire.ResponseCreate():
                await self._create_response(event, revoked=pending.revoked)
            case wire.ResponseCancel():
                expected = await self._dialogue.cancelled()
                self._cancel_for_client(event.response_id, done=pending.done or expected)
            case wire.AvatarSpeak():
                await self._speak(event.text, revoked=pending.revoked)
            case wire.AvatarRender() | wire.AvatarRenderCancel():
                self._use_extension()
                voice = self._config.audio.output.voice or ""
                self._videos.handle(event, self._conversation, self._avatar.id, voice)
            case wire.AvatarPlayback() | wire.AvatarRequestEvent():
                pass  # handled in `receive`
            case _:
                assert_never(event)

    async def _update(self, event: wire.SessionUpdate) -> None:
        try:
            await self._reconfigure(event)
        except ProtocolError:
            if self._config.asks_for_other_input(event.session):
                self._microphone.stop()
            raise

    async def _reconfigure(self, event: wire.SessionUpdate) -> None:
        """Apply an update: first everything that can fail, then all changes."""
        old, new = self._config, self._config.updated(event.session, event.event_id)
        if problem := unmet(ResponseRequest(modality=new.output_modalities[0]), new.avatar.mode):
            raise ProtocolError("unsupported_value", problem, param="session.output_modalities")
        avatar_id = new.avatar.id or await self._selection.default_avatar()
        avatar = self._avatar
        if avatar_id != avatar.id:
            avatar = await self._selection.avatar(avatar_id, param="session.avatar.id")
        new = with_avatar(new, self._settings, avatar)
        config = self._dialogue_config(new, avatar)
        if new.avatar.mode != old.avatar.mode:
            replacement = await self._selection.started_dialogue(new.avatar.mode, self, config)
            self._stop("client_cancelled")
            await self._dialogue.close()
            self._dialogue = replacement
        elif config != self._dialogue_config(old, self._avatar):
            await self._dialogue.configure(config)
        self._config = new
        if "avatar" in event.session:
            self._use_extension()
        self._transcription.wanted = new.audio.input.transcription is not None
        self._microphone.change_format(new.audio.input.format)
        if avatar is not self._avatar:
            self._avatar = avatar
            self._idle = self._idle_clock()
        self._downlink.event(wire.SessionUpdated.of(new, self.id))
        if "avatar" in event.session:
            await self._welcome()

    async def _welcome(self) -> None:
        """Let the avatar greet a client that shows it, unless something was said."""
        if self._response is None and not len(self._conversation):
            await self._dialogue.welcome()

    async def _hear(self, data: bytes, *, binary: bool) -> None:
        """Add the client's audio to the buffer and pass it to the dialogue."""
        pieces = self._microphone.push(data, binary=binary, must_fit=self._must_commit)
        self._metrics.audio_in_s.inc(pieces.seconds)
        for samples in pieces:
            await self._dialogue.heard(samples)
            self._microphone.heard(samples)
            await asyncio.sleep(0)  # after each second of audio, other sessions run

    @property
    def _must_commit(self) -> bool:
        """Whether only the client ends a turn, so that its audio is kept or refused.

        Otherwise a commit may never come, and the oldest audio is dropped.
        """
        detects = self._config.audio.input.turn_detection is not None
        return not detects and self._config.avatar.mode != "mirror"

    async def _commit_for_client(self) -> None:
        audio = self._microphone.take()
        if not await self._dialogue.commit(audio):
            await self._dialogue.committed(self._user_items.add(audio))

    async def _create_item(self, event: wire.ConversationItemCreate) -> None:
        entry = new_entry(event.item, self._config.audio.input.format)
        previous = self._conversation.insert(entry, event.previous_item_id)
        item = entry.item
        self._downlink.event(wire.ConversationItemAdded(previous_item_id=previous, item=item))
        self._downlink.event(wire.ConversationItemDone(previous_item_id=previous, item=item))
        await self._dialogue.item_created(entry, event.previous_item_id)

    async def _truncate(self, event: wire.ConversationItemTruncate) -> None:
        index, response = event.content_index, self._response
        is_newest = response is not None and response.item_id == event.item_id
        if is_newest and event.item_id not in self._conversation:
            # Outside the conversation there is nothing to cut; only the event is sent.
            assert response is not None
            heard_ms = min(event.audio_end_ms, round(1000 * response.transcript.sent_s))
        else:
            heard_ms = self._conversation.truncate(event.item_id, index, event.audio_end_ms)
        if is_newest:
            assert response is not None
            response.truncated(heard_ms / 1000)
        self._downlink.event(
            wire.ConversationItemTruncated(
                item_id=event.item_id, content_index=index, audio_end_ms=heard_ms
            )
        )
        await self._dialogue.item_truncated(event.item_id, heard_ms)

    async def _create_response(self, event: wire.ResponseCreate, *, revoked: bool) -> None:
        request = response_request(event.response, self._config, self._conversation)
        if revoked:
            self.respond(request).cancel("client_cancelled")
            return
        if self._response is not None and not self._response.over:
            raise ProtocolError(
                "conversation_already_has_active_response",
                "A response is in progress: wait for its response.done, or cancel it.",
            )
        await self._dialogue.create_response(request)

    async def _speak(self, text: str, *, revoked: bool) -> None:
        self._use_extension()
        if revoked:
            self.respond().cancel("client_cancelled")
        else:
            await self._dialogue.speak(text)

    # -- handled at once --------------------------------------------------------------------------

    def _note_playback(self, event: wire.AvatarPlayback) -> None:
        self._reports_playback = True
        self._use_extension()
        if self._response is not None and self._response.id == event.response_id:
            self._response.playback(event.position_ms / 1000, event.frames_shown, event.frames_late)

    def _cancel_ahead(self, response_id: str | None) -> bool:
        """Cancel at once, before events that were queued earlier.

        Queued requests are revoked: each is answered by a response that is cancelled at once.
        Returns whether there was anything to cancel.
        """
        current = self._response
        names_current = current is not None and response_id in (None, current.id)
        revoked = self._inbox.revoke_requests() if response_id is None else 0
        if current is None or current.over or not names_current:
            return revoked > 0
        current.cancel("client_cancelled")
        return True

    def _cancel_for_client(self, response_id: str | None, *, done: bool) -> None:
        current = self._response
        if current is not None and not current.over and response_id in (None, current.id):
            current.cancel("client_cancelled")  # started by an event before the cancel
        elif not done:
            raise ProtocolError(
                "response_cancel_not_active",
                # LiveKit knows this case by how the message begins.
                "Cancellation failed: no active response found" + self._active_response(),
                param=None if response_id is None else "response_id",
            )

    def _active_response(self) -> str:
        if self._response is None or self._response.over:
            return "."
        return f" with this id; the one in progress is {self._response.id}."

    # -- what the dialogue may do -----------------------------------------------------------------

    @property
    def conversation(self) -> Conversation:
        return self._conversation

    @property
    def heard_ms(self) -> int:
        return self._microphone.heard_ms

    @property
    def speaking(self) -> bool:
        return self._response is not None and (not self._response.over or self._response.audible)

    @property
    def playing_audio(self) -> Sequence[PlayedAudio]:
        return [played for played in self._played if played.may_be_heard]

    @property
    def event_id(self) -> str | None:
        return self._event_id

    def error(self, error: ProtocolError) -> None:
        self._downlink.error(error)

    @property
    def playing(self) -> bool:
        """Whether the client still has audio to play."""
        return self._response is not None and self._response.playing

    @property
    def makes_videos(self) -> bool:
        """Whether a video that the client ordered is not finished."""
        return self._videos.busy

    def respond(
        self,
        request: ResponseRequest | None = None,
        *,
        rate: int = SPEECH_RATE,
        response_id: str | None = None,
        stopped: Callable[[int], None] | None = None,
    ) -> SpokenResponse:
        """Start a response; it replaces the one in progress."""
        self._stop(None)
        self._generation = self._generation % 0xFFFF + 1
        form = ResponseFormat.of(
            self._config, request or ResponseRequest(), rate, for_avatars=self._knows_avatars
        )
        self._response = SpokenResponse(
            self._deps,
            form,
            generation=self._generation,
            avatar=self._avatar,
            idle=self._idle,
            reports=self._reports_playback,
            response_id=response_id,
            stopped=stopped,
        )
        self._played.append(self._response.played)
        return self._response

    def interrupt(self) -> None:
        self._stop("turn_detected")

    def speech_started(self, audio_start_ms: int, item_id: str | None = None) -> None:
        self._user_items.speech_started(audio_start_ms, item_id)

    def speech_stopped(self, audio_end_ms: int) -> None:
        self._user_items.speech_stopped(audio_end_ms)

    def transcript_delta(self, item_id: str, delta: str) -> None:
        self._transcription.delta(item_id, delta)

    def transcribed(self, item_id: str, text: str, seconds: float) -> None:
        self._transcription.completed(item_id, text, seconds)

    def transcription_failed(self, item_id: str, code: str, message: str) -> None:
        self._transcription.failed(item_id, code, message)

    @property
    def spoken_item_id(self) -> str | None:
        return self._user_items.next_id

    def commit(
        self, audio: Recording | None, item_id: str | None = None, *, by_client: bool = False
    ) -> str:
        if not by_client:
            self._microphone.committed()
        return self._user_items.add(audio, item_id)

    # -- helpers ----------------------------------------------------------------------------------

    def _use_extension(self) -> None:
        """Send frames and what else is ours from now on: the client knows avatars."""
        if self._knows_avatars:
            return
        self._knows_avatars = self._transcription.at_once = True
        self.resumption.offer()
        if self._engine.renderer.capacity.over:
            self.tell_capacity(self._engine.renderer.capacity.load())

    def _stop(self, reason: CancelReason | None) -> None:
        if self._response is not None:
            self._response.stop(reason)

    def _dialogue_config(self, config: SessionConfig, avatar: AvatarInfo) -> DialogueConfig:
        return dialogue_config(self._settings.dialogue, config, avatar)

    def _idle_clock(self) -> IdleClock:
        return IdleClock(self._avatar.frame_count, self._avatar.fps, self._clock())
