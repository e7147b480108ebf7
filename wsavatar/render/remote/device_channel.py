"""What passes between the server and a device's process: messages, and the channel for them.

It owns their shape and their way over a connection. It does not know what either side does.

Chunks go to the process once each, with the audio they need and the frames wanted of them. Outcomes
come back as they are made; as many as wait go as one. Avatars do not travel: the process reads them
from the disk by their ids.

Due times travel as they are. On Linux `time.monotonic` counts from the same moment in all processes
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

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.render.jobs import DropReason, VideoFormat
from wsavatar.render.scheduler import FrameJob
from wsavatar.render.work import ChunkWork, FrameWork, StreamSpec

__all__ = [
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
"""Messages sent as one. More would keep the first of them waiting for the last."""


Blob = bytes | memoryview


# -- messages to the process ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Work:
    """Frames wanted of a chunk. It says all of its stream, so that no stream need be remembered.

    ``chunk`` is pickled, without the memory of its arrays: that comes as bytes behind the message.
    ``frames`` are (row, due_s, opens).
    """

    number: int
    avatar_id: str
    video: VideoFormat
    generation: int
    first_cycle_index: int
    first_frame: int
    chunk: bytes
    frames: tuple[tuple[int, float, bool], ...]

    @classmethod
    def of(cls, jobs: Sequence[FrameJob[FrameWork]]) -> tuple[Work, list[Blob]]:
        """Jobs of one chunk as a message, and what to send behind it."""
        spec, chunk = jobs[0].work.spec, jobs[0].work.source.chunk
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(chunk, pickle.HIGHEST_PROTOCOL, buffer_callback=buffers.append)
        message = cls(
            spec.number,
            spec.avatar.id,
            spec.video,
            spec.generation,
            spec.first_cycle_index,
            chunk.first_frame,
            pickled,
            tuple((job.work.row, job.due_s, job.opens) for job in jobs),
        )
        return message, [buffer.raw() for buffer in buffers]

    def source(self, blobs: Sequence[bytes]) -> ChunkWork:
        """Its chunk again, of what came behind the message."""
        return ChunkWork(pickle.loads(self.chunk, buffers=blobs))

    def jobs(self, avatar: PreparedAvatar, source: ChunkWork) -> list[FrameJob[FrameWork]]:
        """The jobs again, of that `source`."""
        spec = StreamSpec(self.number, avatar, self.video, self.generation, self.first_cycle_index)
        return [
            FrameJob(self.number, due_s, FrameWork(spec, source, row), opens)
            for row, due_s, opens in self.frames
        ]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Have this avatar ready; the answer is `Prepared`."""

    avatar_id: str


@dataclass(frozen=True, slots=True)
class Cancel:
    """Forget a stream's frames."""

    number: int


@dataclass(frozen=True, slots=True)
class Close:
    """End, once every frame has its outcome."""


# -- messages from the process --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is warm."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The model cannot run; the process ends."""

    error: str


class Done(NamedTuple):
    """A frame's outcome. Where ``reason`` is None its picture comes as bytes behind the message."""

    number: int
    frame_index: int
    reason: DropReason | None
    region: tuple[int, int, int, int] = (0, 0, 0, 0)
    size: tuple[int, int] = (0, 0)
    """As `RenderedFrame` has them."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """An avatar is ready, or cannot be used: then ``error`` says why."""

    avatar_id: str
    error: str = ""


@dataclass(frozen=True, slots=True)
class Stats:
    """What `FaceWorker.stats` says, every half second."""

    values: dict[str, Any]


Message = Work | Prepare | Cancel | Close | Ready | Failed | Done | Prepared | Stats


class Channel:
    """Messages over one end of a connection, with bytes behind them that are never pickled.

    `post` never waits: one thread sends. What waits to be sent is bounded by the frames that have
    no outcome yet. Its owner receives, on a thread of its own.
    """

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._wake = threading.Condition()
        self._posted: deque[tuple[Message, Sequence[Blob]]] = deque()
        self._ending = False
        self._sender = threading.Thread(target=self._send_all, name=f"send-{name}", daemon=True)
        self._sender.start()

    def post(self, message: Message, *blobs: Blob) -> None:
        """Send soon; any thread may call. After `finish`, or when nobody listens, it is lost."""
        with self._wake:
            if not self._ending:
                self._posted.append((message, blobs))
                self._wake.notify()

    def wait(self, timeout_s: float | None) -> bool:
        """Whether there is something to receive, be it the end; None waits for ever."""
        return self._connection.poll(timeout_s)

    def receive(self) -> list[tuple[Message, list[bytes]]]:
        """Wait for messages. Raises EOFError or OSError when the other side is gone."""
        take = self._connection.recv_bytes
        envelope: list[tuple[Message, int]] = pickle.loads(take())
        return [(message, [take() for _ in range(blobs)]) for message, blobs in envelope]

    def finish(self, timeout_s: float | None = None) -> None:
        """Send what was posted, as far as somebody listens, then nothing more.

        Blocks, for at most ``timeout_s``: a process that lives and does not read holds it up.
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
            except OSError:  # nobody listens: who receives on this channel finds out
                with self._wake:
                    self._ending = True
                    self._posted.clear()

    def _next_envelope(self) -> list[tuple[Message, Sequence[Blob]]]:
        """Wait for messages to send; none when it is to end."""
        with self._wake:
            while not (self._posted or self._ending):
                self._wake.wait()
            return [self._posted.popleft() for _ in range(min(ENVELOPE, len(self._posted)))]
