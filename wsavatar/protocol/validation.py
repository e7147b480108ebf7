"""From pydantic's errors to the wire's: one error, with the path of the field at fault."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from .errors import ProtocolError

__all__ = ["protocol_error"]

_CODES = {
    "missing": "missing_required_parameter",
    "string_too_long": "too_long",
}

# Python's names for what JSON has its own.
_EXPECTED = {
    "model_type": "an object",
    "model_attributes_type": "an object",
    "dict_type": "an object",
    "tuple_type": "a list",
}


def protocol_error(error: ValidationError, *, prefix: str, event_id: str | None) -> ProtocolError:
    """The first of pydantic's errors as a `ProtocolError`."""
    first = error.errors(include_url=False, include_input=False)[0]
    param = _path(prefix, first["loc"])
    if first["type"] == "wsavatar":  # raised by `refuse`
        context = first["ctx"]
        if context["field"]:
            param = _path(param, [context["field"]])
        return _error(context["code"], param, first["msg"], event_id)
    code = _CODES.get(first["type"]) or (
        "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    )
    if what := _EXPECTED.get(first["type"]):
        return _error(code, param, f"Should be {what}.", event_id)
    message = first["msg"].removeprefix("Value error, ").removesuffix(".")
    return _error(code, param, f"{message}.", event_id)


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
