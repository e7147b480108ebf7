"""Documents are correct: commands parse, files exist, and no private path is in the tree."""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from wsavatar.cli import COMMANDS, _add_common_arguments, _take_command
from wsavatar.config import find_config, load_settings, parse_override

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> Iterator[tuple[str, list[str]]]:
    """Every `python run.py …` in a code span or block, as words."""
    for path in DOCUMENTS:
        text = path.read_text("utf-8")
        spans = re.findall(r"`(python run\.py[^`\n]*)`", text)
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            spans += re.findall(r"python run\.py[^&\n]*", block)
        for span in spans:
            yield path.name, shlex.split(span, comments=True)[2:]


@pytest.mark.parametrize(
    ("document", "words"), sorted({(name, tuple(words)) for name, words in commands()})
)
def test_every_command_in_the_documents_is_understood(document: str, words: tuple[str]) -> None:
    """The command exists, takes these options, and its configuration and settings load."""
    name, arguments = _take_command(list(words))
    module = importlib.import_module(COMMANDS[name or "serve"].module)
    parser = argparse.ArgumentParser(exit_on_error=False)
    module.add_arguments(parser)
    _add_common_arguments(parser)
    if "--help" in arguments or arguments in (["ID"], ["COMMAND"]):
        return
    args = parser.parse_args(arguments)
    load_settings(args.config, dict(parse_override(text) for text in args.set))


def source_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None, module
    return Path(spec.origin).read_text("utf-8")


def test_every_training_command_in_the_documents_exists() -> None:
    """Each `python -m wsavatar.…` of a document is a module that knows every option given to it, or
    imports one that does."""
    found = 0
    for path in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", path.read_text("utf-8"), re.DOTALL):
            for module, words in re.findall(r"python -m (wsavatar[\w.]+)(.*)", block):
                source = source_of(module)
                source += "".join(map(source_of, re.findall(r"from (wsavatar[\w.]+)", source)))
                unknown = [o for o in re.findall(r"--[\w-]+", words) if f'"{o}"' not in source]
                assert not unknown, f"{path.name}: {module} {unknown}"
                found += 1
    assert found


def test_the_readme_lists_commands_and_configurations() -> None:
    """The README has every command and every configuration, and no others."""
    text = (ROOT / "README.md").read_text("utf-8")
    assert all(f"`python run.py {name}" in text for name in COMMANDS)
    shipped = {path.stem for path in (ROOT / "configs").glob("*.yaml")}
    table = text.split("| configuration | for |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `([\w-]+)`", table, re.MULTILINE)) == shipped
    assert all(find_config(name).is_file() for name in shipped)


@pytest.mark.parametrize(
    "command", ["pip install '.[test]' && pytest -n 2 -m 'not alone'", "pytest -m alone"]
)
def test_ci_runs_the_readmes_test_commands(command: str) -> None:
    """Exactly those that the README gives; together they run every test."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert command in [line.partition("#")[0].strip() for line in readme.splitlines()]
    assert command in (ROOT / ".ci" / "run").read_text("utf-8").splitlines()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_exist(path: Path) -> None:
    """Every relative link of a document is a file of the repository."""
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), target


def test_the_readmes_client_is_valid_python() -> None:
    """The example parses."""
    [block] = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
    ast.parse(block)


def test_no_file_names_a_private_path() -> None:
    """No tracked file has a path of a developer's machine or a private folder."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    private = re.compile("|".join(["/" + "work/", "/" + "opt/wsa", r"\.\./" + "shared"]))
    found = [
        name
        for name in listed.stdout.splitlines()
        if (ROOT / name).is_file()
        and private.search((ROOT / name).read_text("utf-8", errors="ignore"))
    ]
    assert found == []
