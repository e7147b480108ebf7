"""Messages between the server and a device's process, and the channel for them.

It owns their format and their transport over a connection, not what either side does.

A chunk is sent once, with its audio and the frames wanted. Outcomes are sent back when ready,
several in one message. Avatars are not sent: the process reads them from the disk by id.

Due times are sent unchanged. On Linux `time.monotonic` counts from the same moment in all processes
of a machine, as do the clocks behind it on macOS and Windows.
"""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from wsavatar.avatars.avatar import AvatarInfo, PreparedAvatar
from wsavatar.render.jobs import DropReason, VideoFormat
from wsavatar.render.scheduler import FrameJob
from wsavatar.render.work import ChunkWork, FrameWork, StreamSpec

__all__ = [
    "AvatarKey",
    "Cancel",
    "Channel",
    "Close",
    "Done",
    "Failed",
    "Message",
    "Prepare",
    "Prepared",
    "Ready",
    "Stats",
    "Work",
]

ENVELOPE = 32
"""Maximum messages sent together. More would delay the first of them."""


Blob = bytes | memoryview


class AvatarKey(NamedTuple):
    """Which avatar, before which background: names, as avatars' stores take them. ``digest``: of
    its files, which may be replaced."""

    id: str
    background: str
    digest: str = ""

    @classmethod
    def of(cls, avatar: AvatarInfo) -> AvatarKey:
        return cls(avatar.id, avatar.background, avatar.digest)


# -- messages to the process ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """Frames wanted of a chunk, with all values of its stream, so that no state is needed.

    ``chunk`` is pickled without the memory of its arrays, which follows the message as bytes.
    ``frames`` are (row, due_s, opens).
    """

    number: int
    avatar: AvatarKey
    video: VideoFormat
    generation: int
    first_cycle_index: int
    first_frame: int
    chunk: bytes
    frames: tuple[tuple[int, float, bool], ...]

    @classmethod
    def of(cls, jobs: Sequence[FrameJob[FrameWork]]) -> tuple[Work, list[Blob]]:
        """A message with jobs of one chunk, and the bytes that follow it."""
        spec, chunk = jobs[0].work.spec, jobs[0].work.source.chunk
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(chunk, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
        message = cls(
            spec.number,
            AvatarKey.of(spec.avatar),
            spec.video,
            spec.generation,
            spec.first_cycle_index,
            chunk.first_frame,
            pickled,
            tuple((job.work.row, job.due_s, job.opens) for job in jobs),
        )
        return message, [buffer.raw() for buffer in buffers]

    def source(self, blobs: Sequence[bytes]) -> ChunkWork:
        """The chunk, from the bytes that followed the message."""
        return ChunkWork(pickle.loads(self.chunk, buffers=blobs))

    def jobs(self, avatar: PreparedAvatar, source: ChunkWork) -> list[FrameJob[FrameWork]]:
        """The jobs, with that `source`."""
        spec = StreamSpec(self.number, avatar, self.video, self.generation, self.first_cycle_index)
        return [
            FrameJob(self.number, due_s, FrameWork(spec, source, row), opens)
            for row, due_s, opens in self.frames
        ]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Have this avatar ready; the answer is `Prepared`."""

    avatar: AvatarKey


@dataclass(frozen=True, slots=True)
class Cancel:
    """Remove a stream's frames."""

    number: int


@dataclass(frozen=True, slots=True)
class Close:
    """End once every frame has an outcome."""


# -- messages from the process --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is warm."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The model cannot run; the process ends."""

    error: str


class Done(NamedTuple):
    """A frame's outcome. If ``reason`` is None, its picture follows the message as bytes."""

    number: int
    frame_index: int
    reason: DropReason | None
    region: tuple[int, int, int, int] = (0, 0, 0, 0)
    size: tuple[int, int] = (0, 0)
    """As `RenderedFrame` has them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An avatar is ready, or cannot be used: then ``error`` says why."""

    avatar: AvatarKey
    error: str = ""


@dataclass(frozen=True, slots=True)
class Stats:
    """`FaceWorker.stats`, every half second."""

    values: dict[str, Any]


Message = Work | Prepare | Cancel | Close | Ready | Failed | Done | Prepared | Stats


class Channel:
    """One end of a connection: messages, followed by bytes that are not pickled.

    `post` never waits: one thread sends. Its queue is bounded by the frames without an outcome. The
    owner receives on a thread of its own.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._wake = threading.Condition()
        self._posted: deque[tuple[Message, Sequence[Blob]]] = deque()
        self._ending = False
        self._sender = threading.Thread(target=self._send_all, name=f"send-{name}", daemon=True)
        self._sender.start()

    def post(self, message: Message, *blobs: Blob) -> None:
        """Queue a message. Thread-safe. Dropped after `finish` or without a receiver."""
        with self._wake:
            if not self._ending:
                self._posted.append((message, blobs))
                self._wake.notify()

    def wait(self, timeout_s: float | None) -> bool:
        """Whether a message or the end of the connection is available; None: wait without limit."""
        return self._connection.poll(timeout_s)

    def receive(self) -> list[tuple[Message, list[bytes]]]:
        """Wait for messages. Raises EOFError or OSError when the connection has ended."""
        take = self._connection.recv_bytes
        envelope: list[tuple[Message, int]] = pickle.loads(take())
        return [(message, [take() for _ in range(blobs)]) for message, blobs in envelope]

    def finish(self, timeout_s: float | None = None) -> None:
        """Send queued messages if there is a receiver, then stop.

        Blocks for at most ``timeout_s``, because a process may not read.
        """
        with self._wake:
            self._ending = True
            self._wake.notify()
        self._sender.join(timeout_s)

    def _send_all(self) -> None:
        while envelope := self._next_envelope():
            try:
                counts = [(message, len(blobs)) for message, blobs in envelope]
                self._connection.send_bytes(pickle.dumps(counts, pickle.HIGHEST_PROTOCOL))
                for _, blobs in envelope:
                    for blob in blobs:
                        self._connection.send_bytes(blob)
            except OSError:  # no receiver: receiving raises too
                with self._wake:
                    self._ending = True
                    self._posted.clear()

    def _next_envelope(self) -> list[tuple[Message, Sequence[Blob]]]:
        """Wait for messages to send; none: stop."""
        with self._wake:
            while not (self._posted or self._ending):
                self._wake.wait()
            return [self._posted.popleft() for _ in range(min(ENVELOPE, len(self._posted)))]
