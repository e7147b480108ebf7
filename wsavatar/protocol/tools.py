"""Tools: the functions that a client offers, and how they are chosen. Calls nothing."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Tag

from .base import ClientObject, refuse, tagged

__all__ = ["FunctionTool", "Tool", "ToolChoice", "ToolChoiceFunction"]


class FunctionTool(ClientObject):
    """A function of the client. ``parameters`` is a JSON Schema."""

    type: Literal["function"] = "function"
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolChoiceFunction(ClientObject):
    """Call this function."""

    type: Literal["function"] = "function"
    name: str


def _no_mcp(value: Any) -> Any:
    if isinstance(value, dict) and value.get("type") == "mcp":
        raise refuse(
            "unsupported_value",
            "This server connects to no MCP servers. Offer functions and answer their calls.",
            field="type",
        )
    return value


Tool = Annotated[FunctionTool, BeforeValidator(_no_mcp)]
ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<mode>")]
    | Annotated[ToolChoiceFunction, BeforeValidator(_no_mcp), Tag("<function>")],
    tagged({str: "<mode>"}, "<function>"),
]
