"""What a dialogue may see and do in its session: the responses, the user's items, the microphone.

A `wsavatar.dialogue.base.DialogueSession`. It holds the parts of a session that a dialogue needs
and passes calls on; it knows neither the session itself nor a connection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wsavatar.dialogue.base import SPEECH_RATE, ResponseRequest
from wsavatar.dialogue.conversation import Conversation, Recording
from wsavatar.protocol.events import ProtocolError
from wsavatar.session.downlink import Downlink
from wsavatar.session.microphone import Microphone
from wsavatar.session.played import PlayedAudio
from wsavatar.session.response import SpokenResponse
from wsavatar.session.responses import Responses
from wsavatar.session.transcription import Transcription
from wsavatar.session.user_items import UserItems

__all__ = ["DialogueAccess"]


class DialogueAccess:
    """Of one session. ``event_id``: set by it, of the client's event that is being handled."""

    def __init__(
        self,
        downlink: Downlink,
        conversation: Conversation,
        responses: Responses,
        microphone: Microphone,
        user_items: UserItems,
        transcription: Transcription,
    ) -> None:
        self._downlink = downlink
        self.conversation = conversation
        self._responses = responses
        self._microphone = microphone
        self._user_items = user_items
        self._transcription = transcription
        self.event_id: str | None = None

    # -- what the avatar says ---------------------------------------------------------------------

    @property
    def speaking(self) -> bool:
        return self._responses.speaking

    @property
    def playing_audio(self) -> Sequence[PlayedAudio]:
        return self._responses.playing_audio

    def respond(
        self,
        request: ResponseRequest | None = None,
        *,
        rate: int = SPEECH_RATE,
        response_id: str | None = None,
        stopped: Callable[[int], None] | None = None,
    ) -> SpokenResponse:
        return self._responses.begin(request, rate=rate, response_id=response_id, stopped=stopped)

    def interrupt(self) -> None:
        self._responses.stop("turn_detected")

    def error(self, error: ProtocolError) -> None:
        self._downlink.error(error)

    # -- what the user says -----------------------------------------------------------------------

    @property
    def heard_ms(self) -> int:
        return self._microphone.heard_ms

    @property
    def spoken_item_id(self) -> str | None:
        return self._user_items.next_id

    def speech_started(self, audio_start_ms: int, item_id: str | None = None) -> None:
        self._user_items.speech_started(audio_start_ms, item_id)

    def speech_stopped(self, audio_end_ms: int) -> None:
        self._user_items.speech_stopped(audio_end_ms)

    def commit(
        self, audio: Recording | None, item_id: str | None = None, *, by_client: bool = False
    ) -> str:
        if not by_client:
            self._microphone.committed()
        return self._user_items.add(audio, item_id)

    def transcript_delta(self, item_id: str, delta: str) -> None:
        self._transcription.delta(item_id, delta)

    def transcribed(self, item_id: str, text: str, seconds: float) -> None:
        self._transcription.completed(item_id, text, seconds)

    def transcription_failed(self, item_id: str, code: str, message: str) -> None:
        self._transcription.failed(item_id, code, message)
