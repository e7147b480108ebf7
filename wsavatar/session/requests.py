"""Items and requests of a client, as the conversation and the dialogue take them. Pure."""

from __future__ import annotations

from wsavatar.dialogue.base import ResponseRequest
from wsavatar.dialogue.conversation import Conversation, Entry
from wsavatar.protocol.events import (
    AudioFormat,
    Item,
    ItemReference,
    ProtocolError,
    ResponseParams,
    SessionConfig,
)
from wsavatar.session.microphone import recording_of

__all__ = ["MAX_SENT_ITEM_BYTES", "new_entry", "response_request"]

MAX_SENT_ITEM_BYTES = 4 * 1024 * 1024
"""Of an item that a client makes: it is sent back twice, and the outbox has a bound."""


def new_entry(asked: Item, form: AudioFormat) -> Entry:
    """A client's new item. Raises ProtocolError if it is too large, or its audio cannot be read."""
    audio = recording_of(asked, form)
    # Without the audio's bytes, which the recording holds.
    item = type(asked).model_validate(asked.model_dump() | {"status": "completed"})
    if (size := len(item.model_dump_json())) > MAX_SENT_ITEM_BYTES:
        raise ProtocolError(
            "item_too_large",
            f"An item may have {MAX_SENT_ITEM_BYTES >> 20} MiB as JSON, audio apart; this has "
            f"{size / 2**20:.1f}.",
            param="item",
        )
    return Entry(item, audio)


def response_request(
    params: ResponseParams | None, config: SessionConfig, conversation: Conversation
) -> ResponseRequest:
    """The request of ``response.create``. Raises ProtocolError for a reference to no item."""
    if params is None:
        return ResponseRequest(modality=config.output_modalities[0])
    modalities = params.output_modalities or config.output_modalities
    output = params.audio.output
    return ResponseRequest(
        input=None if params.input is None else _entries(params, config, conversation),
        instructions=params.instructions,
        tools=params.tools,
        tool_choice=params.tool_choice,
        modality=modalities[0],
        max_output_tokens=params.max_output_tokens,
        voice=output.voice or None,
        output_format=output.format,
        metadata=params.metadata,
        in_conversation=params.conversation == "auto",
    )


def _entries(
    params: ResponseParams, config: SessionConfig, conversation: Conversation
) -> tuple[Entry, ...]:
    entries = []
    for index, item in enumerate(params.input or ()):
        if isinstance(item, ItemReference):
            entries.append(conversation.get(item.id, param=f"response.input[{index}].id"))
        else:
            entries.append(
                Entry(
                    item, recording_of(item, config.audio.input.format, f"response.input[{index}]")
                )
            )
    return tuple(entries)
