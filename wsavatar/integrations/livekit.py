"""The avatar in LiveKit Agents: its face joins the agent's voice in the room.

    avatar = AvatarSession("ws://127.0.0.1:8765/v1/realtime")
    await avatar.start(session, ctx.room)   # before session.start()
    await session.start(agent=..., room=ctx.room)

`AvatarSession` publishes both tracks from the agent's own participant. `VideoGenerator` is for an
`AvatarRunner` of your own, in a worker of its own for example.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from livekit import rtc
from livekit.agents import AgentSession
from livekit.agents.voice import avatar as lk

from wsavatar.integrations.avatar import Avatar

__all__ = ["AvatarSession", "VideoGenerator"]

QUEUE_MS = 100
"""What LiveKit's synchroniser keeps before it is heard and seen."""


class VideoGenerator(lk.VideoGenerator):
    """Gives the agent's voice back with a face, and the idle face between speeches.

    ``avatar`` must be started; its ``rate`` is that of all audio frames, which are mono.
    """

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar

    def options(self) -> lk.AvatarOptions:
        """What an `AvatarRunner` must know."""
        width, height = self._avatar.size
        return lk.AvatarOptions(
            video_width=width,
            video_height=height,
            video_fps=self._avatar.fps,
            audio_sample_rate=self._avatar.rate,
            audio_channels=1,
        )

    async def push_audio(self, frame: rtc.AudioFrame | lk.AudioSegmentEnd) -> None:
        """Say this. Raises ValueError for another sample rate or more channels."""
        if isinstance(frame, lk.AudioSegmentEnd):
            self._avatar.mark(frame)
            self._avatar.end_segment()
            return
        if (frame.sample_rate, frame.num_channels) != (self._avatar.rate, 1):
            raise ValueError(
                f"the avatar speaks mono at {self._avatar.rate} Hz; this frame has "
                f"{frame.num_channels} channels at {frame.sample_rate} Hz. Give the audio output "
                f"sample_rate={self._avatar.rate}."
            )
        await self._avatar.push(bytes(frame.data))

    def clear_buffer(self) -> None:
        """Be silent at once."""
        self._avatar.interrupt()

    def __aiter__(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | lk.AudioSegmentEnd]:
        return self._slots()

    async def _slots(self) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | lk.AudioSegmentEnd]:
        while True:
            slot = await self._avatar.next()
            picture = slot.picture
            yield rtc.VideoFrame(
                picture.width, picture.height, rtc.VideoBufferType.RGB24, picture.rgb
            )
            for one in slot.content:
                if isinstance(one, bytes):
                    yield rtc.AudioFrame(one, self._avatar.rate, 1, len(one) // 2)
                else:
                    yield one


class AvatarSession(lk.AvatarSession):
    """Gives an `AgentSession` a face. ``url`` and ``options``: those of `Avatar`."""

    def __init__(self, url: str, *, start_timeout_s: float = 30.0, **options: Any) -> None:
        super().__init__()
        self._start_timeout_s = start_timeout_s
        self._avatar = Avatar(url, lead_s=QUEUE_MS / 1000, **options)
        self._runner: lk.AvatarRunner | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def avatar_identity(self) -> str:
        """The agent's own participant, which publishes the avatar's tracks."""
        if self._room is None:
            raise RuntimeError("start() the avatar first")
        identity: str = self._room.local_participant.identity
        return identity

    @property
    def provider(self) -> str:
        return "wsavatar"

    async def start(self, agent_session: AgentSession[Any], room: rtc.Room) -> None:
        """Before `AgentSession.start`. Raises `AvatarUnavailable` where there is no server."""
        await self._avatar.start(self._start_timeout_s)
        await super().start(agent_session, room)
        generator = VideoGenerator(self._avatar)
        output = lk.QueueAudioOutput(sample_rate=self._avatar.rate, wait_playback_start=True)
        self._runner = lk.AvatarRunner(
            room,
            audio_recv=output,
            video_gen=generator,
            options=generator.options(),
            _queue_size_ms=QUEUE_MS,
            _lazy_publish=False,
        )
        output.on("clear_buffer", self._clear_queue)
        await self._runner.start()
        agent_session.output.audio = output

    async def aclose(self) -> None:
        """Stop. The participant stays: it is the agent's."""
        if self._runner is not None:
            await self._runner.aclose()
            self._runner = None
        await self._avatar.close()
        self._room = None  # else the base class would remove the participant
        await super().aclose()

    def _clear_queue(self) -> None:
        """An interruption drops what the synchroniser holds, too."""
        if self._runner is not None:
            task = asyncio.create_task(self._runner.av_sync.clear_queue())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
