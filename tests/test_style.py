"""One style for the whole repository: ruff's rules and format, and strict types."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_ruff_finds_nothing(command: list[str]) -> None:
    """`ruff check` and `ruff format --check` pass over every Python file."""
    arguments = [sys.executable, "-m", "ruff", *command, "--quiet", "."]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"ruff {' '.join(command)} .\n{done.stdout}{done.stderr}"


def test_mypy_finds_nothing() -> None:
    """`mypy wsavatar` passes under the strict settings of pyproject.toml."""
    arguments = [sys.executable, "-m", "mypy", "--no-error-summary", "wsavatar"]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"mypy wsavatar\n{done.stdout}{done.stderr}"
