"""What the user said, as text: kept with the user's items, and sent to a client that wants it.

An item's text comes while it is spoken, before the item joins the conversation. A client that knows
only the Realtime API gets it when the item is committed, since it does not know the item before.
This module does not know who transcribes.
"""

from __future__ import annotations

from wsavatar.dialogue.conversation import Conversation
from wsavatar.protocol import events as wire
from wsavatar.session.downlink import Downlink

__all__ = ["MAX_TRANSCRIPT_CHARS", "Transcription"]

MAX_TRANSCRIPT_CHARS = 100_000
"""Of one item."""


class Transcription:
    """The transcripts of one session's user items."""

    def __init__(self, downlink: Downlink, conversation: Conversation) -> None:
        self._downlink = downlink
        self._conversation = conversation
        self.wanted = False
        """The client asked for transcripts."""
        self.at_once = False
        """The client takes text of an item that is not committed yet."""
        self._held_id = ""  # the item that is spoken, and its text that was not sent
        self._held = ""

    def delta(self, item_id: str, delta: str) -> None:
        """More of what is said in an item."""
        if not self.wanted or not delta:
            return
        index = self._conversation.audio_index(item_id)
        if index is not None or self.at_once:
            self._send(item_id, index or 0, delta)
            return
        if item_id != self._held_id:  # the one before was never committed
            self._held_id, self._held = item_id, ""
        self._held = (self._held + delta)[:MAX_TRANSCRIPT_CHARS]

    def committed(self, item_id: str) -> None:
        """An item joined the conversation: send what was held back of it."""
        held_id, held = self._held_id, self._held
        self._held_id = self._held = ""
        if held and held_id == item_id:
            self._send(item_id, 0, held)

    def completed(self, item_id: str, text: str, seconds: float) -> None:
        """All that was said in an item. Nothing happens if the client has deleted it."""
        text = text[:MAX_TRANSCRIPT_CHARS]
        index = self._conversation.set_transcript(item_id, text)
        if index is None or not self.wanted:
            return
        self._downlink.event(
            wire.TranscriptionCompleted(
                item_id=item_id,
                content_index=index,
                transcript=text,
                usage=wire.TranscriptionUsage(seconds=round(seconds, 3)),
            )
        )

    def failed(self, item_id: str, code: str, message: str) -> None:
        """What was said in an item is not known."""
        index = self._conversation.audio_index(item_id)
        if index is None or not self.wanted:
            return
        error = wire.TranscriptionError(code=code, message=message)
        self._downlink.event(
            wire.TranscriptionFailed(item_id=item_id, content_index=index, error=error)
        )

    def _send(self, item_id: str, index: int, delta: str) -> None:
        self._downlink.event(
            wire.TranscriptionDelta(item_id=item_id, content_index=index, delta=delta)
        )
