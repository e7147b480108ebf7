"""The wire as an AsyncAPI 3 document, generated from the protocol's own models.

Pure: knows the models, not who serves the document.
"""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

from pydantic import BaseModel

from wsavatar import __version__
from wsavatar.protocol import client_events as client
from wsavatar.protocol import server_events as server

__all__ = ["describe"]


@cache
def describe() -> dict[str, Any]:
    """The document. Payloads are JSON Schema, in ``components.schemas``."""
    schemas: dict[str, Any] = {}
    sent = _messages(get_args(client.ClientEvent), schemas)
    received = _messages(_server_events(), schemas)
    binary = {
        "BinaryAudioIn": _binary("Raw samples in audio.input.format: the microphone."),
        "BinaryOut": _binary("A 24-byte header, then a JPEG frame or audio."),
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
        "components": {"messages": messages, "schemas": schemas},
    }


def _server_events() -> list[type[BaseModel]]:
    """Every model that names an event: one whose ``type`` is fixed."""
    named = [getattr(server, name) for name in server.__all__]
    return [
        model
        for model in named
        if isinstance(model, type)
        and issubclass(model, server.ServerEvent)
        and model is not server.ServerEvent
    ]


def _messages(models: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    messages = {}
    for model in models:
        template = "#/components/schemas/{model}"
        schema = model.model_json_schema(ref_template=template, mode="validation")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
        event = model.model_fields["type"]
        messages[model.__name__] = {
            "name": get_args(event.annotation)[0],
            "summary": (model.__doc__ or "").strip().split("\n")[0],
            "payload": {"$ref": template.format(model=model.__name__)},
        }
    return messages


def _binary(summary: str) -> dict[str, Any]:
    return {
        "name": "binary",
        "summary": summary,
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary"},
    }
