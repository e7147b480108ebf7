"""The main program of a device's process.

It loads the model, runs a `FaceWorker`, and connects it to the server's messages.
`wsavatar.render.remote.processes` is the other side.

It ends at once when its device hangs, when frame after frame fails, or after an error of its own.
The other side then settles its frames and starts another process.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple, NoReturn

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.faces.base import FaceModel
from wsavatar.machine import yield_to_others
from wsavatar.render.jobs import DropReason, FrameOutcome, RenderedFrame
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
from wsavatar.render.threads import Threads
from wsavatar.render.work import ChunkWork
from wsavatar.render.worker import HUNG_S, FaceWorker

__all__ = ["BROKEN_AFTER", "BROKEN_EXIT_CODE", "DevicePlan", "Load", "Loaded", "run_device"]

_log = logging.getLogger(__name__)

STATS_S = 0.5
AVATARS_AT_HAND = 8
"""Avatars kept here; others are asked of the store, which may read the disk."""

BROKEN_AFTER = 64
"""Failed frames in a row after which the process ends: after some CUDA errors every further call
fails until the process ends."""
BROKEN_EXIT_CODE = 3


class Loaded(NamedTuple):
    """A loaded model and its avatars. ``get_avatar`` may block and raise anything."""

    model: FaceModel
    get_avatar: Callable[[AvatarKey], PreparedAvatar]


Load = Callable[[], Loaded]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """Arguments of a device's process. Picklable: ``load`` is a module's function or a partial."""

    name: str
    load: Load
    settings: RenderSettings
    finishers: int
    log_level: int = logging.INFO
    hung_s: float = HUNG_S


def run_device(connection: Connection, plan: DevicePlan) -> None:
    """Run a device's process to its end."""
    # Ctrl-C in a terminal reaches every process; the server decides when this one ends. The signal
    # was blocked until here, so that it could not interrupt the imports.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    # Directly to the terminal, so that the last lines of a crashing process are not lost.
    logging.basicConfig(
        level=plan.log_level,
        format=f"%(asctime)s %(levelname)s %(name)s [{plan.name}]: %(message)s",
    )
    _DeviceProcess(connection, plan).run()


class _DeviceProcess:
    """A `FaceWorker` and its connection to the pipe."""

    def __init__(self, connection: Connection, plan: DevicePlan) -> None:
        self._plan = plan
        self._channel = Channel(connection, plan.name)
        self._closing = threading.Event()
        self._failed_in_a_row = 0
        self._loaders = Threads(2, "avatar")
        self._loaders.start()
        self._lock = threading.Lock()  # over the two below and the order of a stream's frames
        self._avatars: OrderedDict[AvatarKey, PreparedAvatar] = OrderedDict()
        self._awaited: dict[AvatarKey, list[tuple[Work, ChunkWork]]] = {}  # by avatar on its way

    def run(self) -> None:
        try:
            worker = self._start()
        except Exception as error:  # whatever a model's files or a device can do
            _log.debug("the model cannot run", exc_info=True)
            self._channel.post(Failed(f"{error}" or type(error).__name__))
            self._channel.finish()
            return
        self._worker = worker
        gc.collect()
        gc.freeze()  # a collection that looks at all that the libraries made takes 0.3 s
        self._channel.post(Ready())
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        while not self._closing.wait(STATS_S):
            self._channel.post(Stats(worker.stats()))
            worker.watch()
            if worker.problem:
                _give_up(worker.problem)
        self._end()

    def _start(self) -> FaceWorker:
        """Load and warm up the model. Raises their errors."""
        yield_to_others()  # the threads that the model starts inherit it
        model, self._get_avatar = self._plan.load()
        plan = self._plan
        worker = FaceWorker(
            plan.name,
            model,
            plan.settings,
            self._post,
            finishers=plan.finishers,
            hung_s=plan.hung_s,
        )
        errors: list[BaseException | None] = []
        is_started = threading.Event()

        def started(error: BaseException | None) -> None:
            errors.append(error)
            is_started.set()

        worker.start(started)
        is_started.wait()
        if errors[0] is not None:
            raise errors[0]
        return worker

    def _end(self) -> None:
        """Settle every frame; if the device hangs, end the process."""
        reason = f"it did not end in {self._plan.hung_s:g} s"
        last_resort = threading.Timer(self._plan.hung_s, _give_up, [reason])
        last_resort.daemon = True
        last_resort.start()
        self._worker.close()
        self._loaders.join(self._plan.hung_s)
        with self._lock:
            for key in self._awaited:
                self._drop_awaited(key, lambda work: True, "cancelled")
        self._worker.join()
        self._channel.finish()

    # The thread that listens.

    def _listen(self) -> None:
        try:
            while not self._closing.is_set():
                for message, blobs in self._channel.receive():
                    self._take(message, blobs)
        except (EOFError, OSError):  # the server has ended
            pass
        except Exception as error:
            _give_up("what was sent could not be taken", error)
        finally:
            self._closing.set()

    def _take(self, message: Message, blobs: Sequence[bytes]) -> None:
        match message:
            case Work():
                self._submit(message, message.source(blobs))
            case Prepare(key):
                self._prepare(key)
            case Cancel(number):
                with self._lock:
                    for key in self._awaited:
                        self._drop_awaited(key, lambda w: w.number == number, "cancelled")
                self._worker.cancel(number)
            case Close():
                self._closing.set()

    def _submit(self, work: Work, source: ChunkWork) -> None:
        with self._lock:
            avatar = self._avatar_at_hand(work.avatar)
            if avatar is None:
                self._awaited[work.avatar].append((work, source))
            else:
                self._worker.submit(work.jobs(avatar, source))

    def _prepare(self, key: AvatarKey) -> None:
        with self._lock:
            avatar = self._avatar_at_hand(key)
        if avatar is not None:
            self._worker.prepare(avatar)
            self._channel.post(Prepared(key))

    def _avatar_at_hand(self, key: AvatarKey) -> PreparedAvatar | None:
        """The avatar, or None while it is loaded on another thread, so that other frames go on."""
        avatar = self._avatars.get(key)
        if avatar is not None:
            self._avatars.move_to_end(key)
        elif key not in self._awaited:
            self._awaited[key] = []
            self._loaders.submit(self._load_avatar, key)
        return avatar

    # Any thread.

    def _load_avatar(self, key: AvatarKey) -> None:
        try:
            avatar = self._get_avatar(key)
            self._worker.prepare(avatar)
            with self._lock:
                for work, source in self._awaited[key]:
                    self._worker.submit(work.jobs(avatar, source))
                del self._awaited[key]
                self._avatars[key] = avatar
                while len(self._avatars) > AVATARS_AT_HAND:
                    self._avatars.popitem(last=False)
            self._channel.post(Prepared(key))
        except Exception as error:  # a second outcome, of what was submitted, is not read there
            _log.error("avatar %s cannot be used here: %s", key.id, error)
            with self._lock:
                self._drop_awaited(key, lambda work: True, "failed")
                self._awaited.pop(key, None)
            self._channel.post(Prepared(key, f"{error}" or type(error).__name__))

    def _drop_awaited(
        self, key: AvatarKey, which: Callable[[Work], bool], reason: DropReason
    ) -> None:
        """Drop frames that wait for an avatar. Call it with the lock held."""
        awaited = self._awaited.get(key, [])
        for work, _ in awaited:
            if which(work):
                for row, _, _ in work.frames:
                    index = work.first_frame + row
                    self._channel.post(Done(work.number, index, reason))
        self._awaited[key] = [pair for pair in awaited if not which(pair[0])]

    def _post(self, number: int, outcome: FrameOutcome) -> None:
        """Called by the worker for each frame."""
        if isinstance(outcome, RenderedFrame):
            self._failed_in_a_row = 0
            done = Done(number, outcome.frame_index, None, outcome.region, outcome.size)
            self._channel.post(done, outcome.data)
            return
        self._channel.post(Done(number, outcome.frame_index, outcome.reason))
        if outcome.reason == "failed":
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= BROKEN_AFTER:
                _give_up(f"{BROKEN_AFTER} frames failed in a row")


def _give_up(reason: str, error: BaseException | None = None) -> NoReturn:
    """End the process now, without waiting for threads."""
    _log.critical("%s: giving up", reason, exc_info=error)
    os._exit(BROKEN_EXIT_CODE)
