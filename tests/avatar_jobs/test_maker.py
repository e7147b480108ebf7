"""Avatars made while the server runs: a few at a time, complete or not at all, told to all."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.avatar_jobs.fakes import FakeCreation, making
from tests.fake_avatars import FakeAvatars
from wsavatar.avatar_jobs import maker as maker_module
from wsavatar.avatar_jobs.maker import AvatarMaker, BusyError, Listing, Step
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.format import AvatarError
from wsavatar.config import AvatarSettings
from wsavatar.creation import AvatarRequest, SourceLimits
from wsavatar.faces.base import Progress


def photo(tmp_path: Path, name: str = "Anna Smith.jpg", data: bytes = b"anna") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


async def make(maker: AvatarMaker, source: Path, **asked: object) -> maker_module.Made:
    request = AvatarRequest(**asked)  # type: ignore[arg-type]
    return await maker.make(source, source.parent / "uploads", request, SourceLimits())


async def until(condition: object) -> None:
    async with asyncio.timeout(30):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def test_an_avatar_is_made_prepared_and_told(tmp_path: Path) -> None:
    """Its id is made of the file's name; every listener gets the new list."""
    maker, avatars, _ = making(tmp_path)
    lists: list[Listing] = []
    steps: list[Step] = []
    maker.on_change(lists.append)
    made = await maker.make(
        photo(tmp_path), tmp_path / "uploads", AvatarRequest(), SourceLimits(), steps.append
    )
    assert (made.entry.id, made.folder) == ("anna-smith", tmp_path / "uploads" / "anna-smith")
    assert made.preview.startswith(b"\xff\xd8")
    assert [step.stage for step in steps] == ["look", "write", "prepare"]
    assert [[one.id for one in listing.avatars] for listing in lists] == [["ada", "anna-smith"]]
    assert avatars.get("anna-smith")
    await maker.close()


async def test_two_files_of_one_name_are_two_avatars(tmp_path: Path) -> None:
    """Also while the first is still being made, and beside an avatar of that name."""
    create = FakeCreation()
    maker, _, _ = making(tmp_path, create, parallel=2)
    source = photo(tmp_path, "ada.jpg")
    made = await asyncio.gather(make(maker, source), make(maker, source))
    assert sorted(one.entry.id for one in made) == ["ada-2", "ada-3"]
    with pytest.raises(AvatarError, match="'ada' is or was another avatar's"):
        await make(maker, source, id="ada")
    await maker.close()


async def test_no_more_than_so_many_at_once(tmp_path: Path) -> None:
    """The others wait and are told so; beyond a bound another one is refused."""
    create = FakeCreation()
    create.held.set()
    maker, _, _ = making(tmp_path, create, parallel=2)
    steps: list[Step] = []
    source = photo(tmp_path)
    work = [asyncio.create_task(make(maker, source)) for _ in range(5)]
    await until(lambda: create.at_once == 2)
    last = maker.make(source, tmp_path / "uploads", AvatarRequest(), SourceLimits(), steps.append)
    work.append(asyncio.create_task(last))
    await until(lambda: steps)
    assert steps[0].stage == "wait"
    create.go_on.set()
    await asyncio.gather(*work)
    assert create.most <= 2 and len(create.made) == 6
    await maker.close()


async def test_a_full_queue_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory and time of the server are bounded."""
    monkeypatch.setattr(maker_module, "MAX_WAITING", 1)
    create = FakeCreation()
    create.held.set()
    maker, _, _ = making(tmp_path, create)
    first = asyncio.create_task(make(maker, photo(tmp_path)))
    await until(lambda: create.at_once == 1)
    with pytest.raises(BusyError, match="try again later"):
        await make(maker, photo(tmp_path))
    create.go_on.set()
    await first
    await maker.close()


async def test_sessions_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the server is over its capacity the work rests after each step, and still ends."""
    rests: list[object] = []
    monkeypatch.setattr(maker_module, "_rest", rests.append)
    maker, _, _ = making(tmp_path)
    await make(maker, photo(tmp_path))
    assert rests == []
    maker._is_busy = lambda: True
    await make(maker, photo(tmp_path))
    assert len(rests) == 3
    await maker.close()


async def test_a_cancelled_one_leaves_nothing(tmp_path: Path) -> None:
    """Its work stops, its id is free again, and the next one is made."""
    create = FakeCreation()
    create.held.set()
    maker, avatars, _ = making(tmp_path, create, parallel=1)
    task = asyncio.create_task(make(maker, photo(tmp_path)))
    await until(lambda: create.at_once == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert create.at_once == 0 and [one.id for one in avatars.list()] == ["ada"]
    create.go_on.set()
    assert (await make(maker, photo(tmp_path))).entry.id == "anna-smith"
    await maker.close()


class Gate:
    """Holds a function on its thread, which has done its work by then, until it is opened."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.begun, self.open = threading.Event(), threading.Event()

    def __call__(self, *args: object) -> object:
        result = self.function(*args)
        self.begun.set()
        assert self.open.wait(30)
        return result

    async def cancel(self, task: asyncio.Task[object]) -> None:
        """Cancel who waits for it."""
        assert await asyncio.to_thread(self.begun.wait, 30)
        task.cancel()
        await asyncio.sleep(0)
        self.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_who_leaves_while_an_id_is_chosen_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another client can have it then."""
    maker, avatars, _ = making(tmp_path)
    gate = Gate(avatars.taken)
    monkeypatch.setattr(avatars, "taken", gate)
    await gate.cancel(asyncio.create_task(make(maker, photo(tmp_path), id="anna")))
    assert (await make(maker, photo(tmp_path), id="anna")).entry.id == "anna"


async def test_who_leaves_while_an_upload_is_begun_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder stays."""
    maker, _, _ = making(tmp_path)
    gate = Gate(maker_module.open_upload)
    monkeypatch.setattr(maker_module, "open_upload", gate)
    await gate.cancel(asyncio.create_task(maker.open_upload("anna.jpg", 100)))
    assert list((tmp_path / "uploads").iterdir()) == []


async def test_a_stopping_server_waits_for_no_avatar(tmp_path: Path) -> None:
    """What is being made is given up at its next step."""
    create = FakeCreation()
    create.held.set()
    maker, avatars, _ = making(tmp_path, create)
    task = asyncio.create_task(make(maker, photo(tmp_path)))
    await until(lambda: create.at_once == 1)
    closing = asyncio.create_task(maker.close())
    await until(lambda: maker._stopping.is_set())
    create.go_on.set()
    await closing
    with pytest.raises(AvatarError, match="cancelled"):
        await task
    assert [one.id for one in avatars.list()] == ["ada"]


async def test_a_fault_of_a_reader_is_one_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server goes on; the traceback is in the log."""
    maker, _, _ = making(tmp_path)
    with caplog.at_level(logging.ERROR), pytest.raises(AvatarError, match="ZeroDivisionError"):
        await make(maker, photo(tmp_path, data=b"crash"))
    assert "Traceback" in caplog.text
    assert (await make(maker, photo(tmp_path))).entry.id == "anna-smith"
    await maker.close()


async def test_an_avatar_that_cannot_be_prepared_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is listed that cannot speak."""
    maker, avatars, _ = making(tmp_path)

    def fail(*args: object) -> None:
        raise AvatarError("the mouth is outside")

    monkeypatch.setattr(avatars, "get", fail)
    with pytest.raises(AvatarError, match="outside"):
        await make(maker, photo(tmp_path))
    assert [one.id for one in avatars.list()] == ["ada"]
    await maker.close()


async def test_renaming_and_deleting_are_told(tmp_path: Path) -> None:
    """A refusal is not."""
    maker, _, _ = making(tmp_path)
    made = await make(maker, photo(tmp_path))
    lists: list[Listing] = []
    maker.on_change(lists.append)
    await maker.rename(made.entry.id, "Eve")
    await maker.delete(made.entry.id)
    assert [[one.name for one in listing.avatars] for listing in lists] == [  # type: ignore[attr-defined]
        ["Ada", "Eve"],
        ["Ada"],
    ]
    with pytest.raises(AvatarError):
        await maker.delete("ada")
    assert len(lists) == 2
    await maker.close()


class SlowAvatars(FakeAvatars):
    """Avatars of which none is prepared yet; ``old`` cannot be."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.prepared: list[str] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def get(
        self, avatar_id: str, progress: Progress | None = None, *, background: str | None = None
    ) -> PreparedAvatar:
        if avatar_id == "old":
            raise AvatarError("old: frame 3: no lower face inside the picture")
        self.begun.set()
        while not self.go_on.wait(0.002):
            assert progress is not None
            progress(1, 2)
        self.prepared.append(avatar_id)
        return super().get(avatar_id)


async def test_avatars_are_prepared_before_anybody_wants_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first so many of the list; one that cannot be is logged and stops no other."""
    avatars = SlowAvatars("ada", "bob", "old", "eve", "zoe")
    avatars.go_on.set()
    maker = AvatarMaker(AvatarSettings(), avatars, FakeCreation())
    await maker.prepare(4)
    assert avatars.prepared == ["ada", "bob", "eve"]
    assert "avatar old cannot be used: old: frame 3" in caplog.text
    await maker.close()


async def test_preparing_ends_with_the_server(tmp_path: Path) -> None:
    """In the middle of an avatar, and without a word about it."""
    avatars = SlowAvatars("ada", "bob")
    maker = AvatarMaker(AvatarSettings(), avatars, FakeCreation())
    preparing = asyncio.create_task(maker.prepare(8))
    await asyncio.to_thread(avatars.begun.wait, 30)
    await maker.close()
    await preparing
    assert avatars.prepared == []
