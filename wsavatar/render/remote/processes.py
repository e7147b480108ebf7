"""A device's worker behind a pipe: to the pool it looks like a `FaceWorker`.

It owns the device's process (`wsavatar.render.remote.device_process` says what runs there), the
frames that were sent to it, and what happens when it dies. Why processes: several GPUs in one
process would wait for each other at Python's lock, and at an encoder of which a process has only
one.

Every frame that goes in has one outcome, whatever becomes of the process. Where that ends by itself
(it crashed, was killed, or gave up its device), or once ready says nothing for `HUNG_S` and is
killed, the frames it had are dropped as failed, the log says so, and another is started, at most
one each `RESTART_S`. Meanwhile its length is beyond any other's, so that the pool passes over it.

Three threads share the work, and none of them is the caller's: one starts the process and receives
from it until it ends, one sends (`Channel`), and whoever asks in `join` waits.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import groupby
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from wsavatar.avatars.avatar import AvatarInfo
from wsavatar.avatars.format import AvatarError
from wsavatar.config import RenderSettings
from wsavatar.errors import WsavatarError
from wsavatar.render.jobs import DropReason, RenderedFrame
from wsavatar.render.remote.device_channel import (
    Cancel,
    Channel,
    Close,
    Done,
    Failed,
    Message,
    Prepare,
    Prepared,
    Ready,
    Stats,
    Work,
)
from wsavatar.render.remote.device_process import DevicePlan, Load, run_device
from wsavatar.render.scheduler import FrameJob
from wsavatar.render.work import FrameWork
from wsavatar.render.worker import HUNG_S, Post

__all__ = ["ProcessError", "ProcessWorker", "prepare_avatar"]

_log = logging.getLogger(__name__)

RESTART_S = 30.0
GRACE_S = 5.0
"""How long a process that was told to end may take."""

_spawn = multiprocessing.get_context("spawn")  # a fork would copy CUDA's state, and threads' locks


class ProcessError(WsavatarError, RuntimeError):
    """A device's process could not load its model, or ended before it had."""


class ProcessWorker:
    """What `FaceWorker` offers, in a process of its own. ``post`` is called from its threads.

    ``load`` is called in the process, so it must be picklable. At most twice ``max_queued_frames``
    may be on their way there, in the queue there, or on their way back; beyond that, frames are
    dropped as overload.
    """

    def __init__(
        self,
        name: str,
        load: Load,
        settings: RenderSettings,
        post: Post,
        *,
        finishers: int,
        restart_s: float = RESTART_S,
        grace_s: float = GRACE_S,
        hung_s: float = HUNG_S,
    ) -> None:
        self.name = name
        level = logging.getLogger().getEffectiveLevel()
        self._plan = DevicePlan(name, load, settings, finishers, level, hung_s)
        self._post = post
        self._restart_s = restart_s
        self._grace_s = grace_s
        self._hung_s = hung_s
        self._most_frames = 2 * settings.max_queued_frames
        # Held for a few list operations, so the event loop may take it.
        self._wake = threading.Condition()
        self._sent: dict[tuple[int, int], FrameWork] = {}  # by stream and index: no outcome yet
        self._asked: dict[str, list[Future[None]]] = {}  # by avatar: no answer yet
        self._channel: Channel | None = None  # of a process that is ready
        self._process: BaseProcess | None = None
        self._closing = False
        self._starts = 0
        self._stats: dict[str, Any] = {}
        self._failure = ""  # the process's own words
        self._started: Callable[[BaseException | None], None] = lambda error: None
        self._told = False
        self._thread = threading.Thread(target=self._run, name=f"process-{name}", daemon=True)

    def __len__(self) -> int:
        """Frames sent whose outcome has not come back; `sys.maxsize` while no process is ready."""
        return sys.maxsize if self._channel is None else len(self._sent)

    @property
    def problem(self) -> str:
        """Why no process makes frames now; empty while one does."""
        if self._channel is not None:
            return ""
        return self._not_up

    @property
    def _not_up(self) -> str:
        return self._failure or "its process is not ready"

    @property
    def pid(self) -> int | None:
        """The process's id; None before its start."""
        return None if self._process is None else self._process.pid

    def stats(self) -> dict[str, Any]:
        """`FaceWorker.stats` as the process said last, half a second ago at most; any thread.

        With ``is_up``, whether a process is ready, and ``process_starts``.
        """
        known = {"queued_frames": 0} | self._stats
        return known | {"is_up": self._channel is not None, "process_starts": self._starts}

    def start(self, started: Callable[[BaseException | None], None]) -> None:
        """Start the process; ``started`` is called from a thread once its model is warm, or not."""
        self._started = started
        self._thread.start()

    def submit(self, jobs: Sequence[FrameJob[FrameWork]]) -> None:
        """Send frames, each chunk once. Those that cannot go are posted as dropped.

        Where there is room for some of a chunk's frames its first go, as `FrameScheduler` has it.
        """
        reason: DropReason = "overload"
        with self._wake:
            room = 0
            if self._closing:
                reason = "cancelled"
            elif self._channel is None:
                reason = "failed"
            else:
                room = self._most_frames - len(self._sent)
                for _, same in groupby(jobs[:room], key=lambda job: id(job.work.source)):
                    self._send(self._channel, list(same))
        self._drop([job.work for job in jobs[room:]], reason)

    def prepare(self, avatar: AvatarInfo) -> None:
        """A stream of this avatar begins: have it there before its frames are due."""
        self._tell(Prepare(avatar.id))

    def ask_for(self, avatar_id: str) -> Future[None]:
        """Have the process prepare an avatar; the future's error is an AvatarError."""
        answer: Future[None] = Future()
        with self._wake:
            if self._channel is None or self._closing:
                answer.set_exception(AvatarError(f"device {self.name}: {self._not_up}"))
            else:
                self._asked.setdefault(avatar_id, []).append(answer)
                self._channel.post(Prepare(avatar_id))
        return answer

    def cancel(self, stream: int) -> None:
        """Forget a stream's waiting frames; they are posted as cancelled, soon."""
        self._tell(Cancel(stream))

    def close(self) -> None:
        """Let the process end after its batches in progress; what waits is posted as cancelled."""
        with self._wake:
            self._closing = True
            if self._channel is not None:
                self._channel.post(Close())
            elif self._process is not None:
                self._process.terminate()  # it still loads, and has no frames
            self._wake.notify_all()

    def join(self) -> None:
        """Wait until the process has ended and all is posted; kill it after a grace. Blocks."""
        if self._thread.ident is None:
            return
        self._thread.join(self._grace_s)
        if self._thread.is_alive() and self._process is not None:
            _log.warning("%s: its process did not end in %g s", self.name, self._grace_s)
            self._process.kill()
        self._thread.join(self._hung_s)
        if self._thread.is_alive():
            _log.error("%s: its process was killed and does not end: left to itself", self.name)
            self._settle("cancelled")

    # Under the lock.

    def _send(self, channel: Channel, jobs: Sequence[FrameJob[FrameWork]]) -> None:
        for job in jobs:
            self._sent[job.work.spec.number, job.work.frame_index] = job.work
        message, blobs = Work.of(jobs)
        channel.post(message, *blobs)

    # The process's thread.

    def _run(self) -> None:
        """Start processes, one after the other, and receive from each until it ends."""
        _hold_interrupts()
        while True:
            begun_s = time.monotonic()
            self._live()
            with self._wake:
                if not self._told or self._closing:  # it never ran, or shall not run again
                    break
                self._wake.wait_for(
                    lambda: self._closing, begun_s + self._restart_s - time.monotonic()
                )
                if self._closing:
                    break
        self._tell_started(
            ProcessError(self._failure or "its process was stopped before it was ready")
        )

    def _live(self) -> None:
        """One process, from its start to its end."""
        begun_s = time.monotonic()
        self._failure = ""
        try:
            process, connection = self._start_process()
        except Exception as error:
            self._failure = f"its process could not be started: {error}"
            _log.error("device %s: %s", self.name, self._failure)
            return
        channel = Channel(connection, self.name)
        try:
            while channel.wait(self._patience_s()):
                self._take(channel, begun_s, channel.receive())
            _log.error("device %s: it has said nothing for %g s: killed", self.name, self._hung_s)
            process.kill()
        except (EOFError, OSError):
            pass
        except Exception:  # what came was not a message, or could not be posted
            _log.exception("device %s: its process is given up", self.name)
            process.kill()
        self._ended(process, channel)
        connection.close()

    def _patience_s(self) -> float | None:
        """How long the process may be silent: once ready it says every half second how it is."""
        return None if self._channel is None else self._hung_s

    def _start_process(self) -> tuple[BaseProcess, Connection]:
        ours, theirs = _spawn.Pipe()
        process = _spawn.Process(
            target=run_device, args=(theirs, self._plan), name=f"device-{self.name}", daemon=True
        )
        process.start()
        theirs.close()  # so that its end is the pipe's end
        with self._wake:
            self._process = process
            self._starts += 1
            if self._closing:
                process.terminate()
        _log.info("device %s: process %s loads its model", self.name, process.pid)
        return process, ours

    def _take(
        self, channel: Channel, begun_s: float, received: Sequence[tuple[Message, list[bytes]]]
    ) -> None:
        done: list[tuple[FrameWork | None, Done, list[bytes]]] = []
        with self._wake:
            for message, blobs in received:
                if isinstance(message, Done):
                    key = message.number, message.frame_index
                    done.append((self._sent.pop(key, None), message, blobs))
        for work, outcome, pictures in done:
            if work is None:
                continue
            if outcome.reason is None:
                self._post(outcome.number, _rendered(work, outcome, pictures[0]))
            else:
                self._drop([work], outcome.reason)
        for message, _ in received:
            match message:
                case Ready():
                    self._open(channel, time.monotonic() - begun_s)
                case Failed(error):
                    self._failure = error
                case Stats(values):
                    self._stats = values
                case Prepared(avatar_id, error):
                    self._answer(avatar_id, error)

    def _open(self, channel: Channel, seconds: float) -> None:
        _log.info("device %s: its process is ready after %.1f s", self.name, seconds)
        with self._wake:
            self._channel = channel
            if self._closing:
                channel.post(Close())
        self._tell_started(None)

    def _answer(self, avatar_id: str, error: str) -> None:
        with self._wake:
            answers = self._asked.pop(avatar_id, [])
        for answer in answers:
            if error:
                answer.set_exception(AvatarError(error))
            else:
                answer.set_result(None)

    def _ended(self, process: BaseProcess, channel: Channel) -> None:
        """The process has left the pipe: see it off, and give its frames their outcome."""
        with self._wake:
            was_up, self._channel = self._channel is not None, None
            self._stats = {}
            asked = list(self._asked)
        for avatar_id in asked:
            self._answer(avatar_id, f"{avatar_id}: device {self.name} ended while it prepared it")
        lost = self._settle("cancelled" if self._closing else "failed")
        process.join(self._grace_s)
        if process.exitcode is None:
            process.kill()
            process.join(self._grace_s)  # a driver that hangs can keep it beyond its death
        channel.finish(self._grace_s)
        self._failure = self._failure or (
            f"its process ended (exit code {process.exitcode}) before it was ready"
        )
        if self._closing or not self._told:
            return
        if was_up:
            _log.error(
                "device %s: its process ended (exit code %s), %d frames are lost; another is "
                "started",
                self.name,
                process.exitcode,
                lost,
            )
        else:
            _log.error("device %s: not up again: %s", self.name, self._failure)

    # Any thread.

    def _tell(self, message: Message) -> None:
        with self._wake:
            if self._channel is not None and not self._closing:
                self._channel.post(message)

    def _tell_started(self, error: BaseException | None) -> None:
        if not self._told:
            self._told = True
            self._started(error)

    def _settle(self, reason: DropReason) -> int:
        """Drop every frame that has no outcome yet; how many they were."""
        with self._wake:
            lost, self._sent = list(self._sent.values()), {}
        self._drop(lost, reason)
        return len(lost)

    def _drop(self, works: Sequence[FrameWork], reason: DropReason) -> None:
        for work in works:
            self._post(work.spec.number, work.spec.dropped(work.frame_index, reason))


def prepare_avatar(workers: Sequence[ProcessWorker], avatar_id: str) -> None:
    """Have the first process that is up prepare an avatar, and wait for it. Raises AvatarError."""
    up = [worker for worker in workers if not worker.problem]
    if not up:
        raise AvatarError(f"{avatar_id}: no device is up to prepare it; try again")
    up[0].ask_for(avatar_id).result()


def _rendered(work: FrameWork, done: Done, data: bytes) -> RenderedFrame:
    spec, index = work.spec, done.frame_index
    return RenderedFrame(
        generation=spec.generation,
        frame_index=index,
        pts_us=spec.pts_us(index),
        region=done.region,
        size=done.size,
        codec=spec.video.encoder,
        data=data,
    )


def _hold_interrupts() -> None:
    """Keep Ctrl-C from processes that this thread starts, until they ignore it by themselves.

    A thread's mask is inherited; Python handles the signal on its main thread whatever others mask.
    """
    if hasattr(signal, "pthread_sigmask"):
        # Starting the tracker would take the mask off again: let it be there first.
        from multiprocessing.resource_tracker import ensure_running

        ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
