"""The avatar in Pipecat: a service behind the text-to-speech, which gives its voice a face.

    avatar = WsavatarVideoService("ws://127.0.0.1:8765/v1/realtime")
    Pipeline([transport.input(), stt, aggregator.user(), llm, tts, avatar, transport.output(), ...])

The transport's parameters: ``video_out_enabled=True``, ``video_out_is_live=False`` (pictures wait
for their sound), ``video_out_width`` and ``video_out_height`` as you like.
"""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from pipecat.audio.utils import create_stream_resampler
from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    StartFrame,
    SystemFrame,
    TTSAudioRawFrame,
    TTSStoppedFrame,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessorSetup
from pipecat.services.ai_service import AIService
from pipecat.services.settings import ServiceSettings

from wsavatar.integrations.avatar import RATES, Avatar, AvatarUnavailable, Slot

__all__ = ["WsavatarVideoService"]

LEAD_S = 0.2
"""How far speech runs ahead of what is heard, in the transport's queue: enough for a busy event
loop, little enough for an interruption and for memory (a picture has a megabyte)."""
RETRY_S = 5.0


class WsavatarVideoService(AIService):
    """Takes `TTSAudioRawFrame` and gives it back with `OutputImageRawFrame`, in step.

    All other frames keep their place in the speech: a `TTSStoppedFrame` or a text follows the sound
    that it stood behind. Between speeches the idle face is shown. Without the server the voice goes
    on alone; it is asked for again every few seconds. ``url`` and ``avatar``: the arguments of
    `wsavatar.integrations.avatar.Avatar`.
    """

    def __init__(
        self,
        url: str,
        *,
        avatar: dict[str, Any] | None = None,
        start_timeout_s: float = 30.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(settings=ServiceSettings(model=None), **kwargs)
        self._url = url
        self._options = avatar or {}
        self._start_timeout_s = start_timeout_s
        self._avatar: Avatar | None = None  # started
        self._rate = 24_000
        self._running: asyncio.Task[None] | None = None
        self._resampler = create_stream_resampler(clear_after_secs=None)
        self._voice = TTSAudioRawFrame(b"", self._rate, 1)  # the speech that is given out
        self._newest = self._voice  # the speech that came last
        self._all_said = asyncio.Event()
        self._times = _Times()

    # -- lifecycle --------------------------------------------------------------------------------

    async def setup(self, setup: FrameProcessorSetup) -> None:
        await super().setup(setup)
        if setup.audio_out_sample_rate in RATES:
            self._rate = setup.audio_out_sample_rate

    async def cleanup(self) -> None:
        await super().cleanup()
        await self._close()

    async def _close(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            await self.cancel_task(running)

    async def _run(self) -> None:
        """Show the avatar as soon as there is a server, until cancelled."""
        options = {"rate": self._rate, "lead_s": LEAD_S, **self._options}
        avatar = Avatar(self._url, **options)
        told = ""
        try:
            while self._avatar is None:
                try:
                    await avatar.start(self._start_timeout_s)
                    self._avatar = avatar
                except AvatarUnavailable as error:
                    if str(error) != told:
                        told = str(error)
                        await self.push_error(f"{told}; the voice goes on without a face")
                    await asyncio.sleep(RETRY_S)
            await self._play(avatar)
        finally:
            self._avatar = None
            await avatar.close()

    # -- frames in --------------------------------------------------------------------------------

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, StartFrame):
            await self.push_frame(frame, direction)  # it goes before the first picture
            self._running = self.create_task(self._run(), "avatar")
            return
        if isinstance(frame, EndFrame):
            await self._finish()
        elif isinstance(frame, CancelFrame):
            await self._close()
        elif isinstance(frame, InterruptionFrame):
            await self._interrupt()
        elif self._avatar is not None and direction is FrameDirection.DOWNSTREAM:
            if isinstance(frame, TTSAudioRawFrame):
                await self._say(self._avatar, frame)
                return
            if not isinstance(frame, SystemFrame) and not self._avatar.empty:
                await self._keep_place(self._avatar, frame)
                return
        await self.push_frame(frame, direction)

    async def _say(self, avatar: Avatar, frame: TTSAudioRawFrame) -> None:
        if avatar.empty:
            self._times.arrived(self._now_ns())
        if frame.context_id != self._newest.context_id or avatar.empty:
            avatar.mark(frame)  # what follows is of this context
        self._newest = frame
        self._all_said.clear()
        audio = frame.audio
        if frame.num_channels > 1:
            samples = np.frombuffer(audio, "<i2").reshape(-1, frame.num_channels)
            audio = samples.mean(1).astype("<i2").tobytes()
        await avatar.push(await self._resampler.resample(audio, frame.sample_rate, avatar.rate))

    async def _keep_place(self, avatar: Avatar, frame: Frame) -> None:
        """Give this frame out behind the speech that came before it."""
        if isinstance(frame, TTSStoppedFrame):
            await self._end_segment(avatar)
        elif frame.pts:  # it says for itself when it is due, as if the avatar took no time
            for one in self._times.shifted(frame):
                await self.push_frame(one)
            return
        avatar.mark(frame)

    async def _end_segment(self, avatar: Avatar) -> None:
        await avatar.push(await self._resampler.flush())
        avatar.end_segment()

    async def _interrupt(self) -> None:
        if self._avatar is None or not self._newest.interruptible:
            return
        marks = self._avatar.interrupt()
        await self._resampler.reset()
        self._times.clear()
        self._all_said.set()
        for one in marks:
            if not isinstance(one, TTSAudioRawFrame) and not one.interruptible:
                await self.push_frame(one)

    async def _finish(self) -> None:
        """Let what was begun be heard, then stop."""
        if self._avatar is not None and not self._avatar.empty:
            await self._end_segment(self._avatar)
            await self._all_said.wait()
        await self._close()

    # -- frames out -------------------------------------------------------------------------------

    async def _play(self, avatar: Avatar) -> None:
        """A slot after the other; speech is given out `LEAD_S` before it is due."""
        clock = asyncio.get_running_loop().time
        slot_s = 1 / avatar.fps
        due_s = clock()
        while True:
            slot = await avatar.next()
            await self._give(avatar, slot)
            due_s = max(due_s, clock() - slot_s) + slot_s
            ahead_s = LEAD_S if slot.speaking else 0.0
            await asyncio.sleep(max(0.0, due_s - ahead_s - clock()))

    async def _give(self, avatar: Avatar, slot: Slot) -> None:
        size = (slot.picture.width, slot.picture.height)
        image = OutputImageRawFrame(image=slot.picture.rgb, size=size, format="RGB")
        image.sync_with_audio = slot.speaking
        await self.push_frame(image)
        for one in slot.content:
            if isinstance(one, bytes):
                await self._give_voice(one, avatar.rate)
            elif isinstance(one, TTSAudioRawFrame):
                self._voice = one
            else:
                await self.push_frame(one)
        if avatar.empty:
            self._all_said.set()

    async def _give_voice(self, audio: bytes, rate: int) -> None:
        for waiting in self._times.begun(self._now_ns()):
            await self.push_frame(waiting)
        voice = TTSAudioRawFrame(audio, rate, 1, context_id=self._voice.context_id)
        voice.transport_destination = self._voice.transport_destination
        voice.interruptible = self._voice.interruptible
        await self.push_frame(voice)

    def _now_ns(self) -> int:
        now_ns: int = self.get_clock().get_time()
        return now_ns


class _Times:
    """Frames with a time (`Frame.pts`) are late by as much as the speech that they belong to."""

    def __init__(self) -> None:
        self._waiting: list[Frame] = []  # of speech that has not begun
        self._arrived_ns = 0
        self._delay_ns: int | None = None  # None: it has not begun

    def arrived(self, now_ns: int) -> None:
        """The first sound of a speech came."""
        self._arrived_ns, self._delay_ns = now_ns, None

    def begun(self, now_ns: int) -> list[Frame]:
        """Sound is given out. Returns the frames that waited for it."""
        if self._delay_ns is not None:
            return []
        self._delay_ns = now_ns - self._arrived_ns
        waiting, self._waiting = self._waiting, []
        return [one for frame in waiting for one in self.shifted(frame)]

    def shifted(self, frame: Frame) -> list[Frame]:
        """The frame with its new time; nothing while that is not known."""
        if self._delay_ns is None:
            self._waiting.append(frame)
            return []
        frame.pts += self._delay_ns
        return [frame]

    def clear(self) -> None:
        self._waiting.clear()
