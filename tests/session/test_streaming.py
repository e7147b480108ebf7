"""Real speech over a real socket: audio whole, frames contiguous, in both encodings.

The dialogues, the chunker and the protocol are the real ones; the renderer is a stand-in that
numbers its frames, except in the ``slow`` test, which runs the embedded model.
"""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from tests.fake_avatars import FakeAvatars
from tests.fake_renderer import FakeRenderer, frame_total, label_of
from tests.helpers import Client, client, fake_engine, real_dialogues, running, settings
from wsavatar.dialogue.base import SPEECH_RATE
from wsavatar.media.audio import resample
from wsavatar.resources import embedded_weights, resource_dir
from wsavatar.serve.server import AvatarServer
from wsavatar.session.engine import Engine

SECONDS = 6


@pytest.fixture
def speech(samples_dir: Path) -> np.ndarray:
    """Six seconds of a real voice at 24 kHz, float32."""
    samples, rate = soundfile.read(samples_dir / "eng.wav", dtype="float32")
    return resample(samples[: SECONDS * rate], rate, SPEECH_RATE)


CREATE = real_dialogues()


@pytest.fixture
async def server() -> AsyncIterator[AvatarServer]:
    engine = Engine(FakeRenderer(), FakeAvatars("ada", "bob"), CREATE)
    async with running(engine) as started:
        yield started


def pcm16(samples: np.ndarray) -> bytes:
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()


def heard(audio: bytes) -> np.ndarray:
    return np.frombuffer(audio, "<i2").astype(np.float32) / 32768


async def stream(to: Client, samples: np.ndarray, *, binary: bool, block: int = 960) -> None:
    """Send audio as a microphone does, in blocks of 40 ms, only faster."""
    data = pcm16(samples)
    for start in range(0, len(data), 2 * block):
        piece = data[start : start + 2 * block]
        if binary:
            await to.socket.send(piece)
        else:
            await to.send("input_audio_buffer.append", audio=base64.b64encode(piece).decode())


async def configure(to: Client, mode: str, encoding: str, **audio_input: Any) -> None:
    avatar = {"mode": mode, "video": {"encoding": encoding}}
    await to.send("session.update", session={"avatar": avatar, "audio": {"input": audio_input}})
    await to.until("session.updated")


def check_frames(got: Client, audio: bytes, fps: int = 25, rate: int = SPEECH_RATE) -> None:
    """Frames 0 to N-1 in order, none missing or doubled, each at its place on the timeline."""
    frames = got.frames()
    seconds = len(audio) / 2 / rate
    assert [index for index, *_ in frames] == list(range(frame_total(seconds, fps)))
    assert [pts for _, pts, *_ in frames] == pytest.approx(
        [i * 1000 / fps for i in range(len(frames))]
    )
    generation = got.events("response.created")[-1]["response"]["generation"]
    assert {one for _, _, one, _ in frames} == {generation}
    done = got.events("response.video.done")[-1]
    assert (done["frames_sent"], done["frames_dropped"]) == (len(frames), 0)


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_a_mirror_gives_back_all_that_was_said_with_a_frame_for_each_moment(
    server: AvatarServer, speech: np.ndarray, encoding: str
) -> None:
    """Without turn detection all audio comes back, sample for sample."""
    async with client(server) as me:
        await configure(me, "mirror", encoding, turn_detection=None)
        await stream(me, speech, binary=encoding == "binary")
        await me.send("input_audio_buffer.commit")
        await me.until("response.done")
        assert me.audio() == pcm16(speech)
        check_frames(me, me.audio())
        assert me.binary_only() == (encoding == "binary")


@pytest.mark.parametrize("encoding", ["json", "binary"])
async def test_a_parrot_says_back_what_the_client_committed(
    server: AvatarServer, speech: np.ndarray, encoding: str
) -> None:
    """The events of a turn come in the Realtime API's order, with ours around the frames."""
    async with client(server) as me:
        await configure(me, "parrot", encoding, turn_detection=None)
        await stream(me, speech, binary=encoding == "binary")
        await me.send("input_audio_buffer.commit")
        await me.until("input_audio_buffer.committed")
        await me.send("response.create")
        done = await me.until("response.done")
        assert done["response"]["status"] == "completed"
        assert len(me.audio()) / 2 / SPEECH_RATE == pytest.approx(SECONDS, abs=1.5)
        check_frames(me, me.audio())
    order = [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        "response.created",
        "response.output_item.added",
        "conversation.item.added",
        "response.content_part.added",
        "session.avatar.switch_to_speaking",
        "response.output_audio.done",
        "response.output_audio_transcript.done",
        "response.content_part.done",
        "response.video.done",
        "session.avatar.switch_to_idle",
        "avatar.turn",
        "conversation.item.done",
        "response.output_item.done",
        "response.done",
    ]
    deltas = {"response.output_audio.delta", "response.video.delta"}
    kinds = [one["type"] for one in me.events()]
    assert [kind for kind in kinds[3:] if kind not in deltas] == order


async def test_the_server_finds_the_end_of_a_turn(server: AvatarServer, speech: np.ndarray) -> None:
    """With its defaults a client only appends: speech, a pause, and the avatar answers."""
    async with client(server, "?avatar=ada") as me:
        quiet = np.zeros(2 * SPEECH_RATE, np.float32)
        await stream(me, np.concatenate([speech[: 4 * SPEECH_RATE], quiet]), binary=False)
        started = await me.until("input_audio_buffer.speech_started")
        committed = await me.until("input_audio_buffer.committed")
        assert started["item_id"] == committed["item_id"]
        done = await me.until("response.done")
        assert done["response"]["status"] == "completed"
        check_frames(me, me.audio())


@pytest.mark.parametrize(
    ("form", "bytes_per_second"),
    [
        ({"type": "audio/pcm", "rate": 48_000}, 96_000),
        ({"type": "audio/pcm", "rate": 16_000}, 32_000),
        ({"type": "audio/pcmu"}, 8_000),
    ],
)
async def test_audio_comes_in_the_format_that_was_asked_for(
    server: AvatarServer, speech: np.ndarray, form: dict[str, Any], bytes_per_second: int
) -> None:
    """Every format has exactly the speech's length, and the frames do not depend on it."""
    async with client(server) as me:
        await me.send("session.update", session={"audio": {"output": {"format": form}}})
        await me.until("session.updated")
        await configure(me, "mirror", "binary", turn_detection=None)
        await stream(me, speech, binary=True)
        await me.send("input_audio_buffer.commit")
        await me.until("response.done")
        assert len(me.audio()) == SECONDS * bytes_per_second
        assert len(me.frames()) == SECONDS * 25


@pytest.mark.parametrize("chunk_ms", [100, 500, 2000])
async def test_frames_do_not_depend_on_the_chunk_size(speech: np.ndarray, chunk_ms: int) -> None:
    """However audio is sliced, the same frames come, each once."""
    engine = Engine(FakeRenderer(), FakeAvatars("ada"), CREATE)
    async with running(engine, settings(audio={"chunk_ms": chunk_ms})) as server:
        async with client(server) as me:
            await configure(me, "mirror", "binary", turn_detection=None)
            await stream(me, speech, binary=True)
            await me.send("input_audio_buffer.commit")
            await me.until("response.done")
            check_frames(me, me.audio())


async def test_two_sessions_never_see_each_others_data(server: AvatarServer) -> None:
    """Two clients at once, each with its own voice and face: nothing of one reaches the other."""
    tones = {"ada": 300.0, "bob": 700.0}

    async def converse(avatar: str) -> Client:
        t = np.arange(3 * SPEECH_RATE) / SPEECH_RATE
        async with client(server, f"?avatar={avatar}") as me:
            await configure(me, "mirror", "binary", turn_detection=None)
            await stream(me, 0.5 * np.sin(2 * np.pi * tones[avatar] * t), binary=True)
            await me.send("input_audio_buffer.commit")
            await me.until("response.done")
        return me

    for avatar, me in zip(tones, await asyncio.gather(*map(converse, tones)), strict=True):
        back = heard(me.audio())[SPEECH_RATE : 2 * SPEECH_RATE]
        spectrum = np.abs(np.fft.rfft(back * np.hanning(len(back))))
        assert int(spectrum.argmax()) == tones[avatar]
        other = int(tones["bob" if avatar == "ada" else "ada"])
        assert spectrum[other] < spectrum.max() / 1000
        assert {label_of(frame)["avatar"] for *_, frame in me.frames()} == {avatar}
        assert len(me.frames()) == 75


def narrow_socket(port: int) -> socket.socket:
    """A connection that holds little of what is not read, however much the system would let it."""
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
    narrow.connect(("127.0.0.1", port))
    narrow.setblocking(False)
    return narrow


async def test_a_slow_client_loses_its_oldest_frames_and_no_audio() -> None:
    """A client that stops reading gets all its audio and the newest frames; the rest counts."""
    face = FakeRenderer(padding=100_000, held=True)
    limits = settings(server={"outbox_bytes": 1_000_000})
    async with running(fake_engine(face), limits) as server:
        async with client(server, max_queue=1, sock=narrow_socket(server.port)) as slow:
            binary = {"avatar": {"video": {"encoding": "binary"}}}
            await slow.send("session.update", session=binary)
            await slow.until("session.updated")
            await slow.send("avatar.speak", text="440 8")
            await slow.until("response.output_audio.done")
            for _ in range(40):  # 20 MB, while the client reads nothing
                face.streams[0].render(5)
                await asyncio.sleep(0)
            await slow.until("response.done")
            done = slow.events("response.video.done")[0]
            indices = [index for index, *_ in slow.frames()]
            assert len(slow.audio()) == 8 * SPEECH_RATE * 2
            assert done["frames_dropped"] > 0
            assert done["frames_sent"] == len(indices)
            assert done["frames_sent"] + done["frames_dropped"] == 200
            assert indices == sorted(set(indices))
            assert indices[-9:] == list(range(191, 200))  # what the bound holds: the newest
            dropped = server.metrics.snapshot()["frames"]["dropped"]
            assert dropped == {"slow_client": done["frames_dropped"]}


async def test_cancelling_is_at_once_and_final() -> None:
    """After response.done(cancelled) nothing of that response comes, though frames were waiting."""
    face = FakeRenderer(held=True)
    async with running(fake_engine(face)) as server, client(server) as me:
        await me.send("avatar.speak", text="hum 300")
        first = (await me.until("response.created"))["response"]
        await me.until("response.output_audio.delta")
        face.streams[0].render(4)
        await me.until("response.video.delta")
        await me.send("response.cancel", response_id=first["id"])
        done = await me.until("response.done")
        assert done["response"]["status"] == "cancelled"
        assert done["response"]["status_details"]["reason"] == "client_cancelled"
        assert face.streams[0].cancelled
        face.streams[0].waiting = [20, 21]
        face.streams[0].render()  # what a worker had in hand
        face.held = False
        me.log.clear()
        await me.send("avatar.speak", text="440 1")
        second = (await me.until("response.done"))["response"]
        assert second["generation"] == first["generation"] + 1
        assert {one for _, _, one, _ in me.frames()} == {second["generation"]}
        assert {one["response_id"] for one in me.events("response.output_audio.delta")} == {
            second["id"]
        }
        check_frames(me, me.audio())


@pytest.mark.slow
@pytest.mark.skipif(
    not embedded_weights().is_dir() or not any(resource_dir("avatars").glob("*/avatar.json")),
    reason="the embedded model or its avatars are not in this source tree",
)
async def test_the_embedded_model_speaks_real_speech(speech: np.ndarray) -> None:
    """The whole path, nothing faked: a JPEG in its place for each moment of the speech.

    A busy machine may draw later than even these settings allow; then each missing frame is
    counted as dropped.
    """
    from wsavatar.serve.assembly import load_engine

    server = AvatarServer(settings(render={"max_lateness_ms": 10_000}), load_engine)
    async with server:
        await server.ready()
        async with client(server) as me:
            await configure(me, "mirror", "binary", turn_detection=None)
            for start in range(0, len(speech), 2400):  # as it is spoken: nothing may be late
                await stream(me, speech[start : start + 2400], binary=True)
                await asyncio.sleep(0.1)
            await me.send("input_audio_buffer.commit")
            await me.until("response.done", timeout_s=60)
            frames = me.frames()
            indices = [index for index, *_ in frames]
            done = me.events("response.video.done")[-1]
            assert indices == sorted(set(indices))
            assert (done["frames_sent"], done["frames_dropped"]) == (len(frames), 150 - len(frames))
            assert len(frames) > 25
            assert all(frame[:2] == b"\xff\xd8" for *_, frame in frames)
