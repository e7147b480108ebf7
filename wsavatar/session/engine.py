"""Protocols of what all sessions share: renderer, avatars, and the factory of dialogues.

Implemented by `wsavatar.render.pool`, `wsavatar.avatars.store` and `wsavatar.dialogue.registry`;
`wsavatar.serve.assembly` connects them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from wsavatar.avatar_jobs.dropped import DroppedFiles
from wsavatar.avatar_jobs.maker import AvatarMaker
from wsavatar.avatars.avatar import AvatarInfo
from wsavatar.config import Mode
from wsavatar.dialogue.base import Dialogue, DialogueConfig, DialogueSession
from wsavatar.dialogue.engine import EngineStatus
from wsavatar.dialogue.tts import Voice, VoiceList
from wsavatar.faces.base import Chunk, Progress, SpeechChunker
from wsavatar.faces.masks import Masks
from wsavatar.media.pictures import Pictures
from wsavatar.render.jobs import FrameOutcome, VideoFormat
from wsavatar.render.load import Capacity
from wsavatar.videos.jobs import VideoJobs

__all__ = ["AvatarInfo", "AvatarSummary", "Avatars", "Engine", "Renderer", "FrameStream"]


class FrameStream(Protocol):
    """The frames of one response in the renderer."""

    def submit(self, chunk: Chunk, due_s: float) -> None: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class Renderer(Protocol):
    """The renderer."""

    @property
    def capacity(self) -> Capacity:
        """Whether more frames are wanted than it renders."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def open_chunker(self, fps: Fraction, chunk_ms: int, first_ms: int) -> SpeechChunker:
        """A chunker for one response's audio, with chunks of about ``chunk_ms``; in its first
        second, of ``first_ms``."""

    def open_stream(
        self,
        avatar: AvatarInfo,
        video: VideoFormat,
        generation: int,
        first_cycle_index: int,
        on_frame: Callable[[FrameOutcome], None],
    ) -> FrameStream: ...

    def health(self) -> Mapping[str, str]:
        """By device: why it renders no frames now; empty if it does. Thread-safe."""

    def stats(self) -> object:
        """Statistics, as a dataclass or a mapping."""


class SpeechEngines(Protocol):
    """Speech recognition, language model and voices."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def status(self) -> Sequence[EngineStatus]: ...

    def voice(self, name: str = "") -> Voice:
        """The configured voice, or one by its name. Raises VoiceError."""

    def voice_list(self) -> VoiceList:
        """The voices to choose, as far as they are known now. Called on the event loop."""

    @property
    def converse(self) -> bool:
        """Whether there is all that a conversation needs, and it works."""


class AvatarSummary(Protocol):
    """An avatar that may not be prepared yet."""

    @property
    def id(self) -> str: ...


class Avatars(Protocol):
    """The available avatars. Blocking: call it on a thread. Raises AvatarError."""

    @property
    def default_id(self) -> str: ...

    def list(self) -> Sequence[AvatarSummary]: ...

    def get(
        self, avatar_id: str, progress: Progress | None = None, /, *, background: str | None = None
    ) -> AvatarInfo:
        """Before the configured background, or the one of this name (BackgroundError)."""

    def cut_out(self, avatar_id: str, background: str | None, /) -> Future[Masks] | None:
        """What looks for the person in its pictures, which may take a minute, if `get` with this
        background needs that; else None."""

    def finding(self, avatar_id: str, /) -> tuple[int, int] | None:
        """In how many of its pictures, of how many, the person was found; None: it is not looked
        for now."""

    def idle_pictures(self, avatar_id: str, background: str | None = None, /) -> Pictures:
        """The pictures of the idle cycle."""

    def idle_video(self, avatar_id: str, /) -> Path: ...

    def poster(self, avatar_id: str, /) -> Path | None: ...

    def still(self, avatar_id: str, background: str | None, /) -> np.ndarray | None:
        """Its first picture before another background than its own, where that is at hand."""

    def close(self) -> None:
        """Stop what `cut_out` has begun."""


@dataclass(frozen=True, slots=True)
class Engine:
    """Everything that sessions share. ``create_dialogue`` raises DialogueError if the mode is not
    available."""

    renderer: Renderer
    avatars: Avatars
    create_dialogue: Callable[[Mode, DialogueSession, DialogueConfig], Dialogue]
    speech: SpeechEngines | None = None
    maker: AvatarMaker | None = None
    """Makes avatars while the server runs; None: it does not."""
    videos: VideoJobs | None = None
    """Makes videos that clients order; None: it does not."""
    dropped: DroppedFiles | None = None
    """Makes avatars of files that are put into the avatars' directories."""
    preparing: Executor = field(
        default_factory=partial(ThreadPoolExecutor, thread_name_prefix="prepare avatar")
    )
    """Threads apart from the event loop's own: an avatar may take long to prepare, and neither
    pages nor uploads wait for that."""
