"""Runs scripts of scenarios with the interpreter of the stock clients' environment.

Their packages pin another release of websockets than the server needs, so they live in an
environment of their own, whose interpreter STOCK_CLIENTS_PYTHON names (`.ci/run` makes it from
`requirements.txt` in this folder). A script runs its scenarios one by one in one process, because
the packages take seconds to import; scripts run side by side, because they mostly wait.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

__all__ = ["PYTHON", "SIDE_BY_SIDE", "needs_clients", "run_scripts", "scenarios", "selected"]

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("STOCK_CLIENTS_PYTHON", "")
SIDE_BY_SIDE = 2
"""Processes at once; more would keep each other from speaking in real time."""
START_S = 60.0
SCENARIO_S = 45.0
"""Longer than a scenario's own limit."""

needs_clients = pytest.mark.skipif(
    not PYTHON, reason="STOCK_CLIENTS_PYTHON names no interpreter with the stock clients"
)

Scenarios = dict[Path, list[str]]


def scenarios(scripts: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Every scenario of every script: its public coroutines."""
    for script in sorted(scripts):
        for node in ast.parse(script.read_text("utf-8")).body:
            if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
                yield script, node.name


def selected(request: pytest.FixtureRequest, test: str) -> Scenarios:
    """The scenarios of this test function that will be run."""
    wanted: Scenarios = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname == test:
            params = item.callspec.params
            wanted.setdefault(params["script"], []).append(params["scenario"])
    return wanted


async def run_scripts(wanted: Scenarios, url: str, voice: Path) -> dict[tuple[Path, str], str]:
    """What was wrong in each scenario; nothing where it passed."""
    limit = asyncio.Semaphore(SIDE_BY_SIDE)

    async def run(script: Path, names: list[str]) -> dict[tuple[Path, str], str]:
        async with limit:
            return await _run(script, names, url, voice)

    faults: dict[tuple[Path, str], str] = {}
    for found in await asyncio.gather(*(run(*one) for one in wanted.items())):
        faults |= found
    return faults


async def _run(
    script: Path, names: list[str], url: str, voice: Path
) -> dict[tuple[Path, str], str]:
    process = await asyncio.create_subprocess_exec(
        *(PYTHON, str(script), url, str(voice), *names),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    told = ""
    try:
        async with asyncio.timeout(START_S + SCENARIO_S * len(names)):
            out, errors = await process.communicate()
            told = errors.decode(errors="replace")[-5000:]
    except TimeoutError:
        out, told = b"", "it did not end in time"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    faults = {(script, name): f"it was not run:\n{told}" for name in names}
    for line in out.decode().splitlines():
        if line.startswith('{"scenario"'):
            result = json.loads(line)
            fault = result["fault"]
            faults[script, result["scenario"]] = f"{fault}\n{told}" if fault else ""
    return faults
