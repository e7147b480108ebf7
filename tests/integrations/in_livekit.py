"""The avatar in LiveKit Agents, with everything real but the room, which takes the tracks in.

`AvatarRunner`, `AVSynchronizer`, the native audio and video sources and `AgentSession` are
LiveKit's own. What the sources capture is noted on the way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from livekit import rtc
from livekit.agents import Agent, AgentSession
from livekit.agents.voice import avatar as lk
from livekit.agents.voice.io import PlaybackFinishedEvent
from livekit.plugins.openai.realtime import RealtimeModel

from tests.clients import scenario
from wsavatar.integrations.avatar import Avatar, AvatarUnavailable
from wsavatar.integrations.livekit import AvatarSession, VideoGenerator

SIZE = (32, 32)


class Publication:
    kind = rtc.TrackKind.KIND_VIDEO

    async def wait_for_subscription(self) -> None:
        pass


class Participant:
    identity = "agent"

    def __init__(self) -> None:
        self.published: list[Any] = []
        self.track_publications: dict[str, Any] = {}

    async def publish_track(self, track: Any, options: Any) -> Publication:
        self.published.append(track)
        self.track_publications[track.name] = Publication()
        return Publication()


class Room(rtc.EventEmitter[str]):
    """A room that is connected, with nobody else in it."""

    name = "room"
    remote_participants: dict[str, Any] = {}

    def __init__(self) -> None:
        super().__init__()
        self.local_participant = Participant()

    def isconnected(self) -> bool:
        return True


@dataclass
class Captured:
    """What the native sources got."""

    sound: list[tuple[float, bytes]] = field(default_factory=list)
    pictures: list[tuple[float, int]] = field(default_factory=list)

    @property
    def pcm(self) -> bytes:
        return b"".join(data for _, data in self.sound)

    @property
    def seconds(self) -> float:
        return len(self.pcm) / 2 / scenario.RATE


@contextlib.contextmanager
def _capturing() -> Any:
    captured = Captured()
    audio, video = rtc.AudioSource.capture_frame, rtc.VideoSource.capture_frame

    async def sound(self: rtc.AudioSource, frame: rtc.AudioFrame) -> None:
        captured.sound.append((time.monotonic(), bytes(frame.data)))
        await audio(self, frame)

    def picture(self: rtc.VideoSource, frame: rtc.VideoFrame, **more: Any) -> None:
        assert (frame.width, frame.height) == SIZE
        captured.pictures.append((time.monotonic(), frame.data[0]))
        video(self, frame, **more)

    rtc.AudioSource.capture_frame = sound  # type: ignore[method-assign]
    rtc.VideoSource.capture_frame = picture  # type: ignore[method-assign]
    try:
        yield captured
    finally:
        rtc.AudioSource.capture_frame = audio  # type: ignore[method-assign]
        rtc.VideoSource.capture_frame = video  # type: ignore[method-assign]


class Complaints(logging.Handler):
    """What LiveKit or the avatar warn of, but for a machine that stops them for a moment."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if not line.startswith("Frame capture was behind schedule"):
            self.lines.append(line)


@contextlib.contextmanager
def _without_complaints() -> Any:
    complaints = Complaints()
    for name in ("livekit", "livekit.agents", "livekit.plugins.openai", "wsavatar", "asyncio"):
        logging.getLogger(name).addHandler(complaints)
    yield
    assert complaints.lines == [], "\n".join(complaints.lines)


def _frames(pcm: bytes) -> list[rtc.AudioFrame]:
    step = scenario.RATE // 10 * 2
    pieces = [pcm[at : at + step] for at in range(0, len(pcm), step)]
    return [rtc.AudioFrame(one, scenario.RATE, 1, len(one) // 2) for one in pieces]


@dataclass
class Stage:
    """A runner with the generator, and the queue that an agent would fill."""

    output: lk.QueueAudioOutput
    captured: Captured
    finished: list[PlaybackFinishedEvent] = field(default_factory=list)

    async def say(self, pcm: bytes) -> None:
        for frame in _frames(pcm):
            await self.output.capture_frame(frame)
        self.output.flush()


@contextlib.asynccontextmanager
async def _runner(visit: scenario.Visit) -> AsyncIterator[Stage]:
    avatar = Avatar(visit.url)
    await avatar.start()
    with _capturing() as captured, _without_complaints():
        generator = VideoGenerator(avatar)
        output = lk.QueueAudioOutput(sample_rate=avatar.rate)
        stage = Stage(output, captured)
        output.on("playback_finished", stage.finished.append)
        runner = lk.AvatarRunner(
            Room(), audio_recv=output, video_gen=generator, options=generator.options()
        )
        await runner.start()
        yield stage
        await runner.aclose()
    await avatar.close()


async def a_voice_gets_a_face(visit: scenario.Visit) -> None:
    """Idle pictures at once, then every sample of the voice beside pictures at 25 a second, and
    the segment's end is told with its whole duration."""
    async with _runner(visit) as stage:
        await scenario.until(lambda: len(stage.captured.pictures) > 10)
        assert stage.captured.sound == []
        pictures = len(stage.captured.pictures)
        began_s = time.monotonic()
        await stage.say(visit.voice)
        await scenario.until(lambda: bool(stage.finished))
        seconds = len(visit.voice) / 2 / scenario.RATE
        assert stage.captured.pcm == visit.voice
        assert [(one.interrupted, round(one.playback_position, 2)) for one in stage.finished] == [
            (False, round(seconds, 2))
        ]
        shown, passed_s = len(stage.captured.pictures) - pictures, time.monotonic() - began_s
        # A machine that stops for a moment delays pictures and sound alike.
        assert 25 * seconds - 8 < shown < 25 * passed_s + 8, (shown, passed_s)


async def two_segments_are_told_apart(visit: scenario.Visit) -> None:
    """As an agent speaks: the next segment when the one before was told to be over."""
    async with _runner(visit) as stage:
        for count in (1, 2):
            await stage.say(visit.voice)
            await scenario.until(lambda: len(stage.finished) == count)  # noqa: B023
        assert stage.captured.pcm == 2 * visit.voice
        position = [round(one.playback_position, 1) for one in stage.finished]
        seconds = round(len(visit.voice) / 2 / scenario.RATE, 1)
        assert position == [seconds, seconds], position


async def clear_buffer_silences_it(visit: scenario.Visit) -> None:
    """No more sound than LiveKit's own queue has, the position is told, and the next is said."""
    async with _runner(visit) as stage:
        await stage.say(visit.voice * 5)
        await scenario.until(lambda: stage.captured.seconds > 1.5)
        stage.output.clear_buffer()
        before_s = stage.captured.seconds
        await scenario.until(lambda: bool(stage.finished))
        await asyncio.sleep(0.6)
        assert stage.captured.seconds - before_s < 0.1
        [told] = stage.finished
        assert told.interrupted and abs(told.playback_position - before_s) < 0.2
        heard = len(stage.captured.pcm)
        await stage.say(visit.voice)
        await scenario.until(lambda: len(stage.finished) == 2)
        assert stage.captured.pcm[heard:] == visit.voice


async def another_rate_is_refused_in_words(visit: scenario.Visit) -> None:
    """The message says what to set."""
    avatar = Avatar(visit.url, rate=16_000)
    try:
        await VideoGenerator(avatar).push_audio(_frames(visit.voice)[0])
    except ValueError as error:
        assert "sample_rate=16000" in str(error)
    else:
        raise AssertionError("it was taken")


@contextlib.asynccontextmanager
async def _agent(visit: scenario.Visit) -> AsyncIterator[tuple[AgentSession[Any], Captured, Room]]:
    """An agent whose realtime model is on the same server, and which has a face."""
    errors: list[Any] = []
    room = Room()
    with _capturing() as captured:
        async with aiohttp.ClientSession() as http:
            model = RealtimeModel(base_url=visit.base_url, api_key="any", http_session=http)
            session: AgentSession[Any] = AgentSession(llm=model)
            session.on("error", lambda event: errors.append(event.error))
            avatar = AvatarSession(visit.url)
            await avatar.start(session, room)  # type: ignore[arg-type]
            assert avatar.avatar_identity == "agent" and avatar.provider == "wsavatar"
            await session.start(Agent(instructions="Be friendly."), record=False)
            try:
                await avatar.wait_for_join(timeout=30)
                yield session, captured, room
            finally:
                await session.aclose()
                await avatar.aclose()
    assert errors == [], errors


async def an_agent_has_a_face(visit: scenario.Visit) -> None:
    """`AvatarSession.start(session, room)`: both tracks are published, and replies are seen."""
    async with _agent(visit) as (session, captured, room):
        assert [track.name for track in room.local_participant.published] == [
            "avatar_audio",
            "avatar_video",
        ]
        await scenario.until(lambda: len(captured.pictures) > 10)
        before = len(captured.pictures)
        await session.generate_reply(user_input="One two three.")
        assert captured.seconds > 0.5
        assert len(captured.pictures) - before > 20 * captured.seconds
        roles = [item.role for item in session.history.items if item.type == "message"]
        assert roles == ["user", "assistant"]


async def an_agent_is_interrupted(visit: scenario.Visit) -> None:
    """`session.interrupt()`: sound stops at once, and the reply ends; the next one is heard."""
    async with _agent(visit) as (session, captured, _):
        reply = session.generate_reply(user_input="This sentence is long enough. " * 12)
        await scenario.until(lambda: captured.seconds > 1.5)
        await session.interrupt()
        await reply
        heard_s = captured.seconds
        await asyncio.sleep(0.5)
        assert captured.seconds - heard_s < 0.1
        await session.generate_reply(user_input="One two three.")
        assert captured.seconds > heard_s + 0.5


async def without_a_server_it_says_so(visit: scenario.Visit) -> None:
    """`start` raises, and nothing is left behind: the agent can go on without a face."""
    session: AgentSession[Any] = AgentSession()
    avatar = AvatarSession("ws://127.0.0.1:1/v1/realtime", start_timeout_s=0.5)
    try:
        await avatar.start(session, Room())  # type: ignore[arg-type]
    except AvatarUnavailable as error:
        assert "127.0.0.1:1" in str(error)
    else:
        raise AssertionError("it started")
    assert session.output.audio is None
    await avatar.aclose()


if __name__ == "__main__":
    scenario.run(__name__)
