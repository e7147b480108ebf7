"""`wsavatar.integrations.avatar` against a server with the real mirror and a quick renderer."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.fake_dialogue import tone
from tests.fake_renderer import FakeRenderer
from tests.helpers import fake_engine, real_dialogues, running, settings
from wsavatar.integrations.avatar import Avatar, AvatarUnavailable, Slot
from wsavatar.media import audio
from wsavatar.serve.server import ENDPOINT, AvatarServer

RATE = 24_000
SLOT_S = 1 / 25


def pcm(seconds: float, hz: float = 440) -> bytes:
    return audio.encode(tone(seconds, hz, RATE), "audio/pcm")


@contextlib.asynccontextmanager
async def serving(renderer: FakeRenderer, **chosen: Any) -> AsyncIterator[AvatarServer]:
    engine = fake_engine(renderer, create_dialogue=real_dialogues())
    async with running(engine, settings(**chosen)) as server:
        yield server


@contextlib.asynccontextmanager
async def speaking(server: AvatarServer, **options: Any) -> AsyncIterator[Avatar]:
    avatar = Avatar(f"ws://127.0.0.1:{server.port}{ENDPOINT}", **options)
    await avatar.start()
    try:
        yield avatar
    finally:
        await avatar.close()


async def slots(avatar: Avatar, seconds: float) -> list[Slot]:
    """What is due in this time, as a player takes it; on a slow machine it takes longer."""
    return [await due(avatar) for _ in range(round(seconds / SLOT_S))]


async def slots_until(avatar: Avatar, enough: Callable[[list[Slot]], object]) -> list[Slot]:
    """What is due until it is enough."""
    taken: list[Slot] = []
    async with asyncio.timeout(60):
        while not enough(taken):
            taken.append(await due(avatar))
    return taken


async def due(avatar: Avatar) -> Slot:
    slot = await avatar.next()
    await asyncio.sleep(SLOT_S)
    return slot


def says(pcm: bytes) -> Callable[[list[Slot]], bool]:
    """So much was heard."""
    return lambda taken: len(heard(taken)) >= len(pcm)


def heard(taken: list[Slot]) -> bytes:
    return b"".join(one for slot in taken for one in slot.content if isinstance(one, bytes))


async def test_a_voice_gets_a_face() -> None:
    """All samples come back, each slot with a picture; the server is told what was heard."""
    renderer = FakeRenderer()
    async with serving(renderer) as server, speaking(server) as avatar:
        assert avatar.size == (32, 32) and avatar.fps == 25
        rest = await slots(avatar, 0.12)
        assert heard(rest) == b"" and not any(slot.speaking for slot in rest)
        await avatar.push(pcm(1.0))
        avatar.mark("end")
        avatar.end_segment()
        shown = server.metrics.client_shown._value
        taken = await slots_until(avatar, lambda _: avatar.empty and shown.get() == 25)
        assert heard(taken) == pcm(1.0)
        assert [one for slot in taken for one in slot.content][-1] == "end"
        assert all(len(slot.picture.rgb) == 32 * 32 * 3 for slot in taken)
        assert sum(slot.speaking for slot in taken) == 25
        assert renderer.streams[0].indices == list(range(25)) and renderer.streams[0].closed


async def test_an_interruption_reaches_the_renderer() -> None:
    """The frames in the making are dropped, nothing old is given out, and the next speech works."""
    renderer = FakeRenderer()
    async with serving(renderer) as server, speaking(server) as avatar:
        await avatar.push(pcm(20))
        await slots_until(avatar, says(pcm(0.4)))
        renderer.held = True
        await slots(avatar, 0.2)
        avatar.interrupt()
        rest = await slots_until(avatar, lambda _: renderer.streams[0].cancelled)
        assert heard(rest) == b"" and not any(slot.speaking for slot in rest)
        renderer.held = False
        await avatar.push(pcm(0.5, 880))
        avatar.end_segment()
        next_one = await slots_until(avatar, says(pcm(0.5)))
        assert heard(next_one + await slots(avatar, 0.2)) == pcm(0.5, 880)
        assert len(renderer.streams) == 2


async def test_speeches_follow_each_other() -> None:
    """Ten in a row, some joined and some apart: nothing is lost and nothing is cut off."""
    renderer = FakeRenderer()
    async with serving(renderer) as server, speaking(server) as avatar:
        spoken = []
        playing = asyncio.create_task(slots_until(avatar, says(10 * pcm(0.31))))
        for number in range(10):
            piece = pcm(0.31, 200 + 50 * number)
            spoken.append(piece)
            await avatar.push(piece)
            avatar.end_segment()
            await asyncio.sleep(0.05 * number)
        assert heard(await playing) == b"".join(spoken)
        assert not any(stream.cancelled for stream in renderer.streams)


async def test_a_lost_connection_costs_frames_not_voice() -> None:
    """The connection is cut in mid-speech: every sample is heard, and frames come again."""
    renderer = FakeRenderer()
    async with serving(renderer) as server, speaking(server) as avatar:
        await avatar.push(pcm(4))
        avatar.end_segment()
        taken = await slots_until(avatar, says(pcm(0.6)))
        assert avatar._connection._socket is not None
        avatar._connection._socket.transport.abort()
        taken += await slots_until(avatar, lambda more: len(heard(taken + more)) == len(pcm(4)))
        assert heard(taken) == pcm(4)
        assert len(renderer.streams) == 2 and avatar.connected
        assert avatar._timeline.empty


async def test_where_there_is_no_server() -> None:
    """The error names the address and the reason."""
    avatar = Avatar("ws://127.0.0.1:1/v1/realtime")
    with pytest.raises(AvatarUnavailable, match=r"ws://127\.0\.0\.1:1/v1/realtime: .*Connect"):
        await avatar.start(timeout_s=2)


async def test_what_the_server_refuses_is_told() -> None:
    """An avatar that it does not have, a wrong token: in its words."""
    async with serving(FakeRenderer(), server={"auth_tokens": ("secret",)}) as server:
        url = f"ws://127.0.0.1:{server.port}{ENDPOINT}"
        with pytest.raises(AvatarUnavailable, match="no avatar 'nobody'"):
            await Avatar(url, id="nobody", token="secret").start()
        with pytest.raises(AvatarUnavailable, match="401"):
            await Avatar(url, token="wrong").start(timeout_s=2)


async def test_pictures_have_the_size_that_is_asked_for() -> None:
    """`max_width` reduces the idle pictures as the server reduces the frames."""
    async with (
        serving(FakeRenderer()) as server,
        speaking(server, video={"max_width": 64, "fps": 30}, id="bob") as avatar,
    ):
        assert avatar.fps == 30 and avatar.size == (32, 32)
        first = (await avatar.next()).picture
        assert (first.width, first.height) == avatar.size
        assert np.ptp(np.frombuffer(first.rgb, np.uint8)) < 20  # a fake avatar is of one grey


async def test_the_face_at_rest_has_the_background_of_its_speech() -> None:
    """The idle pictures are fetched before the one that is asked for."""
    async with (
        serving(FakeRenderer()) as server,
        speaking(server, video={"background": "#0000ff"}) as avatar,
    ):
        picture = (await avatar.next()).picture
        corner = np.frombuffer(picture.rgb, np.uint8).reshape(32, 32, 3)[2, 2].astype(int)
        assert np.abs(corner - (0, 0, 255)).max() < 24


def test_only_rates_that_the_server_takes() -> None:
    """Others are refused before anything is sent."""
    with pytest.raises(ValueError, match="22050"):
        Avatar("ws://127.0.0.1:1/", rate=22_050)


async def test_the_face_dissolves_into_speech_and_back() -> None:
    """No jump: the change from rest to speech and back takes some slots."""
    from wsavatar.integrations.avatar import _Face
    from wsavatar.integrations.timeline import Step
    from wsavatar.protocol.binary import pack_frame

    def picture(grey: int) -> bytes:
        data = io.BytesIO()
        Image.new("RGB", (16, 16), (grey, grey, grey)).save(data, "JPEG")
        return data.getvalue()

    idle = pack_frame(0, 0, 0, (0, 0, 16, 16), picture(0))
    face = _Face(len(idle).to_bytes(4, "little") + idle, 25.0, 25, None)
    speech = Step(True, (b"",), picture(200), 0, 0)
    steps = [Step(False)] * 2 + [speech] * 6 + [Step(False)] * 6
    greys = [face.show(step).rgb[0] for step in steps]
    assert greys[:2] == [0, 0] and greys[7] > 195 and greys[-1] < 5
    assert max(abs(np.diff(np.array(greys, int)))) < 80
    assert greys == sorted(greys[:8]) + sorted(greys[8:], reverse=True)


async def test_a_face_without_new_frames_goes_to_rest() -> None:
    """The picture stays for a moment, as long as a frame may be late, then the face rests."""
    renderer = FakeRenderer()
    async with serving(renderer) as server, speaking(server) as avatar:
        renderer.held = True
        await avatar.push(pcm(10))
        await slots_until(
            avatar, lambda _: renderer.streams and len(renderer.streams[0].waiting) > 20
        )
        renderer.streams[0].render(20)
        await slots_until(avatar, lambda taken: taken and taken[-1].speaking)
        taken = await slots(avatar, 2.0)
        assert all(slot.speaking for slot in taken)  # the voice goes on
        face = avatar._face
        assert face is not None and face._source == "idle"
