"""The wire as an AsyncAPI 3 document, generated from the protocol's own models.

Pure: knows the models, not who serves the document.
"""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from wsavatar import __version__
from wsavatar.protocol import avatar_events, response_events, server_events, video_events
from wsavatar.protocol import client_events as client

__all__ = ["describe"]

_REFERENCE = "#/components/schemas/{model}"


@cache
def describe() -> dict[str, Any]:
    """The document. Payloads are JSON Schema, in ``components.schemas``."""
    from_client, from_server = list(get_args(client.ClientEvent)), _server_events()
    sent, received = _messages(from_client), _messages(from_server)
    binary = {
        "BinaryAudioIn": _binary("Raw samples in audio.input.format: the microphone."),
        "BinaryOut": _binary("A 24-byte header, then a frame or audio."),
    }
    channel = "#/channels/realtime"

    def references(names: list[str]) -> list[dict[str, str]]:
        return [{"$ref": f"{channel}/messages/{name}"} for name in names]

    messages = {**sent, **received, **binary}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "wsavatar",
            "version": __version__,
            "description": "The OpenAI Realtime API's GA events, plus frames.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "realtime": {
                "address": "/v1/realtime",
                "bindings": {
                    "ws": {
                        "method": "GET",
                        "query": {
                            "type": "object",
                            "properties": {
                                "avatar": {"type": "string", "description": "Which avatar."},
                                "model": {"type": "string", "description": "Ignored."},
                                "resume": {
                                    "type": "string",
                                    "description": "Goes on with a session: the token of "
                                    "avatar.resumable.",
                                },
                                "received": {
                                    "type": "integer",
                                    "minimum": 0,
                                    "description": "With resume: the number of messages that the "
                                    "client has got in this session.",
                                },
                            },
                        },
                    }
                },
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {
            "receiveClientEvent": {
                "action": "receive",
                "channel": {"$ref": channel},
                "messages": references([*sent, "BinaryAudioIn"]),
            },
            "sendServerEvent": {
                "action": "send",
                "channel": {"$ref": channel},
                "messages": references([*received, "BinaryOut"]),
            },
        },
        "components": {"messages": messages, "schemas": _schemas(from_client, from_server)},
    }


def _server_events() -> list[type[BaseModel]]:
    """Every model that names an event: one whose ``type`` is fixed."""
    named = [
        getattr(module, name)
        for module in (server_events, response_events, avatar_events, video_events)
        for name in module.__all__
    ]
    return [
        model
        for model in named
        if isinstance(model, type)
        and issubclass(model, server_events.ServerEvent)
        and model is not server_events.ServerEvent
    ]


def _messages(events: list[type[BaseModel]]) -> dict[str, Any]:
    return {
        event.__name__: {
            "name": get_args(event.model_fields["type"].annotation)[0],
            "summary": (event.__doc__ or "").strip().split("\n")[0],
            "payload": {"$ref": _REFERENCE.format(model=event.__name__)},
        }
        for event in events
    }


def _schemas(
    sent: list[type[BaseModel]], received: list[type[BaseModel]]
) -> dict[str, dict[str, Any]]:
    """What clients may send is described as it is read, what they receive as it is written."""
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = []
    modes += [(event, "validation") for event in sent]
    modes += [(event, "serialization") for event in received]
    _, schemas = models_json_schema(modes, ref_template=_REFERENCE)
    definitions: dict[str, dict[str, Any]] = schemas["$defs"]
    return definitions


def _binary(summary: str) -> dict[str, Any]:
    return {
        "name": "binary",
        "summary": summary,
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary"},
    }
