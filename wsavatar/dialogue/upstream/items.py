"""Which items of the conversation the upstream has, and how it gets the others.

A new connection gets them all. Later the upstream learns of those that it did not make: what a
client writes, and what the avatar said by the local voice.
"""

from __future__ import annotations

from collections.abc import Collection

from wsavatar.dialogue.base import DialogueSession
from wsavatar.dialogue.conversation import Entry

from .connection import Connection, Purpose
from .messages import item_of

__all__ = ["MAX_SENT_AUDIO_S", "Items"]

MAX_SENT_AUDIO_S = 120.0
"""Of what the user said and nobody transcribed, for a new connection: the newest."""
_MAX_KNOWN = 4096


class Items:
    """The upstream's conversation, as far as it has to be known."""

    def __init__(self, session: DialogueSession, connection: Connection) -> None:
        self._session = session
        self._connection = connection
        self.known: dict[str, None] = {}
        """Ids, the oldest first."""

    def add(self, item_id: str) -> None:
        """The upstream has made this item."""
        self.known[item_id] = None
        if len(self.known) > _MAX_KNOWN:
            del self.known[next(iter(self.known))]

    def restore(self) -> int:
        """A new connection: send the whole conversation, what was said as text where it is known.

        Returns how many items could not be sent.
        """
        self.known.clear()
        lost, audio_s = set[str](), 0.0
        for entry in reversed(list(self._session.conversation)):
            message = item_of(entry, as_text=True)
            if message is None or entry.audio is None or _is_text(message):
                continue
            audio_s += len(entry.audio.samples) / entry.audio.rate
            if audio_s > MAX_SENT_AUDIO_S:
                lost.add(entry.id)
        self._send("own", as_text=True, without=lost)
        return len(lost)

    def share(self, purpose: Purpose = "own", event_id: str | None = None) -> None:
        """Send the items that the upstream does not have."""
        self._send(purpose, event_id)

    def delete(self, item_id: str) -> None:
        """The item is gone here; the upstream forgets it too."""
        if item_id in self.known:
            del self.known[item_id]
            event = {"type": "conversation.item.delete", "item_id": item_id}
            self._connection.send(event, "own")

    def replace(self, item_id: str) -> None:
        """The item has less in it now than the upstream knows."""
        self.delete(item_id)
        self.share()

    def _send(
        self,
        purpose: Purpose,
        event_id: str | None = None,
        *,
        as_text: bool = False,
        without: Collection[str] = (),
    ) -> None:
        if not self._connection.is_open:
            return
        entries = list(self._session.conversation)
        last_known = max((i for i, one in enumerate(entries) if one.id in self.known), default=-1)
        before = "root"
        for index, entry in enumerate(entries):
            if entry.id not in self.known:
                if entry.id in without or not _is_complete(entry):
                    continue
                message = item_of(entry, as_text=as_text)
                if message is None:
                    continue
                event = {"type": "conversation.item.create", "item": message}
                if index < last_known:
                    event["previous_item_id"] = before
                self._connection.send(event, purpose, event_id)
                self.add(entry.id)
            before = entry.id


def _is_complete(entry: Entry) -> bool:
    return entry.item.status != "in_progress"


def _is_text(message: dict[str, object]) -> bool:
    content = message.get("content")
    assert isinstance(content, list)
    return all(part["type"] != "input_audio" for part in content)
