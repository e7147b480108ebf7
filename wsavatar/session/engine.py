"""What all sessions share, as they see it: a renderer, the avatars, and a way to begin a dialogue.

Only shapes: the modules that fill them are `wsavatar.render.pool`, `wsavatar.avatars.store` and
`wsavatar.dialogue.registry`, and the server puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import numpy as np

from wsavatar.avatars.avatar import AvatarInfo
from wsavatar.config import Mode
from wsavatar.dialogue.base import Dialogue, DialogueConfig, DialogueSession
from wsavatar.faces.base import Chunk, SpeechChunker
from wsavatar.render.jobs import FrameOutcome, VideoFormat
from wsavatar.render.load import Capacity

__all__ = ["AvatarInfo", "AvatarSummary", "Avatars", "Engine", "Face", "FaceStream"]


class FaceStream(Protocol):
    """One response's way into the renderer."""

    def submit(self, chunk: Chunk, due_s: float) -> None: ...

    def cancel(self) -> None: ...

    def close(self) -> None: ...


class Face(Protocol):
    """What makes faces."""

    @property
    def capacity(self) -> Capacity:
        """Whether it makes all the frames that it is asked for."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def open_chunker(self, fps: Fraction, chunk_ms: int) -> SpeechChunker:
        """For one response's audio, cut about every ``chunk_ms`` of it."""

    def open_stream(
        self,
        avatar: AvatarInfo,
        video: VideoFormat,
        generation: int,
        first_cycle_index: int,
        on_frame: Callable[[FrameOutcome], None],
    ) -> FaceStream: ...

    def health(self) -> Mapping[str, str]:
        """By device: why it makes no frames now; empty where it does. Any thread may ask."""

    def stats(self) -> object:
        """Numbers, in a dataclass or a mapping."""


class AvatarSummary(Protocol):
    """What is known of an avatar without preparing it."""

    @property
    def id(self) -> str: ...


class Avatars(Protocol):
    """The avatars there are. Blocking: called on a thread. Raises AvatarError."""

    @property
    def default_id(self) -> str: ...

    def list(self) -> Sequence[AvatarSummary]: ...

    def get(self, avatar_id: str, /) -> AvatarInfo: ...

    def idle_frames(self, avatar_id: str, /) -> np.ndarray:
        """Its idle cycle's pictures in order: uint8 [n, H, W, 3] RGB, read-only."""

    def idle_video(self, avatar_id: str, /) -> Path: ...

    def poster(self, avatar_id: str, /) -> Path | None: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """Everything that sessions share. ``create_dialogue`` raises DialogueError where the mode is
    not available."""

    face: Face
    avatars: Avatars
    create_dialogue: Callable[[Mode, DialogueSession, DialogueConfig], Dialogue]
