"""The items of what the user says: announced as speech starts, added at the end of a turn."""

from __future__ import annotations

from wsavatar.dialogue.conversation import Conversation, Entry, Recording
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import new_id
from wsavatar.session.downlink import Downlink
from wsavatar.session.transcription import Transcription

__all__ = ["UserItems"]


class UserItems:
    """Of one session."""

    def __init__(
        self, downlink: Downlink, conversation: Conversation, transcription: Transcription
    ) -> None:
        self._downlink = downlink
        self._conversation = conversation
        self._transcription = transcription
        self.next_id: str | None = None
        """The id that was announced, of the item that is added next."""

    def speech_started(self, audio_start_ms: int, item_id: str | None) -> None:
        self.next_id = item_id or new_id("item")
        self._downlink.event(
            wire.SpeechStarted(audio_start_ms=audio_start_ms, item_id=self.next_id)
        )

    def speech_stopped(self, audio_end_ms: int) -> None:
        self.next_id = self.next_id or new_id("item")
        self._downlink.event(wire.SpeechStopped(audio_end_ms=audio_end_ms, item_id=self.next_id))

    def add(self, audio: Recording | None, item_id: str | None = None) -> str:
        """Add the item of a turn; returns its id, which is ``item_id``, or the announced one."""
        item_id, self.next_id = item_id or self.next_id, None
        if item_id is None or item_id in self._conversation:  # the client may have used it
            item_id = new_id("item")
        item = wire.user_item(item_id)
        previous = self._conversation.add(Entry(item, audio))
        events: list[wire.ServerEvent] = [
            wire.InputAudioBufferCommitted(previous_item_id=previous, item_id=item_id),
            wire.ConversationItemAdded(previous_item_id=previous, item=item),
            wire.ConversationItemDone(previous_item_id=previous, item=item),
        ]
        for event in events:
            self._downlink.event(event)
        self._transcription.committed(item_id)
        return item_id
