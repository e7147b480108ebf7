"""Runs scripts of scenarios with the stock clients, which live in environments of their own.

Python's packages pin another release of websockets than the server needs: STOCK_CLIENTS_PYTHON
names the interpreter of an environment with `requirements.txt` of this folder. STOCK_CLIENTS_NPM
names a folder where `npm install` was run on `npm/package.json`. `.ci/run` makes both.

A script runs its scenarios one by one in one process, because the packages take seconds to import;
scripts run side by side, because they mostly wait.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

__all__ = ["NPM", "Faults", "Job", "name_of", "needs", "run_jobs", "scenarios", "selected"]

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("STOCK_CLIENTS_PYTHON", "")
NPM = os.environ.get("STOCK_CLIENTS_NPM", "")
SIDE_BY_SIDE = 2
"""Processes at once; more would keep each other from speaking in real time."""
START_S = 180.0
SCENARIO_S = 125.0
"""Longer than a scenario's own limit."""

Faults = dict[tuple[Path, str], str]
"""By script and scenario: what was wrong; nothing where it passed."""


@dataclass(frozen=True)
class Job:
    """Scenarios of one script, for the server at ``url``. ``certificate``: which node trusts."""

    script: Path
    scenarios: tuple[str, ...]
    url: str
    voice: Path
    certificate: Path | None = None


def scenarios(scripts: Iterable[Path]) -> Iterator[tuple[Path, str]]:
    """Every scenario of every script: its public coroutines; in JavaScript its async methods."""
    for script in sorted(scripts):
        text = script.read_text("utf-8")
        if script.suffix == ".mjs":
            for name in re.findall(r"^  async (\w+)\(\) \{", text, re.MULTILINE):
                yield script, name
            continue
        for node in ast.parse(text).body:
            if isinstance(node, ast.AsyncFunctionDef) and not node.name.startswith("_"):
                yield script, node.name


def name_of(value: object) -> str:
    """A parameter's part of a test's id."""
    return value.stem if isinstance(value, Path) else str(value)


def needs(script: Path) -> str:
    """What is missing to run this script; empty: nothing."""
    if script.suffix == ".mjs":
        if not NPM:
            return "STOCK_CLIENTS_NPM names no folder with the npm packages"
        return "" if shutil.which("node") else "node is not installed"
    return "" if PYTHON else "STOCK_CLIENTS_PYTHON names no interpreter with the stock clients"


def selected(request: pytest.FixtureRequest, test: str) -> dict[Path, tuple[str, ...]]:
    """The scenarios of this test function that will be run, and can be."""
    wanted: dict[Path, tuple[str, ...]] = {}
    for item in request.session.items:
        if isinstance(item, pytest.Function) and item.originalname == test:
            script, name = item.callspec.params["script"], item.callspec.params["scenario"]
            if not needs(script):
                wanted[script] = (*wanted.get(script, ()), name)
    return wanted


async def run_jobs(jobs: Iterable[Job]) -> Faults:
    """Run all scenarios."""
    limit = asyncio.Semaphore(SIDE_BY_SIDE)

    async def run(job: Job) -> Faults:
        async with limit:
            return await _run(job)

    faults: Faults = {}
    for found in await asyncio.gather(*map(run, jobs)):
        faults |= found
    return faults


async def _run(job: Job) -> Faults:
    command, environment = [PYTHON, str(job.script)], {"PYTHONPATH": str(ROOT)}
    if job.script.suffix == ".mjs":  # modules are looked for beside the script
        command = ["node", shutil.copy(job.script, NPM)]
        environment = {"NODE_EXTRA_CA_CERTS": str(job.certificate or "")}
    process = await asyncio.create_subprocess_exec(
        *(*command, job.url, str(job.voice), *job.scenarios),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | environment,
    )
    told = ""
    try:
        async with asyncio.timeout(START_S + SCENARIO_S * len(job.scenarios)):
            out, errors = await process.communicate()
            told = errors.decode(errors="replace")[-5000:]
    except TimeoutError:
        out, told = b"", "it did not end in time"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    faults = {(job.script, name): f"it was not run:\n{told}" for name in job.scenarios}
    for line in out.decode().splitlines():
        if line.startswith('{"scenario"'):
            result = json.loads(line)
            fault = result["fault"]
            faults[job.script, result["scenario"]] = f"{fault}\n{told}" if fault else ""
    return faults
