"""A client chooses what is behind the avatar, and in which format its frames come."""

from __future__ import annotations

import base64
from concurrent.futures import Future
from typing import Any

import cv2
import numpy as np
import pytest

from tests.fake_avatars import PERSON, FakeAvatars
from tests.session.held import Held, holding
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.background import BackgroundError
from wsavatar.config import Settings
from wsavatar.protocol import binary
from wsavatar.protocol.events import ProtocolError, SessionConfig
from wsavatar.session.configuration import check_video, first_codec, may_wait


def ask(held: Held, **video: Any) -> None:
    held.line.say("session.update", session={"avatar": {"video": video}})


async def first_frame(held: Held) -> dict[str, Any]:
    held.line.say("avatar.speak", text="440 0.2")
    return await held.line.until("response.video.delta")


def picture(data: bytes) -> np.ndarray:
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    order = cv2.COLOR_BGRA2RGBA if found.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return cv2.cvtColor(found, order)


@pytest.mark.parametrize("codec", ["webp", "png"])
async def test_transparent_frames(codec: str) -> None:
    """session.updated shows what is in force; each frame names its format and has its alpha."""
    async with holding() as held:
        ask(held, background="transparent", codec=codec)
        shown = (await held.line.until("session.updated"))["session"]["avatar"]["video"]
        assert (shown["background"], shown["codec"]) == ("transparent", codec)
        frame = await first_frame(held)
        assert frame["codec"] == codec
        made = picture(base64.b64decode(frame["delta"]))
        assert (made[..., 3] == PERSON).all()


async def test_a_colour_in_jpeg_frames() -> None:
    """Any client can have it, whatever it can decode."""
    async with holding() as held:
        ask(held, background="#00B140")
        await held.line.until("session.updated")
        frame = await first_frame(held)
        assert frame["codec"] == "jpeg"
        corner = picture(base64.b64decode(frame["delta"]))[2, 2]
        assert np.abs(corner.astype(int) - (0, 0xB1, 0x40)).max() < 12


async def test_binary_frames_say_their_format() -> None:
    """In the lowest bits of their flags; who asks for nothing finds none set."""
    async with holding() as held:
        ask(held, background="transparent", codec="webp", encoding="binary")
        await held.line.until("session.updated")
        held.line.say("avatar.speak", text="440 0.2")
        await held.line.until("response.done")
        messages = [binary.unpack(one) for one in held.line.got if isinstance(one, bytes)]
        frames = [one for one in messages if one.type == binary.MessageType.FRAME]
        assert frames and {frame.codec for frame in frames} == {"webp"}
        assert all(frame.payload.startswith(b"RIFF") for frame in frames)


async def test_another_background_does_not_begin_the_idle_cycle_anew() -> None:
    """It is the same avatar: the head does not jump."""
    begun = []
    for background in ("original", "#000000"):
        async with holding() as held:
            held.clock.now_s += 0.12  # three frames
            ask(held, background=background)
            await held.line.until("session.updated")
            await first_frame(held)
            event = await held.line.until("session.avatar.switch_to_speaking")
            begun.append(event["cycle_index"])
    assert begun[0] == begun[1] > 0


@pytest.mark.parametrize(
    ("video", "param", "says"),
    [
        ({"background": "transparent"}, "codec", "JPEG frames cannot be transparent: ask for"),
        ({"background": "#12345"}, "background", "a colour as '#00b140'"),
        ({"background": "blue"}, "background", "Should be 'original', 'transparent', or a colour"),
        ({"background": "../room.png"}, "background", "Should be 'original'"),
        ({"background": "picture"}, "background", "this server has no background picture"),
        ({"codec": "avif"}, "codec", "'jpeg', 'webp' or 'png'"),
    ],
)
async def test_what_cannot_be_is_refused_in_words(
    video: dict[str, Any], param: str, says: str
) -> None:
    """The field at fault is named, and what was in force stays."""
    async with holding() as held:
        ask(held, **video)
        error = (await held.line.until("error"))["error"]
        assert error["param"] == f"session.avatar.video.{param}"
        assert says in error["message"]
        assert (await first_frame(held))["codec"] == "jpeg"


class Searched(FakeAvatars):
    """The person of "ada" is found when ``search`` is over."""

    def __init__(self) -> None:
        super().__init__("ada", "bob")
        self.search: Future[Any] = Future()

    def cut_out(self, avatar_id: str, background: str | None = None) -> Future[Any] | None:
        self.get(avatar_id, background=background)
        is_own = background in (None, "original")
        is_found = self.search.done() and self.search.exception() is None
        return None if is_own or avatar_id == "bob" or is_found else self.search


def shown(event: dict[str, Any]) -> str:
    return event["session"]["avatar"]["video"]["background"]


async def test_a_conversation_goes_on_while_the_person_is_looked_for() -> None:
    """session.updated says what is shown until then, and comes again when the background is there;
    whatever else was asked for holds at once."""
    avatars = Searched()
    async with holding(avatars=avatars) as held:
        update = {"instructions": "Be brief.", "avatar": {"video": {"background": "#00b140"}}}
        held.line.say("session.update", session=update)
        first = await held.line.until("session.updated")
        assert (shown(first), first["session"]["instructions"]) == ("original", "Be brief.")
        corner = picture(base64.b64decode((await first_frame(held))["delta"]))[2, 2]
        assert np.abs(corner.astype(int) - (0, 0xB1, 0x40)).max() > 60
        await held.line.until("response.done")
        ask(held, quality=70)  # which does not change the wish
        assert shown(await held.line.until("session.updated", 2)) == "original"
        avatars.search.set_result(None)
        assert shown(await held.line.until("session.updated", 3)) == "#00b140"
        held.line.say("avatar.speak", text="440 0.2")
        await held.line.until("response.done", 2)
        last = held.line.of("response.video.delta")[-1]
        corner = picture(base64.b64decode(last["delta"]))[2, 2]
        assert np.abs(corner.astype(int) - (0, 0xB1, 0x40)).max() < 12


async def test_the_last_wish_for_a_background_counts() -> None:
    """Who has gone back to the avatar's own, or to another avatar with the same wish."""
    avatars = Searched()
    async with holding(avatars=avatars) as held:
        ask(held, background="#00b140")
        await held.line.until("session.updated")
        ask(held, background="original")
        await held.line.until("session.updated", 2)
        ask(held, background="#112233")
        await held.line.until("session.updated", 3)
        held.line.say("session.update", session={"avatar": {"id": "bob"}})
        assert shown(await held.line.until("session.updated", 4)) == "#112233"
        avatars.search.set_result(None)
        await held.line.caught_up()
        assert len(held.line.of("session.updated")) == 4


async def test_a_background_that_cannot_be_after_all_is_an_error_of_its_event() -> None:
    """The session keeps the one it has."""
    avatars = Searched()
    async with holding(avatars=avatars) as held:
        video = {"video": {"background": "#00b140"}}
        held.line.say("session.update", event_id="mine", session={"avatar": video})
        await held.line.until("session.updated")
        avatars.search.set_exception(BackgroundError("'ada' can have its original one only"))
        error = (await held.line.until("error"))["error"]
        assert (error["code"], error["event_id"]) == ("background_unavailable", "mine")
        ask(held, quality=70)
        assert shown(await held.line.until("session.updated", 2)) == "original"


def test_the_operators_background_is_waited_for() -> None:
    """In its place no other one is shown, not even for a while."""
    chosen = Settings(avatars={"background": "#00b140"})  # type: ignore[arg-type]
    assert may_wait("#112233", chosen) and not may_wait("#00b140", chosen)
    fixed = Settings(avatars={"choose_background": False})  # type: ignore[arg-type]
    assert not may_wait("#112233", fixed)


async def test_a_person_that_cannot_be_cut_out_is_said_without_a_path() -> None:
    """The client learns why and what to do; not where the server keeps its files."""

    class NoNetwork(FakeAvatars):
        def get(self, *args: Any, background: str | None = None) -> PreparedAvatar:
            if background == "#00b140":
                raise BackgroundError("'ada' can have its own only: /srv/w/net.safetensors: gone")
            return super().get(*args, background=background)

    async with holding(avatars=NoNetwork("ada")) as held:
        ask(held, background="#00b140")
        error = (await held.line.until("error"))["error"]
        assert error["code"] == "background_unavailable"
        assert error["message"] == "'ada' can have its own only: net.safetensors: gone"


async def test_the_server_decides_which_formats_there_are() -> None:
    """The first is what a client gets unless it asks."""
    async with holding(render={"codecs": ["webp", "jpeg"]}) as held:
        created = held.line.of("session.created")[0]["session"]["avatar"]["video"]
        assert (created["codec"], created["background"]) == ("webp", "original")
        ask(held, codec="png")
        error = (await held.line.until("error"))["error"]
        assert error["message"] == "This server's frames are webp, jpeg (render.codecs)."
        assert (await first_frame(held))["codec"] == "webp"


def test_the_server_may_keep_its_background() -> None:
    """A client that repeats it is not refused."""
    old = SessionConfig()
    chosen = Settings(avatars={"choose_background": False})  # type: ignore[arg-type]
    red = old.updated({"avatar": {"video": {"background": "#ff0000"}}})
    with pytest.raises(ProtocolError, match="On this server the background is 'original'"):
        check_video(red, old, chosen)
    check_video(old.updated({"avatar": {"video": {"background": "original"}}}), old, chosen)


def test_a_transparent_server_sends_what_can_be_transparent() -> None:
    """To clients that ask for nothing."""
    assert first_codec(("jpeg", "webp", "png"), "transparent") == "webp"
    assert first_codec(("jpeg", "png"), "transparent") == "png"
    assert first_codec(("jpeg", "webp", "png"), "#00b140") == "jpeg"
