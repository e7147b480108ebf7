"""The videos that one client orders: what it asks, what it is told, its limit.

It knows neither files nor frames; `wsavatar.videos.jobs` makes the videos, each in a task here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from wsavatar.avatars.background import ORIGINAL, TRANSPARENT, BackgroundError
from wsavatar.avatars.format import AvatarError
from wsavatar.dialogue.conversation import Conversation
from wsavatar.dialogue.tts import VoiceError
from wsavatar.dialogue.tts.text import TextError
from wsavatar.errors import WsavatarError
from wsavatar.media.picture import PictureError
from wsavatar.media.video_kinds import KINDS, VideoKind
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import ProtocolError, new_id
from wsavatar.session.downlink import Downlink
from wsavatar.session.engine import AvatarInfo, Engine
from wsavatar.session.selection import prepared
from wsavatar.videos.jobs import Finished, VideoJob, VideoJobs, VideoRefused
from wsavatar.videos.sources import SamplesSource, SoundSource, TextSource

__all__ = ["VideoOrders"]

_log = logging.getLogger(__name__)

MAX_ORDERS = 4
"""Videos of one client that are made or wait; another one is refused."""
_PROGRESS_S = 0.25


class VideoOrders:
    """Of one session. `close` it once. ``voice``: the name of the server's configured voice."""

    def __init__(
        self,
        downlink: Downlink,
        engine: Engine,
        voice: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._downlink = downlink
        self._engine = engine
        self._voice = voice
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def busy(self) -> bool:
        """Whether a video is made, or waits for its turn."""
        return bool(self._tasks)

    def handle(
        self,
        event: wire.AvatarRender | wire.AvatarRenderCancel,
        conversation: Conversation,
        avatar: AvatarInfo,
        voice: str,
    ) -> None:
        """Take an order, or a cancel. ``avatar``, ``voice``: of orders that name none; so the
        avatar's background.

        Raises ProtocolError for one that is not taken.
        """
        if isinstance(event, wire.AvatarRenderCancel):
            self._cancel(event.render_id)
            return
        jobs = self._engine.videos
        if jobs is None:
            text = "This server makes no videos: videos.enabled is false."
            raise ProtocolError("unsupported_event", text, param="type")
        if len(self._tasks) >= MAX_ORDERS:
            text = f"{MAX_ORDERS} videos of this session are not finished: wait for one."
            raise ProtocolError("videos_busy", text)
        source = self._source(event, conversation, event.voice or voice)
        render_id = new_id("video")
        self._downlink.event(wire.AvatarRenderCreated(render_id=render_id))
        background: str | bytes = event.picture or event.background or avatar.background
        if background == TRANSPARENT and event.format == "mp4":
            background = ORIGINAL
        order = event.avatar or avatar.id, background, KINDS[f".{event.format}"]
        work = self._work(render_id, jobs, source, *order)
        task = self._tasks[render_id] = asyncio.create_task(work, name=f"make {render_id}")
        task.add_done_callback(lambda _: self._tasks.pop(render_id, None))

    async def close(self) -> None:
        """Stop what is being made."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _cancel(self, render_id: str) -> None:
        task = self._tasks.get(render_id)
        if task is None:
            text = "No video with this id is being made."
            raise ProtocolError("render_not_found", text, param="render_id")
        task.cancel()

    def _source(
        self, event: wire.AvatarRender, conversation: Conversation, voice: str
    ) -> SoundSource | Callable[[str], SoundSource]:
        """The sound; or what makes it, once the avatar's own voice is known."""
        if bool(event.text) == bool(event.item_id):
            raise ProtocolError("invalid_value", "Give either text or item_id.", param="text")
        if event.item_id:
            audio = conversation.get(event.item_id, param="item_id").audio
            if audio is None:
                text = "This item has no audio that was kept."
                raise ProtocolError("item_has_no_audio", text, param="item_id")
            return SamplesSource(audio.samples, audio.rate)
        speech = self._engine.speech
        if speech is None:
            raise ProtocolError("tts_failed", "There is no voice.", type="server_error")
        try:
            TextSource(event.text, speech.voice(voice))
        except (TextError, VoiceError) as error:
            code = error.code if isinstance(error, TextError) else "tts_failed"
            raise ProtocolError(code, str(error), param="text") from error
        chosen = voice or self._voice
        return lambda own: TextSource(event.text, speech.voice(chosen or own))

    async def _work(
        self,
        render_id: str,
        jobs: VideoJobs,
        source: SoundSource | Callable[[str], SoundSource],
        avatar_id: str,
        background: str | bytes,
        kind: VideoKind,
    ) -> None:
        """``background``: its name, or a picture's file."""
        name = TRANSPARENT if isinstance(background, bytes) else background
        try:
            avatar = await prepared(self._engine, avatar_id, name)
            sound = source(avatar.voice) if callable(source) else source
            progress = _Progress(self._downlink, render_id, self._clock)
            job = VideoJob(sound, avatar_id, kind, progress, background)
            self._done(render_id, await jobs.make(job))
        except asyncio.CancelledError:
            self._failed(render_id, "cancelled", "It was cancelled.")
            raise
        except PictureError as error:
            self._failed(render_id, "picture_unfit", str(error))
        except BackgroundError as error:
            self._failed(render_id, "background_unavailable", str(error))
        except AvatarError as error:
            self._failed(render_id, "avatar_not_found", str(error))
        except VideoRefused as error:
            self._failed(render_id, error.code, str(error))
        except VoiceError as error:
            self._failed(render_id, "tts_failed", str(error))
        except (WsavatarError, OSError) as error:
            _log.warning("%s: %s", render_id, error)
            self._failed(render_id, "render_failed", "The video could not be made; the log has it.")
        except Exception:  # the task's boundary
            _log.exception("%s could not be made", render_id)
            self._failed(render_id, "internal_error", "The video could not be made.")

    def _done(self, render_id: str, finished: Finished) -> None:
        self._downlink.event(
            wire.AvatarRenderDone(
                render_id=render_id,
                url=f"videos/{finished.name}",
                bytes=finished.size,
                frames=finished.made.frame_count,
                duration_ms=round(1000 * finished.made.seconds),
                expires_in_s=finished.expires_s,
            )
        )

    def _failed(self, render_id: str, code: str, message: str) -> None:
        error = wire.AvatarRenderError(code=code, message=message)
        self._downlink.event(wire.AvatarRenderFailed(render_id=render_id, error=error))


class _Progress:
    """Tells the client how far a video is, not too often."""

    def __init__(self, downlink: Downlink, render_id: str, clock: Callable[[], float]) -> None:
        self._downlink = downlink
        self._render_id = render_id
        self._clock = clock
        self._told_s = -_PROGRESS_S

    def __call__(self, done: int, total: int | None) -> None:
        now_s = self._clock()
        if now_s - self._told_s < _PROGRESS_S and done != total:
            return
        self._told_s = now_s
        self._downlink.event(
            wire.AvatarRenderProgress(
                render_id=self._render_id, frames_done=done, frames_total=total
            )
        )
