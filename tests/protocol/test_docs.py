"""`docs/protocol.md` against the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.protocol.document import event_types

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text()
# Where the code gives an error's code: exceptions, and functions that tell a client of a failure.
RAISES = {"ProtocolError", "DialogueError", "EngineError", "TextError", "UpstreamError"}
RAISES |= {"VideoRefused", "AudioError", "refuse", "Failed", "abort"}
RAISES |= {"fail", "_fail", "_failed", "_give_up"}


def code_names(text: str) -> set[str]:
    return set(re.findall(r"`([a-z0-9_]+)`", text))


def rows(heading: str) -> list[list[str]]:
    """The cells of a section's tables."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [line.split("|")[1:-1] for line in section.splitlines() if line.startswith("|")]


def constants(node: ast.AST | None) -> Iterator[str]:
    """What an expression may be, where it is written out."""
    if isinstance(node, ast.IfExp):
        yield from constants(node.body)
        yield from constants(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def sent_codes() -> set[str]:
    """The codes that a client may get, as the code writes them out."""
    codes: set[str] = set()
    for path in (ROOT / "wsavatar").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                given = [key.value for key in node.keywords if key.arg == "code"]
                for argument in given + (node.args[:2] if name in RAISES else []):
                    codes |= set(constants(argument))
            elif isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "code":
                codes |= set(constants(node.value))
    return {code for code in codes if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", code)}


def test_every_error_code_in_the_docs_exists() -> None:
    """A client may test for each code that the page names: some code sends it."""
    codes = {code for row in rows("Errors") for code in code_names(row[0])}
    assert len(codes) > 30
    source = "".join(path.read_text() for path in (ROOT / "wsavatar").rglob("*.py"))
    assert {code for code in codes if f'"{code}"' not in source} == set()


def test_every_error_code_that_is_sent_is_in_the_docs() -> None:
    """Whatever a client gets, the page says when it comes."""
    codes = sent_codes()
    assert {"invalid_json", "odd_byte_count", "upload_stalled", "engine_failed"} <= codes
    assert codes - code_names(PAGE) == set()


@pytest.mark.parametrize(
    ("column", "operation"), [(1, "receiveClientEvent"), (2, "sendServerEvent")]
)
def test_the_docs_list_every_event(column: int, operation: str) -> None:
    """Under its full name, and no others."""
    listed = {name for row in rows("Every event") for name in re.findall(r"`(.+?)`", row[column])}
    assert listed == event_types(operation)
