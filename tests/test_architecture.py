"""The packages are what docs/architecture.md says: their sizes, and what each imports.

The table there is read, not repeated here. `python -m tests.test_architecture` prints the figures
and the imports as they are now.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "wsavatar"
DOCUMENT = ROOT / "docs" / "architecture.md"
WATCHED = {"asyncio", "websockets", "torch", "diffusers", "transformers", "openvino", "triton"}
"""The libraries whose place the table fixes; others may be imported anywhere."""


@dataclass(frozen=True)
class Row:
    """A line of the table. ``units``: the packages and root modules that it is about."""

    units: tuple[str, ...]
    lines: int
    imports: frozenset[str]
    type_imports: frozenset[str]
    libraries: frozenset[str]


@dataclass(frozen=True)
class Import:
    """``target``: a unit of this package, or a library. ``for_types``: for type checkers only."""

    module: str
    unit: str
    target: str
    for_types: bool


def table() -> list[Row]:
    """The rows of "## Packages", from the top to the bottom."""
    section = DOCUMENT.read_text("utf-8").split("\n## Packages\n")[1].split("\n## ")[0]
    rows = []
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("| `"):
            continue
        names, lines, imports, libraries = cells[:4]
        typed = frozenset(re.findall(r"`([^`]+)` \(types\)", imports))
        rows.append(
            Row(
                tuple(_names(names)),
                int(lines.replace(" ", "")),
                frozenset(_names(imports)) - typed,
                typed,
                frozenset(_names(libraries)),
            )
        )
    return rows


def _names(cell: str) -> list[str]:
    return [name.rstrip("/") for name in re.findall(r"`([^`]+)`", cell)]


ROWS = table()
UNITS = [unit for row in ROWS for unit in row.units]


def unit_of(parts: tuple[str, ...]) -> str:
    """The unit that a module belongs to, by the parts of its name below ``wsavatar``."""
    nested = "/".join(parts[:2])
    return nested if nested in UNITS else parts[0]


@functools.cache
def imports() -> tuple[Import, ...]:
    """Every import of the package, those inside functions included."""
    return tuple(_all_imports())


def _all_imports() -> Iterator[Import]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(ROOT).with_suffix("").parts
        package = module[:-1]
        tree = ast.parse(path.read_text("utf-8"))
        for_types = {
            child
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
            for statement in node.body
            for child in ast.walk(statement)
        }
        for node in ast.walk(tree):
            for name in _imported(node, package):
                target = name[0]
                if target == "wsavatar":
                    if not (PACKAGE / name[1]).is_dir() and not _is_module(name[1]):
                        continue  # `from wsavatar import __version__`
                    target = unit_of(name[1:])
                unit = unit_of(module[1:])
                yield Import(".".join(module), unit, target, node in for_types)


def _is_module(name: str) -> bool:
    return (PACKAGE / f"{name}.py").is_file()


def _imported(node: ast.AST, package: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The names that a statement imports, in full and in parts."""
    if isinstance(node, ast.Import):
        return [tuple(alias.name.split(".")) for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = package[: len(package) - node.level + 1] if node.level else ()
    base += tuple(node.module.split(".")) if node.module else ()
    return [(*base, alias.name) for alias in node.names]


def sizes() -> dict[str, int]:
    """Lines of Python in each unit."""
    found: dict[str, int] = defaultdict(int)
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[unit_of(parts)] += len(path.read_text("utf-8").splitlines())
    del found["__init__"]
    return found


def test_the_table_names_every_package_once() -> None:
    """Every package and every root module stands in one row, and nothing that is not there."""
    assert sorted(UNITS) == sorted(sizes())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.units[0])
def test_imports_are_those_of_the_table(row: Row) -> None:
    """A package imports what its row names; within a row modules may import each other."""
    wrong = [
        f"{one.module} imports {one.target}"
        for one in imports()
        if one.unit in row.units
        and one.target in UNITS
        and one.target not in row.units
        and one.target not in row.imports
        and not (one.for_types and one.target in row.type_imports)
    ]
    assert wrong == []


def test_imports_point_upwards() -> None:
    """A row may import the rows above it, so that there are no circles; types excepted."""
    for number, row in enumerate(ROWS):
        above = {unit for earlier in ROWS[:number] for unit in earlier.units}
        assert row.imports <= above, f"{row.units[0]}: {sorted(row.imports - above)}"
        assert row.type_imports <= set(UNITS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.units[0])
def test_libraries_are_those_of_the_table(row: Row) -> None:
    """The networks' libraries, asyncio and sockets are imported where the table says, only."""
    wrong = [
        f"{one.module} imports {one.target}"
        for one in imports()
        if one.unit in row.units and one.target in WATCHED - row.libraries and not one.for_types
    ]
    assert wrong == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.units[0])
def test_the_lines_are_counted(row: Row) -> None:
    """The number of lines is right within a tenth."""
    found = sizes()
    lines = sum(found[unit] for unit in row.units)
    assert row.lines == pytest.approx(lines, rel=0.1), f"{row.units[0]} has {lines} lines now"


def main() -> None:
    """Print what each row would say now."""
    found = sizes()
    for row in ROWS:
        used = {"imports": set[str](), "types": set[str](), "libraries": set[str]()}
        for one in imports():
            if one.unit not in row.units:
                continue
            if one.target in WATCHED and not one.for_types:
                used["libraries"].add(one.target)
            elif one.target in UNITS and one.target not in row.units:
                used["types" if one.for_types else "imports"].add(one.target)
        used["types"] -= used["imports"]
        lines = sum(found[unit] for unit in row.units)
        print(", ".join(row.units), lines, {name: sorted(those) for name, those in used.items()})


if __name__ == "__main__":
    sys.exit(main())
