"""Files that someone puts into the avatars' directory: found when complete, tried once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.avatar_jobs.fakes import FakeCreation, making
from tests.session.held import Clock
from wsavatar.avatar_jobs import claim
from wsavatar.avatar_jobs.claim import claimed
from wsavatar.avatar_jobs.dropped import DroppedFiles
from wsavatar.avatar_jobs.failures import KnownFailures
from wsavatar.avatar_jobs.watch import SETTLED_S, FolderWatch


def drop(directory: Path, name: str, data: bytes = b"anna") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(data)
    return directory / name


# -- finding them ---------------------------------------------------------------------------------


def test_a_file_is_given_once_it_no_longer_changes(tmp_path: Path) -> None:
    """Not while it is being copied, and not twice; again where it was changed."""
    clock = Clock()
    watch = FolderWatch([tmp_path], clock)
    file = drop(tmp_path, "anna.jpg", b"an")
    assert watch.look(9) == []
    clock.now_s += SETTLED_S
    file.write_bytes(b"anna")  # still copied
    assert watch.look(9) == []
    clock.now_s += SETTLED_S / 2
    assert watch.look(9) == []
    clock.now_s += SETTLED_S / 2
    assert watch.look(9) == [file]
    assert watch.is_there(file)
    clock.now_s += 60
    assert watch.look(9) == []
    file.write_bytes(b"anna, better")
    assert watch.look(9) == [] and not watch.is_there(file)
    clock.now_s += SETTLED_S
    assert watch.look(9) == [file]
    file.unlink()
    assert watch.look(9) == [] and not watch.is_there(file)


def test_only_photos_and_videos_count(tmp_path: Path) -> None:
    """By their endings, in any case; folders, hidden files and a README are nothing to make."""
    clock = Clock()
    watch = FolderWatch([tmp_path / "none", tmp_path], clock)
    for name in ("a.JPG", "b.mp4", "README.md", "noending", ".c.jpg", "d.jpg.part"):
        drop(tmp_path, name)
    (tmp_path / "folder.jpg").mkdir()
    watch.look(9)
    clock.now_s += SETTLED_S
    assert [path.name for path in watch.look(1)] == ["a.JPG"]
    assert [path.name for path in watch.look(9)] == ["b.mp4"]


# -- making avatars of them -----------------------------------------------------------------------


class Steps:
    """A pause that a test ends: one look at a time."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.looked = asyncio.Event()
        self.go = asyncio.Event()
        self.busy = False

    async def pause(self) -> None:
        self.looked.set()
        await self.go.wait()
        self.go.clear()

    async def look(self, times: int = 2) -> None:
        """Let so many looks happen, a while apart."""
        for _ in range(times):
            async with asyncio.timeout(30):
                await self.looked.wait()
            self.looked.clear()
            self.clock.now_s += SETTLED_S
            self.go.set()
        async with asyncio.timeout(30):
            await self.looked.wait()


@contextlib.asynccontextmanager
async def watching(
    tmp_path: Path, create: FakeCreation, steps: Steps, version: str = "1"
) -> AsyncIterator[DroppedFiles]:
    maker, _, _ = making(tmp_path, create, parallel=2)
    dropped = DroppedFiles(
        maker,
        [tmp_path / "avatars", tmp_path / "uploads"],
        lambda: steps.busy,
        KnownFailures(tmp_path / "cache", version),
        clock=steps.clock,
        pause=steps.pause,
    )
    task = asyncio.create_task(dropped.run())
    try:
        yield dropped
    finally:
        task.cancel()
        await asyncio.wait({task})
        await maker.close()


async def until(condition: object) -> None:
    async with asyncio.timeout(30):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_files_become_avatars_beside_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that are there at the start and those that come; the log says ready for each."""
    caplog.set_level(logging.INFO)
    steps, create = Steps(), FakeCreation()
    drop(tmp_path / "uploads", "Anna.jpg")
    async with watching(tmp_path, create, steps) as dropped:
        await steps.look()
        made = tmp_path / "uploads" / "anna" / "source.jpg"
        await until(made.exists)
        drop(tmp_path / "uploads", "bob.MP4", b"bob")
        await steps.look()
        await until((tmp_path / "uploads" / "bob" / "source.mp4").exists)
        await until(lambda: "avatar bob: ready, made of bob.MP4" in caplog.text)
        await steps.look()
    assert made.read_bytes() == b"anna"
    assert "avatar anna: ready, made of Anna.jpg" in caplog.text
    assert dropped.failures == {}
    assert create.made == [b"anna", b"bob"]


async def test_a_failure_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With its reason, until the file is changed or taken away."""
    steps, create = Steps(), FakeCreation()
    file = drop(tmp_path / "uploads", "cat.jpg", b"no face")
    async with watching(tmp_path, create, steps) as dropped:
        await steps.look()
        await until(lambda: dropped.failures)
        await steps.look(4)
        assert dropped.failures == {"cat.jpg": "cat.jpg: no face was found; --face 2 does not help"}
        assert caplog.text.count("no face was found") == 1
        file.write_bytes(b"a face")
        await steps.look()
        await until((tmp_path / "uploads" / "cat" / "source.jpg").exists)
        await steps.look()
        assert dropped.failures == {}


async def test_a_failure_is_not_tried_again_at_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its reason is there at once. A changed file is tried again, and all by another detector."""
    caplog.set_level(logging.INFO)
    file = drop(tmp_path / "uploads", "cat.jpg", b"no face")
    told = {"cat.jpg": "cat.jpg: no face was found; --face 2 does not help"}
    for version, tries in (("1", 1), ("1", 1), ("2", 2), ("2", 2)):
        steps = Steps()
        async with watching(tmp_path, FakeCreation(), steps, version) as dropped:
            await steps.look()
            await until(lambda: dropped.failures)  # noqa: B023 - awaited here
            assert dropped.failures == told
        assert caplog.text.count("an avatar is made of it") == tries
    assert caplog.text.count("no face was found") == 4
    file.write_bytes(b"a face")
    steps = Steps()
    async with watching(tmp_path, FakeCreation(), steps, "2"):
        await steps.look()
        await until((tmp_path / "uploads" / "cat" / "source.jpg").exists)
    steps = Steps()
    async with watching(tmp_path, FakeCreation(), steps, "2"):
        await steps.look()
    assert not list((tmp_path / "cache" / "failures").iterdir()), "the file is gone"


async def test_a_fault_that_may_pass_is_tried_again(tmp_path: Path) -> None:
    """Such as one of the server, which is not the file's."""
    drop(tmp_path / "uploads", "cat.jpg", b"crash")
    for _ in range(2):
        steps, create = Steps(), FakeCreation()
        async with watching(tmp_path, create, steps) as dropped:
            await steps.look()
            await until(lambda: dropped.failures)  # noqa: B023 - awaited here
        assert create.limits, "it was tried"


async def test_sessions_come_first(tmp_path: Path) -> None:
    """While the server is over its capacity nothing new is begun."""
    steps, create = Steps(), FakeCreation()
    steps.busy = True
    drop(tmp_path / "uploads", "anna.jpg")
    async with watching(tmp_path, create, steps):
        await steps.look(4)
        assert create.made == [] and create.at_once == 0
        steps.busy = False
        await steps.look(2)
        await until((tmp_path / "uploads" / "anna" / "source.jpg").exists)


async def test_an_avatar_that_comes_ready_made_is_told(tmp_path: Path) -> None:
    """Such as one of ``run.py prepare`` while the server runs; without a change nothing is told."""
    steps, create, lists = Steps(), FakeCreation(), list[list[str]]()
    async with watching(tmp_path, create, steps) as dropped:
        dropped._maker.on_change(lambda listing: lists.append([one.id for one in listing.avatars]))
        await steps.look(3)
        assert lists == []
        (tmp_path / "uploads" / "eve").mkdir(parents=True)
        await steps.look(3)
    assert lists == [["ada", "eve"]]


async def test_a_stopping_server_gives_up_what_it_makes(tmp_path: Path) -> None:
    """The file stays, for the next start."""
    steps, create = Steps(), FakeCreation()
    create.held.set()
    file = drop(tmp_path / "uploads", "anna.jpg")
    async with watching(tmp_path, create, steps):
        await steps.look()
        await until(lambda: create.at_once == 1)
    assert file.exists() and not (tmp_path / "uploads" / "anna").exists()


# -- several servers ------------------------------------------------------------------------------


async def test_one_of_two_servers_makes_the_avatar_and_both_show_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They may watch the same directory: nothing is made twice, and neither complains."""
    caplog.set_level(logging.WARNING)
    one, other, steps, later = FakeCreation(), FakeCreation(), Steps(), Steps()
    one.held.set()
    file = drop(tmp_path / "uploads", "anna.jpg")
    async with watching(tmp_path, one, steps), watching(tmp_path, other, later) as second:
        lists: list[list[str]] = []
        second._maker.on_change(lambda listing: lists.append([one.id for one in listing.avatars]))
        await steps.look()
        await until(lambda: one.at_once == 1)
        await later.look(4)
        assert other.made == [] and second.failures == {}
        one.held.clear()
        await until(lambda: not file.exists())
        await later.look(3)
    assert one.made == [b"anna"] and other.made == []
    assert lists[-1] == ["ada", "anna"]
    assert caplog.text == ""
    assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["anna"]


async def test_a_server_takes_what_another_gave_up(tmp_path: Path) -> None:
    """The file of a server that was stopped is found by the one that goes on."""
    one, other, steps, later = FakeCreation(), FakeCreation(), Steps(), Steps()
    one.held.set()
    drop(tmp_path / "uploads", "anna.jpg")
    async with watching(tmp_path, other, later):
        async with watching(tmp_path, one, steps):
            await steps.look()
            await until(lambda: one.at_once == 1)
            await later.look(3)
        await later.look(1)
        await until((tmp_path / "uploads" / "anna" / "source.jpg").exists)
    assert other.made == [b"anna"]


CLAIM = """
import os, sys
from pathlib import Path
from wsavatar.avatar_jobs.claim import claimed

with claimed(Path(sys.argv[1])) as is_mine:
    print(is_mine, flush=True)
    sys.stdin.read()
    os.abort()
"""


def test_a_crash_leaves_no_claim(tmp_path: Path) -> None:
    """Another process has the file; once it was killed anybody may have it."""
    file = drop(tmp_path, "a" * 250 + ".jpg")
    command = [sys.executable, "-c", CLAIM, str(file)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "True\n"
        with claimed(file) as is_mine:
            assert not is_mine
        process.communicate("")
    with claimed(file) as is_mine:
        assert is_mine
        with claimed(file) as is_mine_too:
            assert not is_mine_too
    assert list(tmp_path.iterdir()) == [file]


def test_without_locks_everybody_has_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On such a disk a server works as if it were alone."""

    def fails(handle: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(claim, "_lock", fails)
    file = drop(tmp_path, "anna.jpg")
    with claimed(file) as is_mine, claimed(file) as is_mine_too:
        assert is_mine and is_mine_too
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_another_server_moved_is_nobodys(tmp_path: Path) -> None:
    """It was found before it became an avatar, and claimed after that."""
    with claimed(tmp_path / "anna.jpg") as is_mine:
        assert not is_mine
