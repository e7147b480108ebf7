"""Plain HTTP on the server's port: page, avatars, statistics, the protocol's document."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.fake_avatars import PERSON, FakeAvatars, avatar
from tests.fake_dialogue import FakeSpeech
from tests.helpers import client, fake_engine, get, running, served_well, settings
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.format import AvatarError
from wsavatar.dialogue.engine import EngineStatus
from wsavatar.media import jpeg
from wsavatar.media.video import open_video
from wsavatar.serve.avatar_files import AvatarFiles
from wsavatar.serve.server import AvatarServer


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[AvatarServer]:
    page = tmp_path / "page"
    (page / "js").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html><title>page</title>")
    (page / "js" / "app.js").write_text("export {};")
    (tmp_path / "secret.txt").write_text("secret")
    (page / "link.txt").symlink_to(tmp_path / "secret.txt")
    (page / ".hidden").write_text("secret")
    video = tmp_path / "idle.mp4"
    video.write_bytes(bytes(range(256)) * 40)
    poster = tmp_path / "poster.jpg"
    poster.write_bytes(jpeg.encode(np.zeros((32, 32, 3), np.uint8)))
    avatars = FakeAvatars("ada", "bob", video=video, poster=poster)
    async with running(fake_engine(avatars=avatars), frontend=page) as started:
        yield started


async def test_the_page_is_served_as_modules(site: AvatarServer) -> None:
    """``/`` is the page; scripts have a content type that browsers accept for modules."""
    index = await get(site, "/")
    assert (index.status, index.headers["content-type"]) == (200, "text/html; charset=utf-8")
    script = await get(site, "/js/app.js?v=1")
    assert script.headers["content-type"].startswith("text/javascript")
    assert script.headers["x-content-type-options"] == "nosniff"
    again = await get(site, "/js/app.js", headers={"If-None-Match": script.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/js/..%2f..%2fsecret.txt",
        "/js/%5c..%5csecret.txt",
        "/link.txt",
        "/.hidden",
        "/js",
        "/nothing.html",
        "/%00",
        "/%ff",
        "//secret.txt",
        "/avatars/../ada/idle.mp4",
        "/avatars/nobody/idle.mp4",
        "/avatars/ada/avatar.py",
        "/avatars/ada",
    ],
)
async def test_no_path_leaves_the_page(site: AvatarServer, path: str) -> None:
    """Only files of the page and of avatars are read, whatever the path; the rest is 404."""
    answer = await get(site, path)
    assert answer.status == 404
    assert b"secret\n" not in answer.body


async def test_the_voices_to_choose(site: AvatarServer) -> None:
    """Each with the name that a session asks for, its language and engine; none without engines."""
    async with running(fake_engine(speech=FakeSpeech())) as server:
        assert (await get(server, "/api/voices")).json == {
            "voices": [{"id": "coral", "name": "Coral", "language": "en-US", "engine": "openai"}],
            "complete": False,
        }
    assert (await get(site, "/api/voices")).json == {"voices": [], "complete": True}


async def test_the_engines_there_are(site: AvatarServer) -> None:
    """Each with its kind, name, problem and note, and whether it is ready; none without engines."""
    async with running(fake_engine(speech=FakeSpeech())) as server:
        listed = (await get(server, "/api/engines")).json
    assert [one["name"] for one in listed] == ["a good ear", "a clever model"]
    assert listed[0] == {
        "kind": "asr",
        "name": "a good ear",
        "problem": "",
        "note": "",
        "ready": False,
    }
    assert (await get(site, "/api/engines")).json == []


async def test_no_answer_tells_a_folder_of_the_server(site: AvatarServer) -> None:
    """Neither where an avatar's files are damaged, nor where an engine is not set up."""

    class Unset(FakeSpeech):
        def status(self) -> list[EngineStatus]:
            return [EngineStatus("asr", "an ear", problem="asr.model: /srv/models/tiny: is empty")]

    class Damaged(FakeAvatars):
        def idle_video(self, avatar_id: str) -> Path:
            raise AvatarError("/srv/avatars/ada/idle.mp4: no such file")

    async with running(fake_engine(speech=Unset(), avatars=Damaged("ada"))) as server:
        answer = await get(server, "/avatars/ada/idle.mp4")
        assert (answer.status, answer.text.strip()) == (404, "idle.mp4: no such file")
        (engine,) = (await get(server, "/api/engines")).json
        assert engine["problem"] == "asr.model: tiny: is empty"


async def test_methods(site: AvatarServer) -> None:
    """HEAD has headers only, OPTIONS the allowed methods; any other method is 405."""
    whole, head = await get(site, "/"), await get(site, "/", "HEAD")
    assert head.status == 200
    assert head.body == b""
    assert head.headers["content-length"] == str(len(whole.body))
    refused = await get(site, "/", "DELETE")
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
    asked = await get(site, "/", "OPTIONS")
    assert (asked.status, asked.headers["allow"]) == (204, "GET, HEAD, OPTIONS")
    assert "content-length" not in asked.headers


async def test_a_plain_get_of_the_endpoint_says_that_it_is_a_websocket(site: AvatarServer) -> None:
    """A GET of the endpoint explains that it is a WebSocket; HEAD has no body."""
    answer = await get(site, "/v1/realtime")
    assert answer.status == 426
    head = await get(site, "/v1/realtime", "HEAD")
    assert (head.status, head.headers["upgrade"], head.body) == (426, "websocket", b"")


@pytest.mark.parametrize("path", ["/api/avatars", "/avatars/ada/idle.bin", "/readyz", "/none"])
async def test_pages_elsewhere_may_read_where_the_settings_say_so(path: str) -> None:
    """A page of `server.allowed_origins` reads lists and pictures (CORS); no other page does."""
    chosen = settings(server={"allowed_origins": ["https://Shop.example/"]})
    async with running(fake_engine(), chosen) as server:
        ours = (await get(server, path, headers={"Origin": "https://shop.example"})).headers
        assert ours["access-control-allow-origin"] == "https://shop.example"
        assert ours["cross-origin-resource-policy"] == "cross-origin"
        for origin in ("https://shop.example.evil.example", "http://shop.example", "null"):
            other = (await get(server, path, headers={"Origin": origin})).headers
            assert "access-control-allow-origin" not in other
            assert other["cross-origin-resource-policy"] == "same-origin"
            assert other["vary"] == "Origin", "a cache would give one page's answer to another"
        asked = await get(server, path, "OPTIONS", {"Origin": "https://shop.example"})
        assert (asked.status, asked.headers["access-control-allow-methods"]) == (204, "GET, HEAD")


async def test_no_page_elsewhere_may_read_unless_it_is_listed(site: AvatarServer) -> None:
    """Without the setting no answer has a CORS header."""
    headers = (await get(site, "/api/avatars", headers={"Origin": "https://shop.example"})).headers
    assert not [name for name in headers if name.startswith("access-control")]


async def test_a_video_is_served_in_ranges(site: AvatarServer) -> None:
    """Browsers play and seek only where ranges work: from, to, suffix, and out of bounds."""
    path, size = "/avatars/ada/idle.mp4", 256 * 40
    whole = await get(site, path)
    assert (whole.status, len(whole.body)) == (200, size)
    assert whole.headers["accept-ranges"] == "bytes"
    wanted = {
        "bytes=0-": whole.body,
        "bytes=10-19": whole.body[10:20],
        "bytes=-5": whole.body[-5:],
        "bytes=10200-99999": whole.body[10200:],
    }
    for header, body in wanted.items():
        part = await get(site, path, headers={"Range": header})
        assert (part.status, part.body) == (206, body), header
        first = size - 5 if header == "bytes=-5" else int(header[6:].split("-")[0])
        assert part.headers["content-range"] == f"bytes {first}-{first + len(body) - 1}/{size}"
    beyond = await get(site, path, headers={"Range": f"bytes={size}-"})
    assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    several = await get(site, path, headers={"Range": "bytes=0-1,5-6"})
    assert several.status == 200


async def test_avatars_are_listed_with_their_whole_idle_cycle(site: AvatarServer) -> None:
    """The page learns each avatar's size and gets its source frames as binary messages."""
    from wsavatar.protocol.binary import unpack

    listed = (await get(site, "/api/avatars")).json
    assert (listed["default"], listed["videos"]) == ("ada", False)
    assert [one["id"] for one in listed["avatars"]] == ["ada", "bob"]
    about = (await get(site, "/avatars/bob/avatar.json")).json
    assert (about["width"], about["height"], about["fps"], about["frame_count"]) == (32, 32, 25, 8)
    body, messages = (await get(site, "/avatars/bob/idle.bin")).body, []
    while body:
        length = int.from_bytes(body[:4], "little")
        messages.append(unpack(body[4 : 4 + length]))
        body = body[4 + length :]
    assert [one.index for one in messages] == list(range(8))
    assert all(one.payload[:2] == b"\xff\xd8" for one in messages)
    assert messages[3].pts_us == 120_000


async def test_the_idle_cycle_before_another_background(site: AvatarServer) -> None:
    """As a session's frames: in the format that is asked for, which its messages name."""
    from wsavatar.protocol.binary import unpack

    def first(body: bytes) -> np.ndarray:
        message = unpack(body[4 : 4 + int.from_bytes(body[:4], "little")])
        assert message.codec == codec
        return cv2.imdecode(np.frombuffer(message.payload, np.uint8), cv2.IMREAD_UNCHANGED)

    listed = (await get(site, "/api/avatars")).json["background"]
    assert listed == {
        "name": "original", "codec": "jpeg", "codecs": ["jpeg", "webp", "png"], "choose": True
    }  # fmt: skip
    idle = "/avatars/ada/idle.bin"
    for codec in ("webp", "png"):
        query = f"?background=transparent&codec={codec}"
        assert (first((await get(site, idle + query)).body)[..., 3] == PERSON).all()
    codec = "jpeg"
    corner = first((await get(site, f"{idle}?background=%230000ff")).body)[2, 2]
    assert np.abs(corner.astype(int) - (255, 0, 0)).max() < 24  # OpenCV's blue
    for query, says in {
        "background=transparent&codec=jpeg": b"JPEG pictures cannot be transparent",
        "background=blue": b"write original, transparent, or a colour",
        "codec=avif": b"pictures are jpeg, webp, png",
    }.items():
        refused = await get(site, f"{idle}?{query}")
        assert refused.status == 404 and says in refused.body


async def test_the_idle_video_and_the_poster_have_the_background_too(
    site: AvatarServer, tmp_path: Path
) -> None:
    """So nothing jumps between rest and speech. Where an MP4 or a JPEG cannot be transparent, a
    WebM and a WebP come; parts can be asked for as of the avatar's own files."""
    own = (await get(site, "/avatars/ada/idle.mp4")).body
    assert own == (tmp_path / "idle.mp4").read_bytes()
    for background, kind in {"%230000ff": "video/mp4", "transparent": "video/webm"}.items():
        path = f"/avatars/ada/idle.mp4?background={background}"
        video = await get(site, path)
        while video.status == 503:  # on a busy machine
            video = await get(site, path)
        assert (video.status, video.headers["content-type"]) == (200, kind)
        (tmp_path / "got").write_bytes(video.body)
        with open_video(tmp_path / "got", alpha=True) as (info, shown):
            corners = [picture[2, 2] for _, picture in shown]
        assert (len(corners), info.fps) == (8, 25)
        for corner in corners:
            assert corner[-1] < 24 if kind == "video/webm" else corner[2] > 200 > 60 > corner[0]
        part = await get(site, path, headers={"Range": "bytes=4-7"})
        assert (part.status, part.body) == (206, video.body[4:8])
        again = await get(site, path, headers={"If-None-Match": video.headers["etag"]})
        assert again.status == 304
    for background, kind in {"%230000ff": "image/jpeg", "transparent": "image/webp"}.items():
        poster = await get(site, f"/avatars/ada/poster.jpg?background={background}")
        assert poster.headers["content-type"] == kind
        made = cv2.imdecode(np.frombuffer(poster.body, np.uint8), cv2.IMREAD_UNCHANGED)
        corner = made[2, 2]  # OpenCV's blue is first
        assert corner[3] == 0 if kind == "image/webp" else corner[0] > 200 > 60 > corner[2]


async def test_what_waits_for_a_person_to_be_found_says_how_far_that_is(
    site: AvatarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once: no request is held up by the search. A poster is the avatar's own until then."""
    assert site._engine is not None
    search: Future[Any] = Future()
    for name, answer in {"cut_out": search, "finding": (45, 225), "still": None}.items():
        monkeypatch.setattr(site._engine.avatars, name, lambda *_, answer=answer: answer)
    for name in ("idle.bin", "idle.mp4"):
        waiting = await get(site, f"/avatars/ada/{name}?background=transparent&codec=webp")
        assert (waiting.status, waiting.headers["retry-after"]) == (503, "1")
        assert waiting.json["progress"] == "finding the person: 45 of 225 pictures"
    poster = await get(site, "/avatars/ada/poster.jpg?background=transparent")
    assert (poster.status, poster.headers["content-type"]) == (200, "image/jpeg")


async def test_pictures_that_take_long_are_to_be_asked_for_again(
    site: AvatarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where masks are to be made: a request does not wait for minutes, and the work goes on."""
    gate = threading.Event()
    make = AvatarFiles._make

    def slow(self: AvatarFiles, *args: Any) -> Any:
        assert gate.wait(30)
        return make(self, *args)

    monkeypatch.setattr(AvatarFiles, "_make", slow)
    monkeypatch.setattr("wsavatar.serve.avatar_files._PATIENCE_S", 0.05)
    mine, other = (f"/avatars/ada/idle.bin?background=%23{one}" for one in ("111111", "222222"))
    for path in (mine, other):
        answer = await get(site, path)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    gate.set()
    async with asyncio.timeout(30):
        for path in (mine, other):
            while (answer := await get(site, path)).status == 503:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            assert answer.status == 200


async def test_an_avatar_that_is_deleted_meanwhile_is_not_found(
    site: AvatarServer, tmp_path: Path
) -> None:
    """Its file is gone between two looks at it."""
    (tmp_path / "idle.mp4").unlink()
    answer = await get(site, "/avatars/ada/idle.bin")
    assert (answer.status, answer.text) == (404, "no avatar 'ada'\n")


async def test_only_who_began_them_waits_for_pictures(
    site: AvatarServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask for them, other requests find a thread."""
    monkeypatch.setattr("wsavatar.serve.avatar_files._PATIENCE_S", 60)
    gate, begun = threading.Event(), threading.Event()
    make = AvatarFiles._make

    def slow(self: AvatarFiles, *args: Any) -> Any:
        begun.set()
        assert gate.wait(30)
        return make(self, *args)

    monkeypatch.setattr(AvatarFiles, "_make", slow)
    path = "/avatars/ada/idle.bin?background=%23111111"
    first = asyncio.create_task(get(site, path))
    assert await asyncio.to_thread(begun.wait, 30)
    assert (await get(site, path)).status == 503
    assert not first.done()
    gate.set()
    assert (await first).status == 200


async def test_pages_are_served_while_avatars_are_prepared() -> None:
    """However many sessions wait for one."""
    gate = threading.Event()
    waiting: list[str] = []

    class Slow(FakeAvatars):
        def get(self, avatar_id: str, *args: Any, **named: Any) -> PreparedAvatar:
            if avatar_id == "bob":
                waiting.append(avatar_id)
                assert gate.wait(30)
            return super().get(avatar_id, *args, **named)

        def cut_out(self, *_: Any) -> None:
            """No person is to be looked for."""

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    async with running(fake_engine(avatars=Slow("ada", "bob"))) as server:
        async with client(server) as one, client(server) as two:
            for me in (one, two):
                await me.send("session.update", session={"avatar": {"id": "bob"}})
            async with asyncio.timeout(20):
                while len(waiting) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /index.html HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " in await asyncio.wait_for(reader.readline(), 20)
            writer.close()
            gate.set()
            for me in (one, two):
                await me.until("session.updated")


async def test_an_avatar_made_anew_shows_its_new_pictures(
    site: AvatarServer, tmp_path: Path
) -> None:
    """Deleted and made again under the same id, it is not shown as it was."""
    before = (await get(site, "/avatars/bob/idle.bin")).body
    assert site._engine is not None
    site._engine.avatars._avatars["bob"] = avatar("bob", frame_count=3)  # type: ignore[attr-defined]
    assert (await get(site, "/avatars/bob/idle.bin")).body == before, "it is kept while its file is"
    (tmp_path / "idle.mp4").unlink()
    (tmp_path / "idle.mp4").write_bytes(b"another")
    assert len((await get(site, "/avatars/bob/idle.bin")).body) < len(before)


async def test_stats_and_metrics_have_the_same_numbers(site: AvatarServer) -> None:
    """The counters of a session are in /api/stats and in /metrics."""
    await served_well(site)
    stats = (await get(site, "/api/stats")).json
    assert stats["frames"]["sent"] == 25
    assert stats["audio"]["out_s"] == 1.0
    assert stats["responses"] == {"completed": 1}
    assert stats["first_frame_ms"]["count"] == 1
    text = (await get(site, "/metrics")).text
    assert "wsavatar_frames_sent_total 25.0" in text
    assert "wsavatar_audio_out_seconds_total 1.0" in text
    assert 'wsavatar_responses_total{status="completed"} 1.0' in text
    assert "wsavatar_renderer_streams 1.0" in text


async def test_the_protocol_is_described(site: AvatarServer) -> None:
    """/asyncapi.json is an AsyncAPI 3 document with valid references."""
    document = (await get(site, "/asyncapi.json")).json
    assert document["asyncapi"] == "3.0.0"
    names = {message["name"] for message in document["components"]["messages"].values()}
    assert {"session.update", "avatar.speak", "response.video.delta", "error"} <= names

    def check(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found = document
                for part in value["$ref"].removeprefix("#/").split("/"):
                    found = found[part]
            for one in value.values():
                check(one)
        elif isinstance(value, list):
            for one in value:
                check(one)

    check(document)
