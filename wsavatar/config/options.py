"""Settings of a chosen part, in a section that they share with those of every such part.

A face model has settings of its own in ``model``; nobody else knows them.
"""

from __future__ import annotations

import difflib
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from .loading import ConfigError, Settings

__all__ = ["model_options"]

Options = TypeVar("Options", bound=BaseModel)


def model_options(settings: Settings, kind: type[Options]) -> Options:
    """What ``model`` has beside the settings of every model. ``kind`` forbids what it has not.

    Raises ConfigError with one line for each mistake.
    """
    try:
        return kind.model_validate(settings.model.model_extra or {})
    except ValidationError as error:
        lines = []
        for detail in error.errors():
            key = str(detail["loc"][0])
            if detail["type"] == "extra_forbidden":
                lines.append(_unknown(key, kind, type(settings.model)))
            else:
                message = detail["msg"][:1].lower() + detail["msg"][1:]
                lines.append(f"model.{key} = {detail['input']!r}: {message}")
        raise ConfigError("\n".join(lines)) from None


def _unknown(key: str, kind: type[BaseModel], section: type[BaseModel]) -> str:
    near = difflib.get_close_matches(key, [*section.model_fields, *kind.model_fields], n=1)
    hint = f"; did you mean 'model.{near[0]}'?" if near else ""
    own = ", ".join(kind.model_fields) or "none"
    return f"unknown setting 'model.{key}'{hint or f'; settings of the face model: {own}'}"
