"""The command line: finds the command, loads the settings, and runs the command.

It knows each command's name and module, not what it does. A command's module is imported only when
it runs, and has ``add_arguments(parser)`` and ``run(args, settings) -> int``.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wsavatar import __version__
from wsavatar.errors import WsavatarError

__all__ = ["main", "program"]


class Command(NamedTuple):
    module: str
    summary: str
    examples: str


COMMANDS = {
    "serve": Command(
        "wsavatar.serve.server",
        "serve the page and the WebSocket (the default command)",
        """
        {prog} serve                              http://127.0.0.1:8765
        {prog} serve --host 0.0.0.0 --port 80     to the whole network
        {prog} serve --config rtx4090             full-size MuseTalk on one RTX 4090
        """,
    ),
    "prepare": Command(
        "wsavatar.commands.prepare",
        "make an avatar of a photo or a video, or prepare all avatars",
        """
        {prog} prepare anna.jpg                   of a photo; the avatar's id is anna
        {prog} prepare *.jpg clip.mp4             of each file
        {prog} prepare clip.mp4 --id eve --name "Eve Smith" --face 2
        {prog} prepare clip.mp4 --id eve --force  again; voice and instructions stay
        {prog} prepare                            prepare all that are there
        """,
    ),
    "finetune": Command(
        "wsavatar.commands.finetune",
        "teach the model one person's mouth, from a clip of them talking",
        """
        {prog} finetune anna-talks.mp4 --id anna    the avatar anna; made of the clip if it is new
        {prog} finetune talk.mp4 --id eve --seconds 20000     on a slow CPU, over night
        """,
    ),
    "render": Command(
        "wsavatar.commands.render",
        "write finished videos of an avatar that speaks a text or an audio file",
        """
        {prog} render --avatar ID --audio speech.wav -o out.mp4
        {prog} render --text "Hello there." -o hello.mp4
        {prog} render --list videos.jsonl -o videos       many, one a line
        """,
    ),
    "bench": Command(
        "wsavatar.bench.command",
        "measure this machine: time of each stage, frames per second, first-frame latency",
        """
        {prog} bench                              the configured model and batch size
        {prog} bench --batch-size 8 --json        batches 1 to 8, for a script to read
        {prog} bench --config rtx4090             full-size MuseTalk on the first GPU
        {prog} bench --parts throughput,ceiling   only these, as --help names them
        {prog} bench --sessions 20 --seconds 60   20 clients speak to a server in real time
        """,
    ),
    "weights": Command(
        "wsavatar.commands.weights",
        "download or check MuseTalk's weights, or write random ones",
        """
        {prog} weights --download models          the official files; resumes a download
        {prog} weights --check models             what is missing, misnamed or of the wrong shape
        {prog} weights --random out --size mini   random weights, for tests of speed
        """,
    ),
    "doctor": Command(
        "wsavatar.commands.doctor",
        "report what is installed, the devices, and how to get what is missing",
        """
        {prog} doctor                             a list to read
        {prog} doctor --json                      the same for a script
        """,
    ),
}

_SETTINGS_HELP = """
settings, each source overriding the one before:
  defaults             wsavatar/config.py names every setting, its unit and its limits
  --config NAME        a file, or a name in configs/: {names}
  environment          WSAVATAR_RENDER__BATCH_SIZE=8 (section and key, two underscores between)
  --set section.key=V  --set render.batch_size=8 --set audio.chunk_ms=200; V is YAML
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. Returns 0, 1 for a failure, or 2 for an error that the user can correct."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    prog = _program_name()
    name, arguments = _take_command(arguments)
    if name is not None and name not in COMMANDS:
        print(f"error: no command {name!r}; commands: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    if name is None and {"-h", "--help"} & set(arguments):
        print(_overview(prog))
        return 0
    if "--version" in arguments:
        print(f"wsavatar {__version__}")
        return 0
    verbose = bool({"-v", "--verbose"} & set(arguments))
    try:
        return _run(name or "serve", arguments, prog)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has ended (`| head`): no error, but stdout is unusable.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # the outermost boundary
        if verbose:
            raise
        return _report(error, prog)


def program() -> int:
    """`main` for a process of its own. Ctrl-C while Python ends afterwards is no traceback."""
    status = main()
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return status


def _run(name: str, arguments: list[str], prog: str) -> int:
    command = COMMANDS[name]
    module = importlib.import_module(command.module)
    parser = argparse.ArgumentParser(
        prog=f"{prog} {name}",
        description=f"{command.summary[0].upper()}{command.summary[1:]}.",
        epilog=_examples(command, prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.add_arguments(parser)
    _add_common_arguments(parser)
    args = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.DEBUG if args.verbose else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    if not args.verbose:
        for chatty in ("httpx", "httpx2", "urllib3", "websockets", "asyncio"):
            logging.getLogger(chatty).setLevel(logging.WARNING)
    from wsavatar.config import load_settings, parse_override

    overrides = dict(parse_override(text) for text in args.set)
    status: int = module.run(args, load_settings(args.config or "embedded", overrides))
    return status


def _take_command(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Split off the command, which may follow options that are common to all commands."""
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if not word.startswith("-"):
            return word, arguments[:index] + arguments[index + 1 :]
        if word.partition("=")[0] not in ("--config", "--set", "-v", "--verbose"):
            break
        index += 2 if word in ("--config", "--set") else 1
    return None, arguments


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("settings, for every command")
    group.add_argument(
        "--config",
        metavar="FILE_OR_NAME",
        help="a YAML file of settings, or a name in configs/",
    )
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="override a setting, such as render.batch_size=8; may be repeated",
    )
    group.add_argument(
        "-v", "--verbose", action="store_true", help="log everything; show tracebacks"
    )


def _overview(prog: str) -> str:
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {c.summary}" for name, c in COMMANDS.items())
    names = ", ".join(sorted(path.stem for path in _config_directory().glob("*.yaml")))
    return (
        f"usage: {prog} [COMMAND] [OPTIONS]\n\n"
        "wsavatar gives a voice a face: a WebSocket server that lip-syncs an avatar to audio.\n\n"
        f"commands ({prog} COMMAND --help for details):\n{commands}\n"
        f"{_SETTINGS_HELP.format(names=names)}"
        "\nother options:\n"
        "  -v, --verbose        log everything; show tracebacks\n"
        "  --version            print the version"
    )


def _config_directory() -> Path:
    from wsavatar.resources import resource_dir

    return resource_dir("configs")


def _examples(command: Command, prog: str) -> str:
    return "examples:\n" + textwrap.indent(
        textwrap.dedent(command.examples).strip().format(prog=prog), "  "
    )


def _program_name() -> str:
    return "python run.py" if Path(sys.argv[0]).name == "run.py" else "wsavatar"


def _report(error: BaseException, prog: str) -> int:
    """Print an error. Messages of wsavatar's own errors tell the user what to do."""
    if isinstance(error, WsavatarError | OSError):
        print(*(f"error: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
        return 2
    kind = type(error).__name__
    print(
        f"error: {prog} failed: {kind}: {error} (--verbose shows where; please report it)",
        file=sys.stderr,
    )
    return 1
