"""One conversation: handles client events in order and runs the dialogue.

A session knows no connection. A transport passes messages to `receive` and sends the outbox; a
connection may be replaced while the session goes on. Client events are handled in order, by one
task (`run`). Sessions share only the renderer and the avatars. A session does not know how a face
is made; what the dialogue may do is `dialogue_access`, and what is said is `responses`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import assert_never

from wsavatar.config import Settings
from wsavatar.dialogue.base import Dialogue, DialogueConfig, ResponseRequest
from wsavatar.dialogue.conversation import Conversation
from wsavatar.dialogue.requests import unmet
from wsavatar.metrics import Metrics
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import ProtocolError, SessionConfig, new_id
from wsavatar.render.load import Load
from wsavatar.session.avatar_making import AvatarMaking
from wsavatar.session.configuration import (
    check_background,
    check_video,
    dialogue_config,
    initial_config,
    may_wait,
    names_background,
    with_avatar,
)
from wsavatar.session.dependencies import Dependencies
from wsavatar.session.dialogue_access import DialogueAccess
from wsavatar.session.downlink import Downlink
from wsavatar.session.engine import AvatarInfo, Engine
from wsavatar.session.inbox import Inbox, Pending
from wsavatar.session.later_background import BackgroundFound, LaterBackground
from wsavatar.session.microphone import Microphone
from wsavatar.session.outbox import Outbox
from wsavatar.session.requests import new_entry, response_request
from wsavatar.session.responses import Responses
from wsavatar.session.resumption import Resumption
from wsavatar.session.selection import Selection, only_as_shown
from wsavatar.session.transcription import Transcription
from wsavatar.session.user_items import UserItems
from wsavatar.session.video_orders import VideoOrders

__all__ = ["Session"]

_log = logging.getLogger(__name__)

_CLOSE_DIALOGUE_S = 5.0
_WIDEST_SAMPLE_RATE = 96_000  # bytes per second of 48 kHz PCM16


class Session:
    """Call `start` once, keep `run` running, `close`.

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
        self._later = LaterBackground(self._selection, self._background_found, self._downlink.error)
        self._conversation = Conversation()
        self._inbox = Inbox(int(settings.audio.max_buffer_s * _WIDEST_SAMPLE_RATE))
        self._microphone = Microphone(settings.audio.max_buffer_s)
        self._transcription = Transcription(self._downlink, self._conversation)
        self._user_items = UserItems(self._downlink, self._conversation, self._transcription)
        self._responses = Responses(
            Dependencies(
                self._downlink,
                self._conversation,
                engine.renderer,
                settings.audio,
                metrics,
                clock,
            )
        )
        self.dialogue_access = DialogueAccess(
            self._downlink,
            self._conversation,
            self._responses,
            self._microphone,
            self._user_items,
            self._transcription,
        )
        self._knows_avatars = False  # the client has shown that it does
        self._config: SessionConfig
        self._avatar: AvatarInfo
        self._dialogue: Dialogue

    # -- lifecycle --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the avatar and create the dialogue. Raises ProtocolError if either fails."""
        avatar_id = self._wanted_avatar or await self._selection.default_avatar()
        self._avatar = await self._selection.avatar(avatar_id)
        mode = self._selection.mode(self._settings)
        transcriber = self._selection.transcriber()
        self._config = initial_config(self._settings, self._avatar, mode, transcriber)
        self._responses.configure(self._config, self._avatar)
        config = self._dialogue_config(self._config, self._avatar)
        mode = self._config.avatar.mode
        self._dialogue = self._selection.dialogue(mode, self.dialogue_access, config)
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
        self._responses.reconnected()
        self.resumption.resume(received)
        self._metrics.resumed.inc()

    async def _take_in(self, message: str | bytes) -> None:
        try:
            event = message if isinstance(message, bytes) else wire.parse_client_event(message)
        except ProtocolError as error:
            self._downlink.error(error)
            return
        pending = Pending(event, len(message))
        match event:
            case wire.AvatarPlayback():
                self._use_extension()
                self._responses.playback(event)  # at once: queued events may wait for this report
                return
            case wire.AvatarRequestEvent():
                self._use_extension()
                self.avatars.receive(event)
                return
            case wire.ResponseCancel():
                pending.done = self._cancel_ahead(event.response_id)
            case wire.InputAudioBufferAppend():
                pending.size = len(event.audio)
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
            event_id = getattr(event, "event_id", None)
            self.dialogue_access.event_id = event_id
            try:
                await self._handle(pending)
            except ProtocolError as error:
                error.event_id = error.event_id or event_id
                self._downlink.error(error)

    async def overflowed(self) -> None:
        """Wait until the outbox is full; raises OutboxOverflow."""
        await self._downlink.overflowed()

    async def close(self) -> None:
        """End the session: free the renderer, stop the dialogue."""
        self._responses.abandon()
        await self._later.close()
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
    def playing(self) -> bool:
        """Whether the client still has audio to play."""
        return self._responses.playing

    @property
    def makes_videos(self) -> bool:
        """Whether a video that the client ordered is not finished."""
        return self._videos.busy

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
            "inbox_bytes": self._inbox.size,
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
            case BackgroundFound():
                await self._show_background(event.name)
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
                # It may have been started by an event before the cancel.
                cancelled = self._responses.cancel(event.response_id)
                if not (cancelled or pending.done or expected):
                    raise self._nothing_to_cancel(event.response_id)
            case wire.AvatarSpeak():
                await self._speak(event.text, revoked=pending.revoked)
            case wire.AvatarRender() | wire.AvatarRenderCancel():
                self._use_extension()
                voice = self._config.audio.output.voice or ""
                if isinstance(event, wire.AvatarRender):
                    wanted = "own picture" if event.picture else event.background
                    check_background(wanted, self._avatar.background, self._settings)
                self._videos.handle(event, self._conversation, self._avatar, voice)
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
        check_video(new, old, self._settings)
        avatar = await self._wanted(new, event)
        new = with_avatar(new, self._settings, avatar)
        config = self._dialogue_config(new, avatar)
        if new.avatar.mode != old.avatar.mode:
            replacement = await self._selection.started_dialogue(
                new.avatar.mode, self.dialogue_access, config
            )
            self._responses.stop("client_cancelled")
            await self._dialogue.close()
            self._dialogue = replacement
        elif config != self._dialogue_config(old, self._avatar):
            await self._dialogue.configure(config)
        self._config, self._avatar = new, avatar
        self._responses.configure(new, avatar)
        if "avatar" in event.session:
            self._use_extension()
        self._transcription.wanted = new.audio.input.transcription is not None
        self._microphone.change_format(new.audio.input.format)
        self._downlink.event(wire.SessionUpdated.of(new, self.id))
        if "avatar" in event.session:
            await self._welcome()

    async def _wanted(self, new: SessionConfig, event: wire.SessionUpdate) -> AvatarInfo:
        """The avatar before the background of a new configuration, or, while its person is looked
        for, before another one. Raises ProtocolError."""
        shown = self._avatar
        avatar_id = new.avatar.id or await self._selection.default_avatar()
        background = new.avatar.video.background
        if self._later.name and not names_background(event.session):
            background = self._later.name  # as was asked before
        if (avatar_id, background) == (shown.id, shown.background):
            self._later.forget()
            return shown
        try:
            if may_wait(background, self._settings):
                until_then = self._later.until_then
                background = await until_then(avatar_id, background, shown, event.event_id)
            return await self._selection.avatar(avatar_id, "session.avatar.id", background)
        except ProtocolError as error:
            if avatar_id == shown.id and error.code == "avatar_not_found":  # it was deleted
                raise only_as_shown(avatar_id) from error
            raise

    async def _background_found(self, event: BackgroundFound) -> None:
        await self._inbox.put(Pending(event))

    async def _show_background(self, name: str) -> None:
        if name == self._later.name:  # else the client has changed its mind
            video = {"video": {"background": name}}
            update = wire.SessionUpdate(type="session.update", session={"avatar": video})
            await self._update(update)

    async def _welcome(self) -> None:
        """Let the avatar greet a client that shows it, unless something was said."""
        if self._responses.latest is None and not len(self._conversation):
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
        index, response = event.content_index, self._responses.latest
        if response is not None and response.item_id != event.item_id:
            response = None
        if response is not None and event.item_id not in self._conversation:
            # Outside the conversation there is nothing to cut; only the event is sent.
            heard_ms = min(event.audio_end_ms, round(1000 * response.transcript.sent_s))
        else:
            heard_ms = self._conversation.truncate(event.item_id, index, event.audio_end_ms)
        if response is not None:
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
            self._responses.begin(request).cancel("client_cancelled")
            return
        if self._responses.in_progress is not None:
            raise ProtocolError(
                "conversation_already_has_active_response",
                "A response is in progress: wait for its response.done, or cancel it.",
            )
        await self._dialogue.create_response(request)

    async def _speak(self, text: str, *, revoked: bool) -> None:
        self._use_extension()
        if revoked:
            self._responses.begin().cancel("client_cancelled")
        else:
            await self._dialogue.speak(text)

    # -- helpers ----------------------------------------------------------------------------------

    def _cancel_ahead(self, response_id: str | None) -> bool:
        """Cancel at once, before events that were queued earlier.

        Queued requests are revoked: each is answered by a response that is cancelled at once.
        Returns whether there was anything to cancel.
        """
        revoked = response_id is None and self._inbox.revoke_requests() > 0
        return self._responses.cancel(response_id) or revoked

    def _nothing_to_cancel(self, response_id: str | None) -> ProtocolError:
        active = self._responses.in_progress
        rest = "." if active is None else f" with this id; the one in progress is {active.id}."
        return ProtocolError(
            "response_cancel_not_active",
            # LiveKit knows this case by how the message begins.
            "Cancellation failed: no active response found" + rest,
            param=None if response_id is None else "response_id",
        )

    def _use_extension(self) -> None:
        """Send frames and what else is ours from now on: the client knows avatars."""
        if self._knows_avatars:
            return
        self._knows_avatars = True
        self._transcription.at_once = self._responses.for_avatars = True
        self.resumption.offer()
        if self._engine.renderer.capacity.over:
            self.tell_capacity(self._engine.renderer.capacity.load())

    def _dialogue_config(self, config: SessionConfig, avatar: AvatarInfo) -> DialogueConfig:
        return dialogue_config(self._settings.dialogue, config, avatar)
