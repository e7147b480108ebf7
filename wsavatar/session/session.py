"""One connection's life: client events in, a conversation held, events and frames out.

A session owns three tasks: one reads the socket, one feeds the dialogue in the order of events, one
sends what waits. It shares nothing with other sessions but the renderer and the avatars. It knows
neither how the socket was accepted nor how a face is made.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, assert_never

import numpy as np
from websockets.exceptions import ConnectionClosed

from wsavatar.avatars.format import AvatarError
from wsavatar.config import DialogueSettings, Settings
from wsavatar.dialogue.base import Dialogue
from wsavatar.dialogue.registry import DialogueError
from wsavatar.media.audio import AudioError, InputBuffer, Resampler, decode
from wsavatar.metrics import Metrics
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import ItemReference, ProtocolError, SessionConfig, new_id
from wsavatar.session.conversation import Conversation
from wsavatar.session.downlink import Downlink
from wsavatar.session.engine import AvatarInfo, Engine
from wsavatar.session.inbox import Inbox
from wsavatar.session.outbox import Outbox, OutboxOverflow
from wsavatar.session.response import CancelReason, SpokenResponse, Surroundings
from wsavatar.session.timeline import IdleClock

__all__ = ["Goodbye", "Session", "Socket", "initial_config"]

_log = logging.getLogger(__name__)

HEARING_RATE = 16_000
"""Samples per second of what a dialogue hears."""
_CLOSE_DIALOGUE_S = 5.0
_SHORTEST_COMMIT_S = 0.1
_RESAMPLER_SLACK_S = 0.05  # what a resampler may still hold of audio taken before


class Socket(Protocol):
    """What a session needs of a WebSocket connection."""

    async def recv(self) -> str | bytes: ...

    async def send(self, message: str | bytes) -> None: ...


@dataclass(frozen=True, slots=True)
class Goodbye:
    """How the socket is to be closed. ``code`` None: the client has closed it already."""

    code: int | None
    reason: str = ""


def initial_config(settings: Settings, avatar_id: str) -> SessionConfig:
    """What a session is before its client asks for anything."""
    dialogue = settings.dialogue
    detection = wire.TurnDetection(
        threshold=dialogue.vad_threshold,
        prefix_padding_ms=dialogue.vad_prefix_padding_ms,
        silence_duration_ms=dialogue.vad_silence_ms,
        create_response=dialogue.create_response,
        interrupt_response=dialogue.interrupt_response,
    )
    return SessionConfig(
        audio=wire.AudioConfig(
            input=wire.AudioInput(turn_detection=detection if dialogue.turn_detection else None),
            output=wire.AudioOutput(voice=dialogue.tts_voice),
        ),
        avatar=wire.AvatarConfig(
            id=avatar_id,
            mode=dialogue.mode,
            video=wire.VideoConfig(fps=settings.render.fps, quality=settings.render.jpeg_quality),
        ),
        default_turn_detection=detection,
        default_voice=dialogue.tts_voice,
    )


class Session:
    """A connection's `wsavatar.dialogue.base.Stage`. Call `run` once."""

    def __init__(
        self,
        socket: Socket,
        engine: Engine,
        settings: Settings,
        metrics: Metrics,
        *,
        avatar_id: str | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = new_id("sess")
        self._socket = socket
        self._engine = engine
        self._settings = settings
        self._metrics = metrics
        self._wanted_avatar = avatar_id
        self._clock = clock
        outbox = Outbox(socket.send, frame_bytes=settings.server.outbox_bytes)
        self._downlink = Downlink(outbox, metrics)
        self._conversation = Conversation()
        self._inbox = Inbox(int(settings.audio.max_buffer_s * HEARING_RATE))
        self._around = Surroundings(
            self._downlink,
            self._conversation,
            engine.face,
            settings.audio.chunk_ms,
            metrics,
            clock,
        )
        self._response: SpokenResponse | None = None  # the latest, over or not
        self._generation = 0
        self._next_item_id: str | None = None  # announced by speech_started, used by the commit
        self._config: SessionConfig
        self._avatar: AvatarInfo
        self._idle: IdleClock
        self._dialogue: Dialogue
        self._ear: Resampler
        self._buffer = InputBuffer(HEARING_RATE, settings.audio.max_buffer_s)

    @property
    def speaking(self) -> bool:
        """A response is in progress."""
        return self._response is not None and not self._response.over

    def depths(self) -> dict[str, int]:
        """What waits here, for the server's gauges."""
        outbox = self._downlink.outbox
        return {
            "outbox_frames": outbox.frame_count,
            "outbox_frame_bytes": outbox.frame_bytes,
            "outbox_message_bytes": outbox.message_bytes,
            "inbox_samples": self._inbox.samples,
        }

    # -- its life ---------------------------------------------------------------------------------

    async def run(self) -> Goodbye:
        """Hold the session until the client goes, stops reading or falls silent, or it fails."""
        goodbye = Goodbye(1011, "internal error")
        try:
            async with asyncio.TaskGroup() as tasks:
                workers = [
                    tasks.create_task(self._downlink.outbox.run(), name=f"{self.id} sender"),
                    tasks.create_task(self._downlink.overflowed(), name=f"{self.id} overflow"),
                ]
                try:
                    await self._begin()
                    workers.append(tasks.create_task(self._converse(), name=f"{self.id} dialogue"))
                    goodbye = await self._listen()
                except ProtocolError as error:  # from _begin: no such avatar or mode
                    self._downlink.error(error)
                    goodbye = Goodbye(1008, error.message)
                await self._flush()
                for worker in workers:
                    worker.cancel()
        except* ConnectionClosed:
            goodbye = Goodbye(None)
        except* OutboxOverflow as group:
            goodbye = Goodbye(1008, "the client does not read")
            _log.warning("%s: %s", self.id, group.exceptions[0])
        except* Exception:
            goodbye = Goodbye(1011, "internal error")
            _log.exception("%s: crashed", self.id)
        finally:
            await self._leave()
        return goodbye

    async def _begin(self) -> None:
        self._avatar = await self._load_avatar(self._wanted_avatar or await self._default_avatar())
        self._config = initial_config(self._settings, self._avatar.id)
        self._idle = self._idle_clock()
        self._ear = Resampler(self._config.audio.input.format.rate, HEARING_RATE)
        self._dialogue = self._make_dialogue(self._config)
        self._downlink.event(wire.SessionCreated.of(self._config, self.id))

    async def _listen(self) -> Goodbye:
        """Read and handle until nothing came for the idle timeout and nothing is being said."""
        while True:
            try:
                async with asyncio.timeout(self._settings.server.idle_timeout_s):
                    message = await self._socket.recv()
            except TimeoutError:
                if self.speaking:
                    continue
                seconds = f"{self._settings.server.idle_timeout_s:g}"
                return Goodbye(1000, f"idle: nothing was received for {seconds} s")
            await self._receive(message)

    async def _receive(self, message: str | bytes) -> None:
        event_id = None
        try:
            if isinstance(message, bytes):
                await self._hear(message)
            else:
                event = wire.parse_client_event(message)
                event_id = event.event_id
                await self._handle(event)
        except ProtocolError as error:
            error.event_id = error.event_id or event_id
            self._downlink.error(error)

    async def _converse(self) -> None:
        """Give the dialogue what happened, one thing at a time."""
        while True:
            job = await self._inbox.take()
            await job(self._dialogue)

    async def _flush(self) -> None:
        try:
            async with asyncio.timeout(1.0):
                await self._downlink.outbox.flushed()
        except TimeoutError:
            pass  # it is being closed; what a slow client did not take is lost to it

    async def _leave(self) -> None:
        if self._response is not None:
            self._response.abandon()
        if not hasattr(self, "_dialogue"):
            return
        try:
            async with asyncio.timeout(_CLOSE_DIALOGUE_S):
                await self._dialogue.close()
        except Exception:  # the session is over: nothing above could do more than log it
            _log.exception("%s: the dialogue did not close", self.id)

    # -- client events ----------------------------------------------------------------------------

    async def _handle(self, event: wire.ClientEvent) -> None:
        match event:
            case wire.SessionUpdate():
                await self._update(event)
            case wire.InputAudioBufferAppend():
                await self._hear(event.audio)
            case wire.InputAudioBufferCommit():
                await self._commit_for_client()
            case wire.InputAudioBufferClear():
                self._ear.reset()
                self._buffer.clear()
                self._downlink.event(wire.InputAudioBufferCleared())
            case wire.ConversationItemCreate():
                self._create_item(event)
            case wire.ConversationItemDelete():
                self._conversation.delete(event.item_id)
                self._downlink.event(wire.ConversationItemDeleted(item_id=event.item_id))
            case wire.ConversationItemRetrieve():
                item = self._conversation.retrieve(event.item_id)
                self._downlink.event(wire.ConversationItemRetrieved(item=item))
            case wire.ConversationItemTruncate():
                self._truncate(event)
            case wire.ResponseCreate():
                await self._create_response(event)
            case wire.ResponseCancel():
                self._cancel_for_client(event.response_id)
            case wire.AvatarSpeak():
                text = event.text
                await self._inbox.put(lambda dialogue: dialogue.speak(text))
            case wire.AvatarPlayback():
                if self._response is not None and self._response.id == event.response_id:
                    self._response.playback(
                        event.position_ms / 1000, event.frames_shown, event.frames_late
                    )
            case _:
                assert_never(event)

    async def _update(self, event: wire.SessionUpdate) -> None:
        """Everything that can fail comes first; then all of it is changed."""
        old, new = self._config, self._config.updated(event.session, event.event_id)
        if not new.avatar.id:  # "" asks for the default
            named = new.avatar.model_copy(update={"id": await self._default_avatar()})
            new = new.model_copy(update={"avatar": named})
        avatar = self._avatar
        if new.avatar.id != avatar.id:
            avatar = await self._load_avatar(new.avatar.id, param="session.avatar.id")
        dialogue = None
        if self._dialogue_settings(new) != self._dialogue_settings(old):
            dialogue = self._make_dialogue(new)
        self._config = new
        if avatar is not self._avatar:
            self._avatar = avatar
            self._idle = self._idle_clock()
        if new.audio.input.format != old.audio.input.format:
            self._ear = Resampler(new.audio.input.format.rate, HEARING_RATE)
        self._downlink.event(wire.SessionUpdated.of(new, self.id))
        if dialogue is not None:
            await self._inbox.put(lambda _: self._replace_dialogue(dialogue))

    async def _hear(self, data: bytes) -> None:
        """The client's audio, in its format: keep it, and let the dialogue hear it."""
        form = self._config.audio.input.format
        seconds = len(data) / (form.bytes_per_sample * form.rate)
        if self._must_commit:
            self._check_room(seconds)
        try:
            samples = decode(data, form.type)
        except AudioError as error:
            raise ProtocolError(error.code, str(error), param="audio") from error
        self._metrics.audio_in_s.inc(seconds)
        for start in range(0, len(samples), form.rate):  # a second at a time: others get a turn
            await self._take_in(self._ear.push(samples[start : start + form.rate]))
            await asyncio.sleep(0)

    async def _take_in(self, samples: np.ndarray) -> None:
        if not self._must_commit:
            self._buffer.keep_last(self._buffer.max_samples - len(samples))
        self._buffer.append(samples)
        if len(samples):
            await self._inbox.put(lambda dialogue: dialogue.heard(samples), samples=len(samples))

    def _check_room(self, seconds: float) -> None:
        """Refuse an append as a whole where it would not fit."""
        held_s = len(self._buffer) / HEARING_RATE
        limit_s = self._settings.audio.max_buffer_s
        if held_s + seconds > limit_s - _RESAMPLER_SLACK_S:
            raise ProtocolError(
                "buffer_full",
                f"The input buffer holds {held_s:.1f} s of at most {limit_s:g} s; this append was "
                "not taken. Commit or clear it first.",
                param="audio",
            )

    @property
    def _must_commit(self) -> bool:
        """The client alone ends a turn: all it appends is kept until then, or refused.

        Elsewhere nobody need ever commit, and the oldest audio goes.
        """
        detects = self._config.audio.input.turn_detection is not None
        return not detects and self._config.avatar.mode != "mirror"

    async def _commit_for_client(self) -> None:
        await self._take_in(self._ear.flush())  # what the resampler holds belongs to this turn
        held_s = len(self._buffer) / HEARING_RATE
        if held_s < _SHORTEST_COMMIT_S:
            raise ProtocolError(
                "input_audio_buffer_commit_empty",
                f"The buffer holds {held_s * 1000:.0f} ms of audio, at least "
                f"{_SHORTEST_COMMIT_S * 1000:.0f} ms are needed.",
            )
        samples = self._buffer.take()
        item_id = self._add_spoken_item()
        await self._inbox.put(
            lambda dialogue: dialogue.committed(item_id, samples), samples=len(samples)
        )

    def _create_item(self, event: wire.ConversationItemCreate) -> None:
        item, previous = self._conversation.create(event.item, event.previous_item_id)
        self._downlink.event(wire.ConversationItemAdded(previous_item_id=previous, item=item))
        self._downlink.event(wire.ConversationItemDone(previous_item_id=previous, item=item))

    def _truncate(self, event: wire.ConversationItemTruncate) -> None:
        self._conversation.truncate(event.item_id, event.content_index, event.audio_end_ms)
        if self._response is not None and self._response.item_id == event.item_id:
            self._response.truncated(event.audio_end_ms / 1000)
        self._downlink.event(
            wire.ConversationItemTruncated(
                item_id=event.item_id,
                content_index=event.content_index,
                audio_end_ms=event.audio_end_ms,
            )
        )

    async def _create_response(self, event: wire.ResponseCreate) -> None:
        if self.speaking:
            raise ProtocolError(
                "conversation_already_has_active_response",
                "A response is in progress: wait for its response.done, or cancel it.",
            )
        text = self._conversation.last_user_text()
        if event.response is not None and event.response.input is not None:
            said = [item for item in event.response.input if not isinstance(item, ItemReference)]
            text = "\n".join(item.text for item in said if item.text) or None
        await self._inbox.put(lambda dialogue: dialogue.create_response(text))

    def _cancel_for_client(self, response_id: str | None) -> None:
        current = self._response
        if current is None or current.over or response_id not in (None, current.id):
            raise ProtocolError(
                "response_cancel_not_active",
                "There is no such response in progress.",
                param=None if response_id is None else "response_id",
            )
        current.cancel("client_cancelled")

    # -- the stage that the dialogue speaks from --------------------------------------------------

    async def respond(self, item_id: str | None = None) -> SpokenResponse:
        """Begin a response, cancelling the one in progress."""
        self._cancel("turn_detected")
        self._generation = self._generation % 0xFFFF + 1
        self._response = SpokenResponse(
            self._around,
            generation=self._generation,
            avatar=self._avatar,
            idle=self._idle,
            config=self._config,
        )
        return self._response

    async def speech_started(self, audio_start_ms: int) -> None:
        self._next_item_id = new_id("item")
        self._downlink.event(
            wire.SpeechStarted(audio_start_ms=audio_start_ms, item_id=self._next_item_id)
        )

    async def speech_stopped(self, audio_end_ms: int) -> None:
        item_id = self._next_item_id or new_id("item")
        self._next_item_id = item_id
        self._downlink.event(wire.SpeechStopped(audio_end_ms=audio_end_ms, item_id=item_id))

    async def commit(self) -> str:
        """Make the input buffer a user item; returns its id."""
        self._buffer.clear()
        return self._add_spoken_item()

    async def cancel(self) -> None:
        """Interrupt the response in progress: the user speaks."""
        self._cancel("turn_detected")

    # -- helpers ----------------------------------------------------------------------------------

    def _cancel(self, reason: CancelReason) -> None:
        if self._response is not None:
            self._response.cancel(reason)

    def _add_spoken_item(self) -> str:
        item_id = self._next_item_id or new_id("item")
        self._next_item_id = None
        item = wire.user_item(item_id)
        previous = self._conversation.add(item)
        downlink = self._downlink
        downlink.event(wire.InputAudioBufferCommitted(previous_item_id=previous, item_id=item_id))
        downlink.event(wire.ConversationItemAdded(previous_item_id=previous, item=item))
        downlink.event(wire.ConversationItemDone(previous_item_id=previous, item=item))
        return item_id

    def _dialogue_settings(self, config: SessionConfig) -> DialogueSettings:
        """What the dialogue is told: the server's settings, with what the client asked for."""
        detection = config.audio.input.turn_detection or config.default_turn_detection
        return self._settings.dialogue.model_copy(
            update={
                "mode": config.avatar.mode,
                "turn_detection": config.audio.input.turn_detection is not None,
                "create_response": detection.create_response,
                "interrupt_response": detection.interrupt_response,
                "vad_threshold": detection.threshold,
                "vad_prefix_padding_ms": detection.prefix_padding_ms,
                "vad_silence_ms": detection.silence_duration_ms,
                "tts_voice": config.audio.output.voice,
            }
        )

    def _make_dialogue(self, config: SessionConfig) -> Dialogue:
        try:
            settings = self._dialogue_settings(config)
            return self._engine.create_dialogue(config.avatar.mode, self, settings)
        except DialogueError as error:
            raise ProtocolError(error.code, str(error), param="session.avatar.mode") from error

    async def _replace_dialogue(self, dialogue: Dialogue) -> None:
        old, self._dialogue = self._dialogue, dialogue
        await old.close()

    async def _default_avatar(self) -> str:
        try:
            return await asyncio.to_thread(lambda: self._engine.avatars.default_id)
        except AvatarError as error:
            raise ProtocolError("avatar_not_found", str(error), type="server_error") from error

    async def _load_avatar(self, avatar_id: str, param: str | None = None) -> AvatarInfo:
        try:
            return await asyncio.to_thread(self._engine.avatars.get, avatar_id)
        except AvatarError as error:
            raise ProtocolError("avatar_not_found", str(error), param=param) from error

    def _idle_clock(self) -> IdleClock:
        return IdleClock(self._avatar.frame_count, self._avatar.fps, self._clock())
