"""From pydantic's errors to the wire's: one error, with the path of the field at fault, in plain
words."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from .errors import ProtocolError

__all__ = ["protocol_error"]

_CODES = {
    "missing": "missing_required_parameter",
    "string_too_long": "too_long",
}

_SENTENCES = {
    "missing": "Is missing",
    "model_type": "Should be an object",
    "model_attributes_type": "Should be an object",
    "dict_type": "Should be an object",
    "list_type": "Should be a list",
    "tuple_type": "Should be a list",
    "string_type": "Should be a string",
    "bool_type": "Should be true or false",
    "bool_parsing": "Should be true or false",
    "int_type": "Should be a whole number",
    "int_parsing": "Should be a whole number",
    "int_from_float": "Should be a whole number",
    "float_type": "Should be a number",
    "float_parsing": "Should be a number",
}


def protocol_error(error: ValidationError, *, prefix: str, event_id: str | None) -> ProtocolError:
    """The first of pydantic's errors as a `ProtocolError`."""
    first = error.errors(include_url=False)[0]
    param = _path(prefix, first["loc"])
    if first["type"] == "wsavatar":  # raised by `refuse`
        context = first["ctx"]
        if context["field"]:
            param = _path(param, [context["field"]])
        return _error(context["code"], param, first["msg"], event_id)
    code = _CODES.get(first["type"]) or (
        "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    )
    return _error(code, param, f"{_sentence(first)}.", event_id)


def _sentence(problem: ErrorDetails) -> str:
    """What is wrong, as a sentence of which the field is the subject."""
    kind = problem["type"]
    if kind in _SENTENCES:
        return _SENTENCES[kind]
    limits = problem.get("ctx", {})
    unit = "character" if isinstance(problem["input"], str) else "item"
    if kind in ("too_short", "string_too_short"):
        least = limits["min_length"]
        return "Should not be empty" if least == 1 else f"Should have at least {least} {unit}s"
    if kind in ("too_long", "string_too_long"):
        most = limits["max_length"]
        return f"Should have at most {most} {unit}{'s' if most > 1 else ''}"
    if kind == "greater_than_equal":
        return f"Should be at least {limits['ge']}"
    if kind == "less_than_equal":
        return f"Should be at most {limits['le']}"
    message = problem["msg"].removeprefix("Value error, ").removesuffix(".")
    return re.sub(r"^\w+ should ", "Should ", message)


def _error(code: str, param: str, message: str, event_id: str | None) -> ProtocolError:
    return ProtocolError(code, f"{param}: {message}", param=param, event_id=event_id)


def _path(prefix: str, loc: Iterable[int | str]) -> str:
    """``session.audio.input.format``, ``item.content[0].text``."""
    path = prefix
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif not part.startswith("<"):  # the tag of a union's branch
            path += f".{part[:100]}" if path else part[:100]
    return path
