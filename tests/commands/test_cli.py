"""The command line: help, imports and errors."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import types
from pathlib import Path

import pytest

from wsavatar import cli
from wsavatar.cli import COMMANDS, main, program
from wsavatar.config import ConfigError, Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """Replaces every command by one that records its calls."""
    module = types.ModuleType("fake_command")
    module.calls = []
    module.error = None

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--port", type=int)

    def run(args: argparse.Namespace, settings: Settings) -> int:
        module.calls.append((args, settings))
        if module.error is not None:
            raise module.error
        return 0

    module.add_arguments, module.run = add_arguments, run
    monkeypatch.setattr(cli.importlib, "import_module", lambda name: module)
    return module


def test_the_overview_names_every_command_and_configuration(capsys) -> None:
    """`--help` lists the commands and how to give settings."""
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert "embedded, four-gpus, h200, rtx4090, throughput" in text
    assert "WSAVATAR_RENDER__BATCH_SIZE" in text


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_never_loads_the_model(command: list[str]) -> None:
    """`--help` of any command does not import torch or the model's libraries."""
    heavy = {"torch", "diffusers", "transformers", "openvino"}
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['run.py', *{command!r}, '--help']\n"
        "try: runpy.run_path('run.py', run_name='__main__')\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        f"assert not {heavy!r} & set(sys.modules), {heavy!r} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage: python run.py" in done.stdout
    if command:
        assert "examples:" in done.stdout and "--set" in done.stdout


def test_no_command_serves(fake) -> None:
    """`python run.py` alone is `serve`, and so is `python run.py --port 0`."""
    assert main(["--port", "0"]) == 0
    assert fake.calls[0][0].port == 0


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "render.batch_size=8", "bench", "--config", "throughput"],
        ["bench", "--config", "throughput", "--set", "render.batch_size=8"],
        ["--config", "throughput", "--set", "render.batch_size=8", "bench"],
    ],
)
def test_common_options_may_precede_or_follow_the_command(fake, words: list[str]) -> None:
    """The position of an option does not change its meaning."""
    assert main(words) == 0
    _, settings = fake.calls[0]
    assert (settings.render.batch_size, settings.audio.chunk_ms) == (8, 1000)


def test_the_users_error_is_one_line_and_code_2(fake, capsys) -> None:
    """An error of wsavatar is printed without a traceback."""
    fake.error = ConfigError("no avatar 'bob': run prepare")
    assert main(["serve"]) == 2
    assert capsys.readouterr().err == "error: no avatar 'bob': run prepare\n"


def test_a_bug_is_one_line_and_code_1(fake, capsys) -> None:
    """An unexpected error ends with code 1, and the message says how to see the traceback."""
    fake.error = ZeroDivisionError("division by zero")
    assert main(["serve"]) == 1
    printed = capsys.readouterr().err
    assert (
        "ZeroDivisionError" in printed and "--verbose" in printed and len(printed.splitlines()) == 1
    )


def test_verbose_shows_the_traceback(fake) -> None:
    """With --verbose the exception is raised."""
    fake.error = ConfigError("x")
    with pytest.raises(ConfigError):
        main(["serve", "--verbose"])


def test_a_wrong_setting_ends_before_anything_runs(fake, capsys) -> None:
    """A mistyped setting is named with the nearest known one, and the command is not run."""
    assert main(["serve", "--set", "render.bach_size=3"]) == 2
    assert "did you mean 'render.batch_size'" in capsys.readouterr().err
    assert fake.calls == []


def test_an_unknown_command_names_the_known_ones(capsys) -> None:
    """`python run.py sreve` is not taken for an argument of serve."""
    assert main(["sreve"]) == 2
    printed = capsys.readouterr().err
    assert "sreve" in printed and "serve" in printed and len(printed.splitlines()) == 1


def test_ctrl_c_is_quiet(fake, capsys) -> None:
    """Interrupting a command prints no traceback."""
    fake.error = KeyboardInterrupt()
    assert main(["bench"]) == 130
    assert capsys.readouterr().err == ""


def test_ctrl_c_while_python_ends_is_quiet(fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a command is done, Ctrl-C just ends the process: there is nothing left to stop."""
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "argv", ["run.py", "bench"])
    try:
        assert program() == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)
