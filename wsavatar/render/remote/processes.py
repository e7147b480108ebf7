"""A device's worker in another process, with the interface of `FaceWorker`.

It owns the device's process (`wsavatar.render.remote.device_process` runs there), the frames sent
to it, and restarts. Processes are used because several GPUs in one process would wait for each
other at Python's lock and at nvJPEG, of which a process has one.

Every frame has exactly one outcome, whatever happens to the process. If it ends (a crash, a kill, a
device that was given up), or is silent for `HUNG_S` and is killed, its frames are dropped as
failed, which is logged, and another process is started, at most one in `RESTART_S`. Until that is
ready, the pool uses other devices.

Two threads: one starts the process and receives from it until it ends, one sends (`Channel`).
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
    AvatarKey,
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
"""Time that a process has to end when told to."""

_spawn = multiprocessing.get_context("spawn")  # a fork would copy CUDA's state, and threads' locks


class ProcessError(WsavatarError, RuntimeError):
    """A device's process could not load its model, or ended before."""


class ProcessWorker:
    """The interface of `FaceWorker`, with a process. ``post`` is called from its threads.

    ``load`` is called in the process, so it must be picklable. At most twice ``max_queued_frames``
    are sent and without an outcome; more are dropped as overload.
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
        self._asked: dict[AvatarKey, list[Future[None]]] = {}  # by avatar: no answer yet
        self._channel: Channel | None = None  # of a process that is ready
        self._process: BaseProcess | None = None
        self._closing = False
        self._starts = 0
        self._stats: dict[str, Any] = {}
        self._failure = ""  # the process's own words
        self._started: Callable[[BaseException | None], None] = lambda error: None
        self._has_reported = False
        self._thread = threading.Thread(target=self._run, name=f"process-{name}", daemon=True)

    def __len__(self) -> int:
        """Frames sent without an outcome yet; `sys.maxsize` while no process is ready."""
        return sys.maxsize if self._channel is None else len(self._sent)

    @property
    def problem(self) -> str:
        """Why no process renders frames now; empty while one does."""
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
        """The process' last `FaceWorker.stats`, half a second old at most. Thread-safe.

        With ``is_up``, whether a process is ready, and ``process_starts``.
        """
        known = {"queued_frames": 0} | self._stats
        return known | {"is_up": self._channel is not None, "process_starts": self._starts}

    def start(self, started: Callable[[BaseException | None], None]) -> None:
        """Start the process; ``started`` is called once its model is warm, or with the error."""
        self._started = started
        self._thread.start()

    def submit(self, jobs: Sequence[FrameJob[FrameWork]]) -> None:
        """Send frames, each chunk once. Frames over the limit are posted as dropped.

        If the limit allows a part of a chunk's frames, the first are sent, as in `FrameScheduler`.
        """
        reason: DropReason = "overload"
        with self._wake:
            free = 0
            if self._closing:
                reason = "cancelled"
            elif self._channel is None:
                reason = "failed"
            else:
                free = self._most_frames - len(self._sent)
                for _, same in groupby(jobs[:free], key=lambda job: id(job.work.source)):
                    self._send_jobs(self._channel, list(same))
        self._drop([job.work for job in jobs[free:]], reason)

    def prepare(self, avatar: AvatarInfo) -> None:
        """Load the avatar of a new stream before its frames are due."""
        self._send(Prepare(AvatarKey.of(avatar)))

    def ask_for(self, avatar: AvatarKey) -> Future[None]:
        """Have the process prepare an avatar; the future's error is an AvatarError."""
        answer: Future[None] = Future()
        with self._wake:
            if self._channel is None or self._closing:
                answer.set_exception(AvatarError(f"device {self.name}: {self._not_up}"))
            else:
                self._asked.setdefault(avatar, []).append(answer)
                self._channel.post(Prepare(avatar))
        return answer

    def cancel(self, stream: int) -> None:
        """Remove a stream's waiting frames; they are posted as cancelled."""
        self._send(Cancel(stream))

    def close(self) -> None:
        """End the process after its batches in progress; waiting frames are posted as cancelled."""
        with self._wake:
            self._closing = True
            if self._channel is not None:
                self._channel.post(Close())
            elif self._process is not None:
                self._process.terminate()  # it still loads, and has no frames
            self._wake.notify_all()

    def join(self) -> None:
        """Wait until the process has ended and all outcomes are posted; kill it if late. Blocks."""
        if self._thread.ident is None:
            return
        self._thread.join(self._grace_s)
        if self._thread.is_alive() and self._process is not None:
            _log.warning("%s: its process did not end in %g s", self.name, self._grace_s)
            self._process.kill()
        self._thread.join(self._hung_s)
        if self._thread.is_alive():
            _log.error("%s: its process was killed and does not end: abandoned", self.name)
            self._settle("cancelled")

    # Under the lock.

    def _send_jobs(self, channel: Channel, jobs: Sequence[FrameJob[FrameWork]]) -> None:
        for job in jobs:
            self._sent[job.work.spec.number, job.work.frame_index] = job.work
        message, blobs = Work.of(jobs)
        channel.post(message, *blobs)

    # The process's thread.

    def _run(self) -> None:
        """Start processes one after another, and receive from each until it ends."""
        _hold_interrupts()
        while True:
            begun_s = time.monotonic()
            self._live()
            with self._wake:
                if not self._has_reported or self._closing:  # it never ran, or must not run again
                    break
                self._wake.wait_for(
                    lambda: self._closing, begun_s + self._restart_s - time.monotonic()
                )
                if self._closing:
                    break
        self._report_started(
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
            _log.error("device %s: process silent for %g s: killed", self.name, self._hung_s)
            process.kill()
        except (EOFError, OSError):
            pass
        except Exception:  # an invalid message
            _log.exception("device %s: its process is stopped", self.name)
            process.kill()
        self._ended(process, channel)
        connection.close()

    def _patience_s(self) -> float | None:
        """Time that the process may be silent: once ready it sends stats every half second."""
        return None if self._channel is None else self._hung_s

    def _start_process(self) -> tuple[BaseProcess, Connection]:
        ours, theirs = _spawn.Pipe()
        process = _spawn.Process(
            target=run_device, args=(theirs, self._plan), name=f"device-{self.name}", daemon=True
        )
        process.start()
        theirs.close()  # so that the pipe ends with the process
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
                case Prepared(avatar, error):
                    self._answer(avatar, error)

    def _open(self, channel: Channel, seconds: float) -> None:
        _log.info("device %s: its process is ready after %.1f s", self.name, seconds)
        with self._wake:
            self._channel = channel
            if self._closing:
                channel.post(Close())
        self._report_started(None)

    def _answer(self, avatar: AvatarKey, error: str) -> None:
        with self._wake:
            answers = self._asked.pop(avatar, [])
        for answer in answers:
            if error:
                answer.set_exception(AvatarError(error))
            else:
                answer.set_result(None)

    def _ended(self, process: BaseProcess, channel: Channel) -> None:
        """The pipe has ended: wait for the process and settle its frames."""
        with self._wake:
            was_up, self._channel = self._channel is not None, None
            self._stats = {}
            asked = list(self._asked)
        for avatar in asked:
            self._answer(avatar, f"{avatar.id}: device {self.name} ended while it prepared it")
        lost = self._settle("cancelled" if self._closing else "failed")
        process.join(self._grace_s)
        if process.exitcode is None:
            process.kill()
            process.join(self._grace_s)  # a driver that hangs can delay its end
        channel.finish(self._grace_s)
        self._failure = self._failure or (
            f"its process ended (exit code {process.exitcode}) before it was ready"
        )
        if self._closing or not self._has_reported:
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

    def _send(self, message: Message) -> None:
        with self._wake:
            if self._channel is not None and not self._closing:
                self._channel.post(message)

    def _report_started(self, error: BaseException | None) -> None:
        if not self._has_reported:
            self._has_reported = True
            self._started(error)

    def _settle(self, reason: DropReason) -> int:
        """Drop every frame without an outcome; returns their number."""
        with self._wake:
            lost, self._sent = list(self._sent.values()), {}
        self._drop(lost, reason)
        return len(lost)

    def _drop(self, works: Sequence[FrameWork], reason: DropReason) -> None:
        for work in works:
            self._post(work.spec.number, work.spec.dropped(work.frame_index, reason))


def prepare_avatar(workers: Sequence[ProcessWorker], avatar: AvatarInfo) -> None:
    """Have the first process that is up prepare an avatar, and wait for it. Raises AvatarError."""
    up = [worker for worker in workers if not worker.problem]
    if not up:
        raise AvatarError(f"{avatar.id}: no device is up to prepare it; try again")
    up[0].ask_for(AvatarKey.of(avatar)).result()


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
    """Block Ctrl-C in processes that this thread starts, until they ignore it themselves.

    A thread's mask is inherited; Python handles the signal on its main thread whatever others mask.
    """
    if hasattr(signal, "pthread_sigmask"):
        # Starting the resource tracker would remove the mask, so start it first.
        from multiprocessing.resource_tracker import ensure_running

        ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
