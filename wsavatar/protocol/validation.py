"""From pydantic's complaints to the wire's: one error, with the path of the field at fault."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import ValidationError

from .errors import ProtocolError

__all__ = ["protocol_error"]

_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    "invalid_base64": "invalid_base64",
    "empty_text": "empty_text",
    "string_too_long": "too_long",
}


def protocol_error(error: ValidationError, *, prefix: str, event_id: str | None) -> ProtocolError:
    """The first of pydantic's errors as a `ProtocolError`."""
    first = error.errors(include_url=False, include_input=False)[0]
    param = _path(prefix, first["loc"])
    code = _CODES.get(first["type"]) or (
        "invalid_type" if first["type"].endswith("_type") else "invalid_value"
    )
    if first["type"] in ("model_type", "dict_type"):
        return ProtocolError(code, f"{param}: should be an object.", param=param, event_id=event_id)
    message = first["msg"].removeprefix("Value error, ").removesuffix(".")
    return ProtocolError(code, f"{param}: {message}.", param=param, event_id=event_id)


def _path(prefix: str, loc: Iterable[int | str]) -> str:
    """``session.audio.input.format``, ``item.content[0].text``."""
    path = prefix
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part not in _UNION_TAGS:
            path += f".{part}" if path else part
    return path


# What pydantic adds to a path for the branch of a union it tried.
_UNION_TAGS = frozenset({"str", "int", "float", "dict[str,any]", "constrained-int"})
