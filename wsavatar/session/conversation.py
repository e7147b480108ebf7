"""A session's items: what was said and written, in order, by id.

Pure bookkeeping of the wire's ``conversation.item.*``: no audio is kept, only its length. It knows
neither sockets nor dialogues.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from wsavatar.protocol.events import (
    AssistantMessage,
    Item,
    OutputAudioPart,
    ProtocolError,
    UserMessage,
)

__all__ = ["MAX_ITEMS", "Conversation"]

MAX_ITEMS = 1000
"""Items a session remembers. Full: the oldest is forgotten."""


@dataclass(frozen=True, slots=True)
class _Entry:
    item: Item
    audio_ms: int | None = None  # of what the avatar said


class Conversation:
    """The items of one session."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def last_id(self) -> str | None:
        return next(reversed(self._entries), None)

    def add(self, item: Item, *, audio_ms: int | None = None) -> str | None:
        """Append an item, or renew one that is there. Returns the id of the one before it."""
        ids = list(self._entries)
        if (known := item.id) in self._entries:
            place = ids.index(known)
            self._entries[known] = _Entry(item, audio_ms)
            return ids[place - 1] if place else None
        if len(ids) >= MAX_ITEMS:
            del self._entries[ids[0]]
        self._entries[known] = _Entry(item, audio_ms)
        return ids[-1] if ids else None

    def create(self, item: Item, previous_id: str | None) -> tuple[Item, str | None]:
        """Insert what a client made; returns the item as kept, and the id before it.

        ``previous_id`` None appends; ``root`` puts it first. Raises ProtocolError.
        """
        item_id = item.id
        if item_id in self._entries:
            raise ProtocolError(
                "item_already_exists", f"There is an item {item_id!r} already.", param="item.id"
            )
        if previous_id not in (None, "root"):
            self._find(previous_id, "previous_item_id")
        kept = item.model_copy(update={"status": "completed"})
        ids = list(self._entries)
        place = len(ids) if previous_id is None else 0
        if previous_id not in (None, "root"):
            place = ids.index(previous_id) + 1
        before = ids[place - 1] if place else None
        self.add(kept)
        for later in ids[place:]:
            if later in self._entries:
                self._entries[later] = self._entries.pop(later)
        return kept, before

    def retrieve(self, item_id: str) -> Item:
        """The item. Raises ProtocolError where there is none."""
        return self._find(item_id, "item_id").item

    def delete(self, item_id: str) -> None:
        """Forget an item. Raises ProtocolError where there is none."""
        self._find(item_id, "item_id")
        del self._entries[item_id]

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> None:
        """The client played only so much of what the avatar said. Raises ProtocolError."""
        entry = self._find(item_id, "item_id")
        if entry.audio_ms is None:
            raise ProtocolError(
                "invalid_value", "Only what the avatar said can be truncated.", param="item_id"
            )
        if content_index != 0:
            raise ProtocolError(
                "invalid_value", "The item has one content part, 0.", param="content_index"
            )
        if audio_end_ms > entry.audio_ms:
            raise ProtocolError(
                "invalid_value",
                f"The item's audio has {entry.audio_ms} ms, not {audio_end_ms}.",
                param="audio_end_ms",
            )
        # Which words were heard is not known: a transcript that says more would be a lie.
        item = AssistantMessage(
            id=item_id, status="incomplete", content=(OutputAudioPart(transcript=""),)
        )
        self._entries[item_id] = replace(entry, item=item, audio_ms=audio_end_ms)

    def last_user_text(self) -> str | None:
        """What the last user item says in writing; None where it was spoken, or there is none."""
        for entry in reversed(self._entries.values()):
            if isinstance(entry.item, UserMessage):
                return entry.item.text or None
        return None

    def _find(self, item_id: str | None, param: str) -> _Entry:
        entry = self._entries.get(item_id or "")
        if entry is None:
            raise ProtocolError("item_not_found", f"There is no item {item_id!r}.", param=param)
        return entry
