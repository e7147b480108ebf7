"""Avatars made, renamed and deleted over the WebSocket, beside a conversation."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.avatar_jobs.fakes import FakeCreation, making
from tests.helpers import Client, client, fake_engine, get, running, settings
from tests.serve.test_resume import calling
from tests.session.held import Clock
from wsavatar.avatar_jobs.dropped import DroppedFiles
from wsavatar.avatar_jobs.failures import KnownFailures
from wsavatar.protocol.avatar_events import MAX_PIECE_BYTES, WINDOW_BYTES
from wsavatar.serve.avatar_making import _version
from wsavatar.serve.server import AvatarServer
from wsavatar.session import avatar_making

PHOTO = os.urandom(300_000)


@contextlib.asynccontextmanager
async def serving(
    tmp_path: Path, create: FakeCreation | None = None, **sections: Any
) -> AsyncIterator[AvatarServer]:
    """A server whose clients may make avatars."""
    limits = sections.pop("limits", {})
    maker, avatars, places = making(tmp_path, create, **limits)
    engine = fake_engine(avatars=avatars, maker=maker)
    avatar_settings = sections.pop("avatars", {}) | {"uploads_directory": places.uploads_directory}
    async with running(engine, settings(avatars=avatar_settings, **sections)) as server:
        yield server


async def begin(me: Client, data: bytes, name: str = "Anna.jpg", **fields: Any) -> dict[str, Any]:
    await me.send("avatar.create", file_name=name, size=len(data), **fields)
    return await me.until("avatar.create.ready")


async def append(me: Client, upload_id: str, offset: int, data: bytes) -> None:
    text = base64.b64encode(data).decode()
    await me.send("avatar.create.append", upload_id=upload_id, offset=offset, data=text)


async def upload(me: Client, data: bytes, **fields: Any) -> str:
    """Send a file as the page on the protocol says; returns the upload's id."""
    ready = await begin(me, data, **fields)
    id, piece = ready["upload_id"], ready["max_piece_bytes"]
    sent = received = 0
    while received < len(data):
        while sent < len(data) and sent + piece - received <= ready["window_bytes"]:
            await append(me, id, sent, data[sent : sent + piece])
            sent = min(len(data), sent + piece)
        received = (await me.until("avatar.create.received"))["received_bytes"]
    await me.send("avatar.create.commit", upload_id=id)
    return id


def left(tmp_path: Path) -> list[str]:
    """What is in the uploads' directory."""
    directory = tmp_path / "uploads"
    return sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []


async def gone(tmp_path: Path) -> None:
    """Nothing of an upload is left."""
    async with asyncio.timeout(30):
        while any(name.startswith(".upload-") for name in left(tmp_path)):  # noqa: ASYNC110
            await asyncio.sleep(0.005)


# -- making one -----------------------------------------------------------------------------------


async def test_a_file_becomes_an_avatar_that_speaks(tmp_path: Path) -> None:
    """In pieces, acknowledged; the new avatar can be chosen at once, and everybody is told."""
    create = FakeCreation()
    async with (
        serving(tmp_path, create) as server,
        client(server) as me,
        client(server, "?avatar=ada") as other,
        client(server) as strict,
    ):
        id = await upload(me, PHOTO, name="Anna Smith.jpg")
        created = await me.until("avatar.created")
        assert created["upload_id"] == id
        assert created["avatar"]["id"] == "anna-smith" and created["avatar"]["removable"]
        assert created["notes"] == ["Anna Smith.jpg: face 2 takes the other."]
        assert base64.b64decode(created["preview"]).startswith(b"\xff\xd8")
        assert create.made == [PHOTO]
        steps = [(one["stage"], one["total"]) for one in me.events("avatar.create.progress")]
        assert steps == [("look", 1), ("write", 2), ("prepare", 8)]
        listed = await other.until("avatar.list.updated")
        assert [one["id"] for one in listed["avatars"]] == ["ada", "anna-smith"]
        assert listed["default"] == "ada"
        await me.send("session.update", session={"avatar": {"id": "anna-smith"}})
        assert (await me.until("session.updated"))["session"]["avatar"]["id"] == "anna-smith"
        await me.send("avatar.speak", text="440 1")
        assert (await me.until("response.done"))["response"]["status"] == "completed"
        await strict.send("input_audio_buffer.clear")
        await strict.until("input_audio_buffer.cleared")
        assert [k for k in strict.kinds() if k.startswith("avatar")] == []
    assert left(tmp_path) == ["anna-smith"]


async def test_an_unfit_file_is_explained(tmp_path: Path) -> None:
    """In one sentence, without the server's paths; the next upload works."""
    async with serving(tmp_path) as server, client(server) as me:
        for data, says in ((b"no face", "cat.jpg: no face was found"), (b"crash", "ZeroDivision")):
            id = await upload(me, data, name="cat.jpg")
            failed = await me.until("avatar.create.failed")
            assert failed["upload_id"] == id
            assert failed["error"]["code"] == "avatar_unfit"
            assert says in failed["error"]["message"] and str(tmp_path) not in str(failed)
        await upload(me, b"anna")
        await me.until("avatar.created")
    assert left(tmp_path) == ["anna"]


async def test_a_conversation_goes_on_meanwhile(tmp_path: Path) -> None:
    """While a file is made an avatar of, the same session listens and speaks."""
    create = FakeCreation()
    create.held.set()
    async with serving(tmp_path, create) as server, client(server) as me:
        await upload(me, PHOTO)
        await me.until("avatar.create.progress")
        await me.send("avatar.speak", text="440 1")
        done = await me.until("response.done")
        assert done["response"]["status"] == "completed" and len(me.frames()) == 25
        create.go_on.set()
        await me.until("avatar.created")


async def test_pieces_do_not_wait_for_the_conversation(tmp_path: Path) -> None:
    """Nor it for them: a dialogue that takes no more leaves the upload alone."""
    async with serving(tmp_path) as server, client(server) as me:
        ready = await begin(me, b"anna")
        [session] = server._sessions
        session._inbox._has_space = lambda: False  # type: ignore[method-assign]
        await append(me, ready["upload_id"], 0, b"anna")
        await me.send("avatar.create.commit", upload_id=ready["upload_id"])
        await me.until("avatar.created")


# -- what goes wrong on the way -------------------------------------------------------------------


async def test_more_than_the_window_is_refused(tmp_path: Path) -> None:
    """A client that does not wait for acknowledgements fills no memory; its file has a gap then."""
    async with serving(tmp_path) as server, client(server) as me:
        data = os.urandom(WINDOW_BYTES * 4)
        id = (await begin(me, data))["upload_id"]
        [session] = server._sessions
        held = asyncio.Event()
        following = session.avatars._next

        async def slow() -> Any:
            await held.wait()
            return await following()

        session.avatars._next = slow  # type: ignore[method-assign]
        for offset in range(0, len(data), MAX_PIECE_BYTES):
            await append(me, id, offset, data[offset : offset + MAX_PIECE_BYTES])
        assert (await me.error())["code"] == "upload_too_fast"
        assert session.avatars._queued_bytes <= WINDOW_BYTES
        held.set()
        await append(me, id, len(data), b"more")
        failed = await me.until("avatar.create.failed")
        assert "piece is missing" in failed["error"]["message"]
        await gone(tmp_path)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"size": 0}, "invalid_value"),
        ({"size": 1.5}, "invalid_type"),
        ({"size": 2 << 40}, "avatar_refused"),
        ({"file_name": ""}, "invalid_value"),
        ({"file_name": "x" * 256}, "too_long"),
        ({"id": "../ada"}, "invalid_value"),
        ({"id": "Ada"}, "invalid_value"),
        ({"face": 0}, "invalid_value"),
        ({"name": "x" * 101}, "too_long"),
        ({"name": " "}, "invalid_value"),
        ({"name": "two\nlines"}, "invalid_value"),
        ({"colour": "red"}, "unknown_parameter"),
    ],
)
async def test_what_is_said_of_a_file_is_checked(
    tmp_path: Path, fields: dict[str, Any], code: str
) -> None:
    """Before anything is sent or stored."""
    async with serving(tmp_path) as server, client(server) as me:
        asked = {"file_name": "a.jpg", "size": 4} | fields
        await me.send("avatar.create", event_id="mine", **asked)
        error = await me.error()
        assert (error["code"], error["event_id"]) == (code, "mine")
    assert left(tmp_path) == []


async def test_one_file_at_a_time(tmp_path: Path) -> None:
    """A second one is refused, a piece of another is, and one that is too large."""
    async with serving(tmp_path) as server, client(server) as me:
        id = (await begin(me, b"anna"))["upload_id"]
        await me.send("avatar.create", file_name="b.jpg", size=4)
        assert (await me.error())["code"] == "upload_active"
        await append(me, "upload_other", 0, b"anna")
        assert (await me.error())["code"] == "upload_not_found"
        await append(me, id, 0, bytes(MAX_PIECE_BYTES + 1))
        assert (await me.error())["code"] == "too_long"
        await append(me, id, 0, b"anna")
        await me.send("avatar.create.commit", upload_id=id)
        await me.send("avatar.create.commit", upload_id=id)
        assert (await me.error())["code"] == "upload_not_found"
        await me.until("avatar.created")


async def test_an_incomplete_file_is_not_made(tmp_path: Path) -> None:
    """A commit before the end says what is missing."""
    async with serving(tmp_path) as server, client(server) as me:
        id = (await begin(me, b"anna"))["upload_id"]
        await append(me, id, 0, b"an")
        await me.send("avatar.create.commit", upload_id=id)
        failed = await me.until("avatar.create.failed")
        assert "only 2 of 4 bytes" in failed["error"]["message"]
        await gone(tmp_path)


@pytest.mark.parametrize("is_made", [False, True])
async def test_a_cancel_stops_it(tmp_path: Path, is_made: bool) -> None:
    """While it is sent, and while it is made; pieces still on their way are no mistake."""
    create = FakeCreation()
    create.held.set()
    async with serving(tmp_path, create) as server, client(server) as me:
        if is_made:
            id = await upload(me, b"anna")
            await me.until("avatar.create.progress")
        else:
            id = (await begin(me, b"anna"))["upload_id"]
        await me.send("avatar.create.cancel", upload_id=id)
        assert (await me.until("avatar.create.failed"))["error"]["code"] == "cancelled"
        await append(me, id, 0, b"anna")
        create.go_on.set()
        await upload(me, b"bob", name="bob.jpg")
        await me.until("avatar.created")
        assert me.events("error") == []
    assert left(tmp_path) == ["bob"]


@pytest.mark.parametrize("is_made", [False, True])
async def test_a_client_that_leaves_leaves_nothing(tmp_path: Path, is_made: bool) -> None:
    """A cut connection cancels: no file, no avatar, no work that goes on."""
    create = FakeCreation()
    create.held.set()
    async with serving(tmp_path, create) as server:
        async with client(server) as me:
            if is_made:
                await upload(me, b"anna")
                await me.until("avatar.create.progress")
            else:
                await begin(me, b"anna")
        await gone(tmp_path)
        assert left(tmp_path) == [] and create.at_once == 0


async def test_a_stalled_upload_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its place is for others."""
    monkeypatch.setattr(avatar_making, "STALLED_S", 0.05)
    async with serving(tmp_path) as server, client(server) as me:
        await begin(me, b"anna")
        assert (await me.until("avatar.create.failed"))["error"]["code"] == "upload_stalled"
        await gone(tmp_path)


async def test_an_upload_survives_a_lost_connection(tmp_path: Path) -> None:
    """A client that comes back sends again what did not arrive, and the file is whole."""
    create = FakeCreation()
    async with serving(tmp_path, create) as server, calling(server) as me:
        piece = 32 * 1024
        id = (await begin(me, PHOTO))["upload_id"]
        for number, offset in enumerate(range(0, len(PHOTO), piece)):
            if number == 4:
                me.lose()
            await append(me, id, offset, PHOTO[offset : offset + piece])
            if number < 4:
                await me.until("avatar.create.received")
        await me.return_()
        while (await me.until("avatar.create.received"))["received_bytes"] < len(PHOTO):
            pass
        await me.send("avatar.create.commit", upload_id=id)
        await me.until("avatar.created")
    assert create.made == [PHOTO]


async def test_small_messages_make_small_pieces(tmp_path: Path) -> None:
    """A piece always fits into the largest message that the server takes."""
    server_settings = {"max_message_bytes": 8192}
    async with (
        serving(tmp_path, server=server_settings) as server,
        client(server) as me,
    ):
        await upload(me, os.urandom(30_000))
        await me.until("avatar.created")


# -- renaming, deleting, listing ------------------------------------------------------------------


async def test_an_avatar_is_renamed_and_deleted(tmp_path: Path) -> None:
    """Everybody gets the new list; over HTTP it is the same."""
    async with serving(tmp_path) as server, client(server) as me:
        await upload(me, b"anna")
        await me.until("avatar.created")
        await me.send("avatar.rename", avatar_id="anna", name="Eve")
        names = [one["name"] for one in (await me.until("avatar.list.updated"))["avatars"]]
        assert names == ["Ada", "Eve"]
        assert (await me.until("avatar.renamed"))["name"] == "Eve"
        assert [one["name"] for one in (await get(server, "/api/avatars")).json["avatars"]] == names
        assert (await get(server, "/avatars/anna/idle.bin")).status == 200
        await me.send("avatar.delete", avatar_id="anna")
        assert len((await me.until("avatar.list.updated"))["avatars"]) == 1
        assert (await me.until("avatar.deleted"))["avatar_id"] == "anna"
        assert (await get(server, "/avatars/anna/idle.bin")).status == 404
        await me.send("avatar.list")
        assert [one["id"] for one in (await me.until("avatar.list.updated"))["avatars"]] == ["ada"]


async def test_who_shows_a_deleted_avatar_may_say_its_id_again(tmp_path: Path) -> None:
    """A present value changes nothing. Another background can no longer be had, which is said of
    the background."""
    async with serving(tmp_path) as server, client(server) as me:
        await upload(me, b"anna")
        await me.until("avatar.created")
        await me.send("session.update", session={"avatar": {"id": "anna"}})
        await me.until("session.updated")
        await me.send("avatar.delete", avatar_id="anna")
        await me.until("avatar.deleted")
        for asked in ({"id": "anna"}, {"id": "anna", "video": {"background": "original"}}, {}):
            await me.send("session.update", session={"avatar": asked})
            updated = await me.until("session.updated")
            assert updated["session"]["avatar"]["id"] == "anna"
        for asked in ({"id": "anna"}, {}):
            video = {"background": "#ff0000"}
            await me.send("session.update", session={"avatar": asked | {"video": video}})
            error = await me.error()
            assert error["code"] == "background_unavailable"
            assert error["param"] == "session.avatar.video.background"
            assert error["message"].startswith("'anna' was deleted: it can have only the backgr")
        await me.send("session.update", session={"avatar": {"id": "eve"}})
        assert (await me.error())["code"] == "avatar_not_found"


@pytest.mark.parametrize("name", ["", " ", "\u202e", "x" * 101])
async def test_a_name_can_be_read(tmp_path: Path, name: str) -> None:
    """Blank names and invisible characters would leave people without a name to choose."""
    async with serving(tmp_path) as server, client(server) as me:
        await me.send("avatar.rename", avatar_id="anna", name=name)
        assert (await me.error())["param"] == "name"


@pytest.mark.parametrize("id", ["ada", "nobody", "../uploads", "anna/../ada"])
async def test_configured_avatars_cannot_be_changed(tmp_path: Path, id: str) -> None:
    """Nor unknown ones: an error, with the event's id."""
    async with serving(tmp_path) as server, client(server) as me:
        for kind, fields in (("delete", {}), ("rename", {"name": "Eve"})):
            await me.send(f"avatar.{kind}", avatar_id=id, event_id="mine", **fields)
            error = await me.error()
            assert (error["code"], error["event_id"]) == ("avatar_refused", "mine")


def test_another_detector_tries_all_files_again() -> None:
    """What is remembered of files depends on what finds faces, and on nothing that changes."""
    embedded, dwpose = settings(), settings(avatars={"landmarks": "dwpose"})
    assert _version(embedded) == _version(embedded) != _version(dwpose)


async def test_files_in_the_folder_are_told_to_clients(tmp_path: Path) -> None:
    """The new list to every session that knows avatars; over HTTP also what could not be made."""
    maker, avatars, places = making(tmp_path)
    clock = Clock()

    async def pause() -> None:
        clock.now_s += 10
        await asyncio.sleep(0)

    known = KnownFailures(tmp_path / "cache", "")
    dropped = DroppedFiles(
        maker, [tmp_path / "uploads"], lambda: False, known, clock=clock, pause=pause
    )
    (tmp_path / "uploads").mkdir()
    (tmp_path / "uploads" / "cat.jpg").write_bytes(b"no face")
    engine = fake_engine(avatars=avatars, maker=maker, dropped=dropped)
    chosen = settings(avatars={"uploads_directory": places.uploads_directory})
    async with running(engine, chosen) as server, client(server, "?avatar=ada") as me:
        (tmp_path / "uploads" / "anna.jpg").write_bytes(b"anna")
        listed = await me.until("avatar.list.updated")
        assert [one["id"] for one in listed["avatars"]] == ["ada", "anna"]
        async with asyncio.timeout(30):
            while not (failed := (await get(server, "/api/avatars")).json["failed"]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert [one["file"] for one in failed] == ["cat.jpg"]
    assert "no face was found" in failed[0]["problem"] and str(tmp_path) not in str(failed)


# -- who may --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("avatars", "server", "host", "may"),
    [
        ({}, {}, "localhost:1", True),
        ({}, {}, "127.0.0.1", True),
        ({}, {}, "avatar.example", False),  # a proxy before it, or a name that points here
        ({}, {"host": "0.0.0.0"}, "127.0.0.1", False),
        ({}, {"auth_tokens": ["secret"], "host": "0.0.0.0"}, "avatar.example", True),
        ({"uploads": "on"}, {"host": "0.0.0.0"}, "avatar.example", True),
        ({"uploads": "off"}, {"auth_tokens": ["secret"]}, "localhost", False),
    ],
)
async def test_who_may_change_avatars(
    tmp_path: Path, avatars: dict[str, Any], server: dict[str, Any], host: str, may: bool
) -> None:
    """By default who has shown a token, or uses the machine that the server listens on alone."""
    headers = {"Host": host, "Authorization": "Bearer secret"}
    async with serving(tmp_path, avatars=avatars, server=server) as running_server:
        listed = (await get(running_server, "/api/avatars", headers=headers)).json
        assert (listed["uploads"] is not None) is may
        del headers["Host"]
        async with client(running_server, additional_headers=headers) as me:
            [session] = running_server._sessions
            if not may:
                session.avatars._is_allowed = running_server._admission.may_change_avatars(host)
            await me.send("avatar.create", file_name="a.jpg", size=4)
            if may:
                await me.until("avatar.create.ready")
            else:
                assert (await me.error())["code"] == "avatars_locked"
