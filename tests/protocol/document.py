"""Checks messages against the AsyncAPI document that the server publishes.

Its schemas are read as AsyncAPI says: JSON Schema, draft 7.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from jsonschema import Draft7Validator

from wsavatar.protocol.asyncapi import describe

__all__ = ["check_message", "event_types"]


@cache
def _validators(operation: str) -> dict[str, Draft7Validator]:
    """For each event type of an operation, a validator of its payload."""
    document = describe()
    messages = document["components"]["messages"]
    validators = {}
    for reference in document["operations"][operation]["messages"]:
        message = messages[reference["$ref"].rsplit("/", 1)[1]]
        if message.get("contentType") is None:
            schema = {**message["payload"], "components": document["components"]}
            validators[message["name"]] = Draft7Validator(schema)
    return validators


def event_types(operation: str) -> set[str]:
    """The types of all events of ``receiveClientEvent`` or ``sendServerEvent``."""
    return set(_validators(operation))


def check_message(operation: str, event: dict[str, Any]) -> None:
    """Raises where the document has no such message, or describes it otherwise."""
    validators = _validators(operation)
    assert event["type"] in validators, f"not in the document: {event['type']}"
    validators[event["type"]].validate(event)
