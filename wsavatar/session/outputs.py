"""The items of one response, in order: what the avatar says or writes, and calls of functions.

Sends their events and keeps the items in the conversation. An item begins with its first content,
so that a response may have calls alone, or nothing. Knows neither audio nor frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from wsavatar.dialogue.base import Word
from wsavatar.dialogue.conversation import Conversation, Entry
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import ItemStatus, new_id
from wsavatar.session.downlink import Downlink
from wsavatar.session.response_format import ResponseFormat
from wsavatar.session.transcript import Transcript

__all__ = ["MAX_ARGUMENTS_CHARS", "Outputs"]

MAX_ARGUMENTS_CHARS = 200_000
"""Of all calls of a response together; what a model writes beyond it is dropped."""


@dataclass(slots=True)
class _Output:
    """An item, while it is written and then as it ended."""

    entry: Entry
    index: int
    item: wire.Item | None = None
    """None: not ended yet."""


class Outputs:
    """The items of one response. Its message ends with the response, a call with the next one."""

    def __init__(
        self,
        downlink: Downlink,
        conversation: Conversation,
        response_id: str,
        form: ResponseFormat,
        transcript: Transcript,
    ) -> None:
        self.message_id = new_id("item")
        self._next_id: str | None = None
        self._downlink = downlink
        self._conversation = conversation
        self.response_id = response_id
        self._form = form
        self._transcript = transcript
        self._in_text = form.in_text
        self._outputs: list[_Output] = []  # by output_index
        self._message: _Output | None = None
        self._call: _Output | None = None
        self._arguments: list[str] = []  # of the call, so far
        self._argument_chars = 0  # of all calls
        self._sent_words = False

    @property
    def has_message(self) -> bool:
        """Whether anything was said or written."""
        return self._message is not None

    @property
    def is_kept(self) -> bool:
        """Whether the message is an item of the conversation."""
        return self._message is not None and self._conversation.holds(self._message.entry)

    @property
    def message_index(self) -> int:
        return 0 if self._message is None else self._message.index

    @property
    def part_ids(self) -> dict[str, Any]:
        """The fields of every event about the message's one part."""
        return {
            "response_id": self.response_id,
            "item_id": self.message_id,
            "output_index": self.message_index,
        }

    def next_item(self, item_id: str) -> None:
        """The item that begins next has this id, unless another one has it."""
        if item_id not in self._conversation:
            self._next_id = item_id

    def begin_message(self) -> None:
        """Announce the message, unless it has begun."""
        if self._message is not None:
            return
        self.message_id = self._take_next_id() or self.message_id
        item = wire.assistant_item(self.message_id, status="in_progress")
        entry = Entry(item, spoken=self._transcript, in_text=self._in_text)
        self._message = self._begin(entry)
        self._downlink.event(wire.ContentPartAdded(part=self._part(""), **self.part_ids))

    def text(self, delta: str) -> None:
        """Add to what is said or written."""
        kept = self._transcript.add(delta)
        if not kept:
            return
        self.begin_message()
        kind = wire.OutputTextDelta if self._in_text else wire.OutputTranscriptDelta
        self._downlink.event(kind(delta=kept, **self.part_ids))

    def words(self, words: Sequence[Word]) -> None:
        """When words of the audio are heard; sent to a client that knows avatars."""
        self._transcript.timed(words)
        if not self._form.for_avatars:
            return
        for word in words:
            self.begin_message()
            self._sent_words = True
            self._downlink.event(
                wire.AudioTimestampDelta(
                    audio_offset_ms=round(1000 * word.start_s),
                    audio_duration_ms=round(1000 * word.duration_s),
                    text=word.text,
                    estimated=word.estimated,
                    **self.part_ids,
                )
            )

    def end_part(self) -> None:
        """Nothing more is said or written."""
        if not self.has_message:
            return
        downlink, ids, text = self._downlink, self.part_ids, self._transcript.text
        if self._in_text:
            downlink.event(wire.OutputTextDone(text=text, **ids))
        else:
            downlink.event(wire.OutputAudioDone(**ids))
            downlink.event(wire.OutputTranscriptDone(transcript=text, **ids))
            if self._sent_words:
                downlink.event(wire.AudioTimestampDone(**ids))
        downlink.event(wire.ContentPartDone(part=self._part(text), **ids))

    def arguments(self, call_id: str, name: str, delta: str) -> None:
        """Add to the arguments of a call; another ``call_id`` begins the next one."""
        if self._call is None or _written(self._call).call_id != call_id:
            self.end_call("completed")
            item = wire.FunctionCall(
                id=self._take_next_id() or new_id("item"),
                status="in_progress",
                call_id=call_id,
                name=name,
                arguments="",
            )
            self._call, self._arguments = self._begin(Entry(item)), []
        delta = delta[: MAX_ARGUMENTS_CHARS - self._argument_chars]
        if delta:
            self._argument_chars += len(delta)
            self._arguments.append(delta)
            ids = self._call_ids(self._call)
            self._downlink.event(wire.FunctionCallArgumentsDelta(delta=delta, **ids))

    def end_call(self, status: ItemStatus) -> None:
        """End the call that is being written, if any."""
        call, self._call = self._call, None
        if call is None:
            return
        written = {"status": status, "arguments": "".join(self._arguments)}
        item = _written(call).model_copy(update=written)
        ids = self._call_ids(call)
        self._downlink.event(
            wire.FunctionCallArgumentsDone(name=item.name, arguments=item.arguments, **ids)
        )
        self._end(call, item)

    def end(self, status: Literal["completed", "incomplete"], text: str) -> tuple[wire.Item, ...]:
        """End all items; returns them. ``text``: what the message has in it."""
        self.end_call(status)
        if self._message is not None:
            content = {"text" if self._in_text else "transcript": text}
            item = wire.assistant_item(self.message_id, status=status, **content)
            self._end(self._message, item)
        return tuple(output.item for output in self._outputs if output.item is not None)

    def _take_next_id(self) -> str | None:
        next_id, self._next_id = self._next_id, None
        return next_id

    def _part(self, text: str) -> wire.AudioContent | wire.TextContent:
        return wire.TextContent(text=text) if self._in_text else wire.AudioContent(transcript=text)

    def _call_ids(self, call: _Output) -> dict[str, Any]:
        return {
            "response_id": self.response_id,
            "item_id": call.entry.id,
            "output_index": call.index,
            "call_id": _written(call).call_id,
        }

    def _begin(self, entry: Entry) -> _Output:
        output = _Output(entry, len(self._outputs))
        self._outputs.append(output)
        self._downlink.event(
            wire.OutputItemAdded(
                response_id=self.response_id, output_index=output.index, item=entry.item
            )
        )
        if self._form.in_conversation:
            previous = self._conversation.add(entry)
            self._downlink.event(
                wire.ConversationItemAdded(previous_item_id=previous, item=entry.item)
            )
        return output

    def _end(self, output: _Output, item: wire.Item) -> None:
        if self._conversation.holds(output.entry):
            item, previous = self._conversation.update(item)
            self._downlink.event(wire.ConversationItemDone(previous_item_id=previous, item=item))
        output.item = item
        self._downlink.event(
            wire.OutputItemDone(response_id=self.response_id, output_index=output.index, item=item)
        )


def _written(call: _Output) -> wire.FunctionCall:
    assert isinstance(call.entry.item, wire.FunctionCall)
    return call.entry.item
