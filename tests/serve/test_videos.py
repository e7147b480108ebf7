"""Videos ordered over the WebSocket and fetched over HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import io
import json
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed

from tests.fake_avatars import FakeAvatars
from tests.fake_dialogue import FakeSpeech, tone
from tests.fake_model import FakeModel, make_avatar
from tests.helpers import Client, client, fake_engine, running, settings
from tests.serve.test_resume import calling
from wsavatar.config import RenderSettings, VideoSettings
from wsavatar.media.audio import encode
from wsavatar.media.video import open_video
from wsavatar.render.pool import FacePool
from wsavatar.serve.server import AvatarServer
from wsavatar.videos.jobs import VideoJobs
from wsavatar.videos.maker import VideoMaker

LONG = "Hello there, and welcome. " * 5 + "Now the other half of it follows, as long as that. " * 2
"""A text that is said as three phrases."""


@contextlib.asynccontextmanager
async def server(
    tmp_path: Path,
    model: FakeModel | None = None,
    avatars: dict[str, Any] | None = None,
    **limits: Any,
) -> AsyncIterator[AvatarServer]:
    """A server with a real renderer of a model that draws numbers."""
    pool, faces = FacePool([model or FakeModel()], RenderSettings()), FakeAvatars(make_avatar())
    maker = VideoMaker(pool, faces, Fraction(25))
    videos = VideoJobs(VideoSettings(directory=tmp_path, **limits), maker)
    engine = fake_engine(face=pool, avatars=faces, speech=FakeSpeech(), videos=videos)
    chosen = settings(avatars=avatars or {})
    async with running(engine, chosen) as started:
        yield started


async def fetch(server: AvatarServer, path: str, **headers: str) -> tuple[int, str, bytes]:
    def get() -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        return reply.status, reply.getheader("Content-Type", ""), reply.read()

    return await asyncio.to_thread(get)


def frames_of(data: bytes, path: Path) -> int:
    path.write_bytes(data)
    with av.open(str(path)) as file:
        return len(list(file.decode(video=0)))


async def render(me: Client, **order: Any) -> dict[str, Any]:
    await me.send("avatar.render", **order)
    return await me.until("avatar.render.done", 30)


async def test_a_text_becomes_a_video_to_fetch(tmp_path: Path) -> None:
    """Progress, then a URL: frames and length are as told, and parts can be asked for."""
    async with server(tmp_path) as started, client(started) as me:
        _, _, listing = await fetch(started, "/api/avatars")
        assert json.loads(listing)["videos"] is True
        done = await render(me, text=LONG)
        (created,) = me.events("avatar.render.created")
        progress = me.events("avatar.render.progress")
        assert {one["render_id"] for one in progress} == {created["render_id"]}
        assert done["duration_ms"] == 1500 and done["frames"] == 38
        status, kind, data = await fetch(started, "/" + done["url"])
        assert (status, kind, len(data)) == (200, "video/mp4", done["bytes"])
        assert frames_of(data, tmp_path / "got.mp4") == 38
        part = await fetch(started, "/" + done["url"], Range="bytes=4-7")
        assert part == (206, "video/mp4", b"ftyp")


async def test_a_video_has_the_background_that_its_client_wants(tmp_path: Path) -> None:
    """The order's, else the session's; of an MP4, which cannot be transparent, a session's is not
    taken, and an order's refused."""
    async with server(tmp_path) as started, client(started) as me:
        video = {"background": "transparent", "codec": "webp"}
        await me.send("session.update", session={"avatar": {"video": video}})
        least = {}
        for name, order in {
            "mp4": {},
            "webm": {"format": "webm"},
            "blue": {"background": "#0000ff"},
        }.items():
            done = await render(me, text="Hello.", **order)
            _, _, data = await fetch(started, "/" + done["url"])
            path = tmp_path / done["url"].rpartition("/")[2]
            path.write_bytes(data)
            with open_video(path, alpha=True) as (_, shown):
                least[name] = next(shown).picture[2, 2]
        assert [len(pixel) for pixel in least.values()] == [3, 4, 3]
        assert least["webm"][3] < 20 and least["blue"][2] > 200 > 60 > least["mp4"][2]
        await me.send("avatar.render", text="Hello.", background="transparent")
        error = (await me.until("error"))["error"]
        assert (error["code"], error["param"]) == ("invalid_value", "format")


def png(width: int, height: int, colour: tuple[int, int, int]) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


async def test_a_picture_of_the_clients_own_is_behind_its_video(tmp_path: Path) -> None:
    """It comes with the order; what is no picture, is too large, or not allowed is said."""
    async with server(tmp_path) as started, client(started) as me:
        done = await render(me, text="Hello.", picture=png(40, 20, (0, 0, 250)))
        _, _, data = await fetch(started, "/" + done["url"])
        (tmp_path / "got.mp4").write_bytes(data)
        with open_video(tmp_path / "got.mp4") as (_, shown):
            corner = next(shown).picture[2, 2]
        assert corner[2] > 200 > 60 > corner[0]
        for picture, says in [
            (base64.b64encode(b"no picture").decode(), "the picture cannot be read; send a JPEG"),
            (png(5000, 4000, (0, 0, 0)), "over 16 million pixels; scale it down"),
        ]:
            await me.send("avatar.render", text="Hello.", picture=picture)
            error = (await me.until("avatar.render.failed"))["error"]
            assert error["code"] == "picture_unfit" and says in error["message"]
        for order, code in [
            ({"picture": base64.b64encode(bytes(2 * 2**20 + 1)).decode()}, "too_long"),
            ({"picture": png(4, 4, (0, 0, 0)), "background": "#00b140"}, "invalid_value"),
        ]:
            await me.send("avatar.render", text="Hello.", **order)
            error = (await me.until("error"))["error"]
            assert (error["code"], error["param"]) == (code, "picture")
    async with server(tmp_path, avatars={"choose_background": False}) as fixed, client(fixed) as me:
        await me.send("avatar.render", text="Hello.", picture=png(4, 4, (0, 0, 0)))
        assert "avatars.choose_background" in (await me.until("error"))["error"]["message"]


async def test_the_users_audio_becomes_a_video(tmp_path: Path) -> None:
    """An item with audio is the sound, at its own rate; here as a WebM."""
    async with server(tmp_path) as started, client(started) as me:
        audio = base64.b64encode(encode(tone(0.5, 200), "audio/pcm")).decode()
        item = {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_audio", "audio": audio}],
        }
        await me.send("conversation.item.create", item=item)
        added = await me.until("conversation.item.added")
        done = await render(me, item_id=added["item"]["id"], format="webm")
        status, kind, data = await fetch(started, "/" + done["url"])
        assert (status, kind) == (200, "video/webm")
        assert frames_of(data, tmp_path / "got.webm") == done["frames"] == 13


@pytest.mark.parametrize(
    ("order", "code"),
    [
        ({}, "invalid_value"),
        ({"text": "a", "item_id": "b"}, "invalid_value"),
        ({"text": "…"}, "nothing_to_say"),
        ({"item_id": "nothing"}, "item_not_found"),
        ({"text": "a", "format": "avi"}, "invalid_value"),
    ],
)
async def test_orders_that_make_no_sense_are_refused(
    tmp_path: Path, order: dict[str, str], code: str
) -> None:
    """With an error of the client's event; the session goes on."""
    async with server(tmp_path) as started, client(started) as me:
        await me.send("avatar.render", event_id="mine", **order)
        error = await me.error()
        assert error["event_id"] == "mine"
        assert error["code"] == code, error
        await render(me, text="Hello.")


async def test_what_cannot_be_made_is_said(tmp_path: Path) -> None:
    """An avatar that is not there, and a text that is too long to say."""
    async with server(tmp_path, max_s=0.6) as started, client(started) as me:
        for order, code in [
            ({"text": "Hello.", "avatar": "nobody"}, "avatar_not_found"),
            ({"text": LONG}, "video_too_long"),
        ]:
            await me.send("avatar.render", **order)
            failed = await me.until("avatar.render.failed")
            assert failed["error"]["code"] == code
        assert list_files(tmp_path) == []


def list_files(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


async def test_orders_end_with_a_cancel_and_with_their_session(tmp_path: Path) -> None:
    """Nothing is left of them, in the renderer and on the disk; a session has a limit of orders."""
    model = FakeModel()
    async with server(tmp_path, model) as started:
        model.gate.clear()
        async with client(started) as me:
            for _ in range(5):
                await me.send("avatar.render", text="Hello.")
            assert (await me.error())["code"] == "videos_busy"
            first = me.events("avatar.render.created")[0]["render_id"]
            await me.send("avatar.render.cancel", render_id=first)
            failed = await me.until("avatar.render.failed")
            assert (failed["render_id"], failed["error"]["code"]) == (first, "cancelled")
            await me.send("avatar.render.cancel", render_id=first)
            assert (await me.error())["code"] == "render_not_found"
        engine = started.engine
        assert engine is not None
        async with asyncio.timeout(30):
            while engine.renderer.stats()["streams"] or list_files(tmp_path):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        model.gate.set()
    assert list_files(tmp_path) == []


async def test_who_waits_for_a_video_is_not_idle(tmp_path: Path) -> None:
    """The session stays while its video is made, however long; then it is idle like any other."""
    model = FakeModel()
    async with server(tmp_path, model) as started, calling(started, "a") as me:
        model.gate.clear()
        await me.send("avatar.render", text="Hello.")
        await me.until("avatar.render.created")
        me.lose()
        [session] = started._sessions._open.values()
        session._idle_timeout_s = 0.1  # from the next connection on: now it has an order
        await me.return_()
        await asyncio.sleep(0.5)
        model.gate.set()
        await me.until("avatar.render.done")
        with pytest.raises(ConnectionClosed, match="idle"):
            await me.until("avatar.render.done")


async def test_live_speech_comes_before_videos(tmp_path: Path) -> None:
    """A conversation's frames are made next, though a video's have waited for longer."""
    model = FakeModel()
    async with server(tmp_path, model) as started, client(started) as me:
        model.gate.clear()
        await me.send("avatar.render", text=LONG)
        await asyncio.to_thread(model.entered.wait, 30)
        engine = started.engine
        assert engine is not None
        await me.send("avatar.speak", text="440 0.5")
        async with asyncio.timeout(30):
            while engine.renderer.stats()["streams"] < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        model.gate.set()
        await me.until("response.done")
        await me.until("avatar.render.done")
    video, live = model.heard[0][0], model.heard[1][0]
    assert live != video
    assert model.heard[2:] and model.heard[-1][0] == video


async def test_unknown_videos_are_not_found(tmp_path: Path) -> None:
    """Neither a guess, nor a path out of the folder, nor a file that is being written."""
    async with server(tmp_path) as started:
        for path in ("/videos/", "/videos/abc.mp4", "/videos/..%2f..%2fetc/passwd"):
            assert (await fetch(started, path))[0] == 404


async def test_a_server_without_videos_says_so(tmp_path: Path) -> None:
    """`videos.enabled` false: the event is refused, and no video is found."""
    async with running(fake_engine(speech=FakeSpeech())) as started, client(started) as me:
        await me.send("avatar.render", text="Hello.")
        assert (await me.error())["code"] == "unsupported_event"
        assert (await fetch(started, "/videos/abc.mp4"))[0] == 404
