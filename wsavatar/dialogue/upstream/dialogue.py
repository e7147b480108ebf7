"""Mode upstream: another server converses, this one gives it the face.

The upstream is any server on the OpenAI Realtime protocol. It gets the user's audio and every
change that the client makes, detects turns, answers and calls functions; its ids are kept. What it
says goes through with the same samples. Texts of `avatar.speak` are said by the voice of this
server, since no upstream promises to say a text as it is; the upstream learns what was heard.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import deque
from collections.abc import Callable

from wsavatar.dialogue.base import (
    Dialogue,
    DialogueConfig,
    DialogueSession,
    ResponseRequest,
    Samples,
)
from wsavatar.dialogue.conversation import Entry, Recording
from wsavatar.dialogue.engines import Engines
from wsavatar.dialogue.speaker import Speaker
from wsavatar.dialogue.trace import TurnTrace
from wsavatar.dialogue.tts import Voice, VoiceError
from wsavatar.protocol.events import ProtocolError

from .answers import Answers
from .connection import Connection, Purpose, Sent
from .errors import UpstreamError
from .items import Items
from .messages import Json, Nonsense, changed, number, problem_of, section, session_of, text
from .user_audio import UserAudio

__all__ = ["Upstream"]

_log = logging.getLogger(__name__)

_EXPIRED = "session_expired"
"""OpenAI's, after an hour."""
_MARGIN_MS = 1000
"""Of what the user said just before a connection was lost: a turn may have begun in it."""


class Upstream(Dialogue):
    """Mode upstream."""

    def __init__(
        self,
        session: DialogueSession,
        config: DialogueConfig,
        engines: Engines,
        *,
        delay: Callable[[int], float] | None = None,
    ) -> None:
        self._session = session
        self._config = config
        self._engines = engines
        self._settings = engines.settings.upstream
        self._connection = Connection(self._settings, self, delay=delay)
        self._items = Items(session, self._connection)
        self._answers = Answers(
            session, config, self._connection, self._items, self._settings.timeout_s
        )
        self._audio = UserAudio(config.input_rate)
        self._base_ms = 0  # where the upstream's audio begins on the session's timeline
        self._turn: tuple[int, int | None] | None = None  # start and end, as the upstream counts
        self._commits: deque[Recording] = deque()  # of the client, not confirmed yet
        self._updating: asyncio.Future[None] | None = None
        self._speaker: Speaker | None = None
        self._told = False  # the client knows that the upstream is gone
        self._handlers: dict[str, Callable[[Json], None]] = {
            "session.updated": self._updated,
            "error": self._error,
            "input_audio_buffer.speech_started": self._speech_started,
            "input_audio_buffer.speech_stopped": self._speech_stopped,
            "input_audio_buffer.committed": self._committed,
            "conversation.item.input_audio_transcription.delta": self._transcript_delta,
            "conversation.item.input_audio_transcription.completed": self._transcribed,
            "conversation.item.input_audio_transcription.failed": self._not_transcribed,
            "response.created": self._answers.created,
            "response.output_item.added": self._answers.item_added,
            "response.output_audio.delta": self._answers.audio,
            "response.output_audio_transcript.delta": self._answers.words,
            "response.output_audio_transcript.done": self._answers.all_words,
            "response.output_text.delta": self._answers.words,
            "response.output_text.done": self._answers.all_words,
            "response.function_call_arguments.delta": self._answers.arguments,
            "response.function_call_arguments.done": self._answers.arguments,
            "response.done": self._answers.done,
        }

    # -- what the client does ---------------------------------------------------------------------

    async def start(self) -> None:
        self._told = True  # by what is raised here
        try:
            await self._connection.start()
        except UpstreamError as error:
            raise error.to_protocol() from error

    async def heard(self, samples: Samples) -> None:
        self._append(self._audio.push(samples))
        await self._connection.room()

    async def cleared(self) -> None:
        self._audio.clear()
        self._turn = None
        self._connection.send({"type": "input_audio_buffer.clear"}, "own")

    async def commit(self, audio: Recording) -> bool:
        if not self._connection.is_open:
            self._audio.clear()
            return False  # a later connection gets the item
        self._append(self._audio.flush())
        self._audio.clear()
        self._commits.append(audio)
        self._send_for_client({"type": "input_audio_buffer.commit"}, "commit")
        return True

    async def item_created(self, entry: Entry, previous_id: str | None) -> None:
        self._items.share("item", self._session.event_id)

    async def item_deleted(self, item_id: str) -> None:
        self._items.delete(item_id)

    async def item_truncated(self, item_id: str, heard_ms: int) -> None:
        self._answers.truncated(item_id, heard_ms)

    async def create_response(self, request: ResponseRequest) -> None:
        self._items.share()
        self._answers.ask(request, self._session.event_id)

    async def cancelled(self) -> bool:
        return self._answers.revoke()

    async def speak(self, text: str) -> None:
        try:
            if self._speaker is None:
                self._speaker = Speaker(self._session, self._local_voice, self._config)
            await self._speaker.say((text,))
        except VoiceError as error:
            response = self._session.respond()
            await response.fail("tts_failed", str(error))

    async def configure(self, config: DialogueConfig) -> None:
        old = session_of(self._config, self._settings)
        new = changed(old, session_of(config, self._settings))
        if new and self._connection.is_ready:
            await self._configure_upstream({"type": "realtime", **new})
        self._config = config
        self._answers.configure(config)
        self._append(self._audio.change_rate(config.input_rate))
        if self._speaker is not None:
            self._speaker.configure(config)

    async def close(self) -> None:
        await self._answers.close()
        if self._speaker is not None:
            await self._speaker.stop()
        await self._connection.close()

    # -- the connection ---------------------------------------------------------------------------

    def opened(self) -> None:
        """The configuration, the conversation, and what the user has begun to say."""
        session = session_of(self._config, self._settings)
        self._connection.send({"type": "session.update", "session": session}, "setup")
        if lost := self._items.restore():
            self._session.error(
                ProtocolError(
                    "upstream_forgot",
                    f"The upstream begins anew, without {lost} items of the user's speech that "
                    "nobody has transcribed.",
                    type="server_error",
                )
            )
        keep_from_ms = 0
        if self._config.settings.turn_detection:
            keep_from_ms = self._turn[0] if self._turn else self._audio.position_ms - _MARGIN_MS
        kept = self._audio.restart(keep_from_ms)
        self._turn = None
        self._base_ms = self._session.heard_ms - self._audio.position_ms
        self._append(kept)

    def received(self, event: Json) -> None:
        handle = self._handlers.get(event["type"])
        if handle is None:
            _log.debug("the upstream sent %.100s", event["type"])
            return
        try:
            handle(event)
        except Nonsense as error:
            _log.warning("the upstream sent %.100s without a usable %s", event["type"], error)

    def lost(self, error: UpstreamError, *, was_ready: bool) -> None:
        if not was_ready and not self._told:  # it cannot be made again at once
            self._told = True
            self._session.error(error.to_protocol())
        self._answers.lost(str(error))
        commits, self._commits = self._commits, deque()
        for audio in commits:
            self._session.commit(audio, by_client=True)
        if self._updating is not None and not self._updating.done():
            self._updating.set_exception(error.to_protocol())

    def _append(self, pcm: bytes) -> None:
        if pcm:
            audio = base64.b64encode(pcm).decode("ascii")
            self._connection.send({"type": "input_audio_buffer.append", "audio": audio})

    async def _configure_upstream(self, session: Json) -> None:
        """Raises ProtocolError if the upstream refuses, or does not answer."""
        self._updating = asyncio.get_running_loop().create_future()
        event: Json = {"type": "session.update", "session": session}
        self._connection.send(event, "configure", self._session.event_id)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._updating
        except TimeoutError:
            raise ProtocolError(
                "upstream_timeout",
                f"The upstream did not take this in {self._settings.timeout_s:g} s.",
                type="server_error",
            ) from None
        finally:
            self._updating = None

    # -- what the upstream says -------------------------------------------------------------------

    def _updated(self, event: Json) -> None:
        if not self._connection.is_ready:
            self._connection.ready()
            self._told = False
        elif self._updating is not None and not self._updating.done():
            self._updating.set_result(None)

    def _error(self, event: Json) -> None:
        error = section(event, "error")
        sent = self._connection.sent(error.get("event_id"))
        problem = problem_of(error, sent.event_id if sent is not None else None)
        problem.message = self._connection.without_secrets(problem.message)
        _log.info("the upstream refuses %s: %s", sent.purpose if sent else "?", problem.code)
        self._refused(sent, problem)

    def _refused(self, sent: Sent | None, problem: ProtocolError) -> None:
        if problem.code == _EXPIRED:
            return  # the connection ends, and is made again
        if sent is None and not self._connection.is_ready:
            self._connection.last_words = UpstreamError("upstream_failed", problem.message)
            return
        match sent.purpose if sent is not None else None:
            case "own":
                return  # it was too late, as a cancel is of a response that has just ended
            case "setup":
                if not self._connection.ready(UpstreamError("upstream_failed", problem.message)):
                    self._session.error(problem)
                return
            case "respond":
                self._answers.refused()
            case "commit" if self._commits:
                self._commits.popleft()
        waiting = self._updating
        configuring = sent is None or sent.purpose == "configure"
        if configuring and waiting is not None and not waiting.done():
            waiting.set_exception(problem)
        else:
            self._session.error(problem)

    def _speech_started(self, event: Json) -> None:
        start_ms = number(event, "audio_start_ms")
        self._turn = (start_ms, None)
        self._session.speech_started(self._base_ms + start_ms, text(event, "item_id"))
        if self._config.settings.interrupt_response:
            self._session.interrupt()
        self._items.share()  # what the local voice has said since

    def _speech_stopped(self, event: Json) -> None:
        end_ms = number(event, "audio_end_ms")
        start_ms = self._turn[0] if self._turn is not None else end_ms
        self._turn = (start_ms, end_ms)
        self._session.speech_stopped(self._base_ms + end_ms)
        self._answers.trace = trace = TurnTrace()
        if not self._config.semantic:
            silent_ms = self._audio.position_ms - end_ms + self._config.settings.vad_silence_ms
            trace.mark("speech_end", ago_s=max(0, silent_ms) / 1000)
        trace.mark("turn_end")

    def _committed(self, event: Json) -> None:
        item_id = text(event, "item_id")
        self._items.add(item_id)
        if self._commits:
            self._session.commit(self._commits.popleft(), item_id, by_client=True)
            return
        turn, self._turn = self._turn, None
        audio = None
        if turn is not None:
            end_ms = turn[1] if turn[1] is not None else self._audio.position_ms
            audio = self._audio.cut(turn[0], end_ms)
        self._session.commit(audio, item_id)

    def _transcript_delta(self, event: Json) -> None:
        if delta := text(event, "delta", ""):
            self._session.transcript_delta(text(event, "item_id"), delta)

    def _transcribed(self, event: Json) -> None:
        item_id = text(event, "item_id")
        if item_id in self._session.conversation:
            audio = self._session.conversation.get(item_id).audio
            seconds = len(audio.samples) / audio.rate if audio is not None else 0.0
            self._session.transcribed(item_id, text(event, "transcript"), seconds)

    def _not_transcribed(self, event: Json) -> None:
        problem = problem_of(section(event, "error"))
        message = self._connection.without_secrets(problem.message)
        self._session.transcription_failed(text(event, "item_id"), problem.code, message)

    def _send_for_client(self, event: Json, purpose: Purpose) -> None:
        self._connection.send(event, purpose, self._session.event_id)

    def _local_voice(self, name: str) -> Voice:
        """This server's: a client chooses the upstream's."""
        return self._engines.voice()
