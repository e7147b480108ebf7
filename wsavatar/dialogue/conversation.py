"""The items of a session's conversation, in order.

The dialogue reads and writes it, the client edits it with ``conversation.item.*``. An interrupted
or truncated item has the text that was heard. It knows neither sockets nor the origin of an item.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wsavatar.protocol.events import (
    AssistantMessage,
    InputAudioPart,
    Item,
    OutputAudioPart,
    OutputTextPart,
    ProtocolError,
    UserMessage,
    new_id,
)

__all__ = [
    "MAX_AUDIO_BYTES",
    "MAX_ITEMS",
    "MAX_ITEM_BYTES",
    "Conversation",
    "Entry",
    "Recording",
    "SpokenText",
]

MAX_ITEMS = 1000
"""Items that a session remembers. Full: the oldest is forgotten."""
MAX_ITEM_BYTES = 16 * 1024 * 1024
"""Texts and images, as JSON, that a session remembers. Full: the oldest item is forgotten."""
MAX_AUDIO_BYTES = 32 * 1024 * 1024
"""Audio of user items that a session remembers. Full: the oldest items lose theirs."""
_TRUNCATE_SLACK_MS = 100
"""Clients count playback in blocks: a position this far beyond the end is the end."""


@dataclass(frozen=True, slots=True)
class Recording:
    """Audio of a user: float32 mono in [-1, 1] at ``rate`` samples per second."""

    samples: NDArray[np.float32]
    rate: int


class SpokenText(Protocol):
    """The avatar's speech of an item (`wsavatar.session.transcript`)."""

    @property
    def text(self) -> str:
        """Everything that was said so far, heard or not."""

    @property
    def sent_s(self) -> float:
        """Seconds of audio sent so far."""

    def until(self, position_s: float) -> str:
        """The text that is heard up to a position of the item's audio."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An item, with data that its JSON does not have."""

    item: Item
    audio: Recording | None = None
    """The user's audio."""
    spoken: SpokenText | None = None
    """What the avatar says or writes."""
    in_text: bool = False
    """The avatar writes: there is no sound of it."""
    heard_ms: int | None = None
    """Position at which the client stopped playing; None: not truncated."""

    @property
    def id(self) -> str:
        return self.item.id

    @property
    def is_users(self) -> bool:
        return isinstance(self.item, UserMessage)

    def now(self) -> Item:
        """The item as it stands: of one that is being said, the text so far."""
        if self.spoken is None or self.item.status != "in_progress":
            return self.item
        text = self.spoken.text
        part = OutputTextPart(text=text) if self.in_text else OutputAudioPart(transcript=text)
        return AssistantMessage(id=self.id, status="in_progress", content=(part,))


class Conversation:
    """The items of one session. Iteration is in order."""

    def __init__(self) -> None:
        self.id = new_id("conv")
        self._entries: dict[str, Entry] = {}
        self._sizes: dict[str, int] = {}

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._entries

    def holds(self, entry: Entry) -> bool:
        """Whether this item, as it is now, is still here: the client may delete it."""
        now = self._entries.get(entry.id)
        if now is None:
            return False
        return now is entry or (entry.spoken is not None and now.spoken is entry.spoken)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(tuple(self._entries.values()))

    @property
    def last_id(self) -> str | None:
        return next(reversed(self._entries), None)

    def last_user_entry(self) -> Entry | None:
        """The newest message of the user."""
        newest_first = reversed(self._entries.values())
        return next((entry for entry in newest_first if entry.is_users), None)

    def add(self, entry: Entry) -> str | None:
        """Append an item; returns the id of the one before it."""
        return self.insert(entry, None)

    def insert(self, entry: Entry, previous_id: str | None) -> str | None:
        """Insert an item after another; returns the id of the one before it.

        ``previous_id`` None appends, ``root`` puts it first. Raises ProtocolError.
        """
        if entry.id in self._entries:
            raise ProtocolError(
                "item_create_duplicate_item_id",
                f"Error adding item: an item with id {entry.id[:100]!r} already exists.",
                param="item.id",
            )
        later: list[Entry] = []
        if previous_id is not None:
            if previous_id != "root":
                self.get(previous_id, param="previous_item_id")
            ids = list(self._entries)
            place = 0 if previous_id == "root" else ids.index(previous_id) + 1
            later = [self._entries.pop(one) for one in ids[place:]]
        before = self.last_id
        self._entries[entry.id] = entry
        self._entries |= {one.id: one for one in later}
        self._sizes[entry.id] = len(entry.item.model_dump_json())
        self._forget_oldest(entry.id)
        return before

    def update(self, item: Item) -> tuple[Item, str | None]:
        """Replace an item; returns it as stored, and the id of the item before it.

        An item that the client truncated stays truncated.
        """
        entry = self._entries[item.id]
        if entry.heard_ms is not None:
            item = _cut(item, entry)
        self._entries[item.id] = replace(entry, item=item)
        self._sizes[item.id] = len(item.model_dump_json())
        ids = list(self._entries)
        place = ids.index(item.id)
        return item, ids[place - 1] if place else None

    def audio_index(self, item_id: str) -> int | None:
        """Which content part of a user's item is what the user said; None: it has none."""
        entry = self._entries.get(item_id)
        if entry is None or not isinstance(entry.item, UserMessage):
            return None
        kinds = [type(part) for part in entry.item.content]
        return kinds.index(InputAudioPart) if InputAudioPart in kinds else None

    def set_transcript(self, item_id: str, text: str) -> int | None:
        """Keep what the user said in an item, as text; returns its `audio_index`."""
        index = self.audio_index(item_id)
        if index is None:
            return None
        entry = self._entries[item_id]
        assert isinstance(entry.item, UserMessage)
        content = list(entry.item.content)
        content[index] = content[index].model_copy(update={"transcript": text})
        item = entry.item.model_copy(update={"content": tuple(content)})
        self._entries[item_id] = replace(entry, item=item)
        self._sizes[item_id] = len(item.model_dump_json())
        return index

    def get(self, item_id: str, *, code: str = "item_not_found", param: str = "item_id") -> Entry:
        """The item of this id. Raises ProtocolError with this code if there is none."""
        entry = self._entries.get(item_id)
        if entry is None:
            raise ProtocolError(
                code, f"The item with id {item_id[:100]!r} does not exist.", param=param
            )
        return entry

    def delete(self, item_id: str) -> None:
        """Remove an item. Raises ProtocolError if there is none."""
        self.get(item_id, code="item_delete_invalid_item_id")
        self._remove(item_id)

    def truncate(self, item_id: str, content_index: int, audio_end_ms: int) -> int:
        """Cut an item of the avatar at the client's playback position.

        Returns the end of the item, never later than before. Raises ProtocolError.
        """
        entry = self.get(item_id, code="item_truncate_invalid_item_id")
        if entry.spoken is None or entry.in_text:
            raise ProtocolError(
                "invalid_value", "Only what the avatar said can be truncated.", param="item_id"
            )
        if content_index != 0:
            raise ProtocolError(
                "invalid_value", "The item has one content part, 0.", param="content_index"
            )
        sent_ms = round(1000 * entry.spoken.sent_s)
        if audio_end_ms > sent_ms + _TRUNCATE_SLACK_MS:
            raise ProtocolError(
                "invalid_value",
                f"The item's audio has {sent_ms} ms so far, not {audio_end_ms}.",
                param="audio_end_ms",
            )
        ends = [audio_end_ms, sent_ms]
        if entry.heard_ms is not None:
            ends.append(entry.heard_ms)
        entry = replace(entry, heard_ms=min(ends))
        self._entries[item_id] = replace(entry, item=_cut(entry.item, entry))
        return min(ends)

    def _remove(self, item_id: str) -> None:
        del self._entries[item_id], self._sizes[item_id]

    def _forget_oldest(self, newest_id: str) -> None:
        """Keep within the bounds. What was just added stays, wherever it stands."""
        while len(self._entries) > MAX_ITEMS or (
            len(self._entries) > 1 and sum(self._sizes.values()) > MAX_ITEM_BYTES
        ):
            self._remove(next(one for one in self._entries if one != newest_id))
        audio_bytes = 0
        for entry in reversed(list(self._entries.values())):
            if entry.audio is None:
                continue
            audio_bytes += entry.audio.samples.nbytes
            if audio_bytes > MAX_AUDIO_BYTES and entry.id != newest_id:
                self._entries[entry.id] = replace(entry, audio=None)


def _cut(item: Item, entry: Entry) -> AssistantMessage:
    """What the avatar says, with the text that was heard."""
    assert entry.spoken is not None and entry.heard_ms is not None
    text = entry.spoken.until(entry.heard_ms / 1000)
    return AssistantMessage(
        id=item.id, status="incomplete", content=(OutputAudioPart(transcript=text),)
    )
