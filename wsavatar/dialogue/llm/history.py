"""TEMPORARY"""

from __future__ import annotations

from typing import Any

from wsavatar.dialogue.conversation import Entry


def messages(
    entries: tuple[Entry, ...], instructions: str, max_tokens: int
) -> tuple[dict[str, Any], ...]:
    out: list[dict[str, Any]] = [{"role": "system", "content": instructions}]
    for e in entries:
        if e.item.text.strip():
            out.append({"role": e.item.role, "content": e.item.text})  # type: ignore
    return tuple(out)


def tools(offered: Any) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"type": "function", "function": {"name": t.name, "parameters": t.parameters}}
        for t in offered
    )


def tool_choice(choice: Any) -> Any:
    return choice
