"""One device's thread: takes the most urgent frames, makes them, hands each on as it is done.

It owns the device's queue, its model and its thread. It knows nothing of asyncio or of sessions: a
finished frame is posted to whoever made the worker, from whichever thread finished it.

A frame goes through four stages. *Features* (of its whole chunk, once, with other chunks of the
batch) and *generate* (UNet and VAE) run on the worker's thread, batch by batch. *Paste* and *JPEG*
run frame by frame on the finishers, a few threads beside it, while the worker already makes the
next batch; at most two batches may wait for them, then the worker waits too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from wsavatar.config import RenderSettings
from wsavatar.machine import yield_to_others
from wsavatar.render.finish import make_finisher, to_numpy
from wsavatar.render.jobs import DropReason, FrameOutcome
from wsavatar.render.scheduler import FrameJob, FrameScheduler
from wsavatar.render.work import FaceModel, FrameWork

__all__ = ["FaceWorker"]

_log = logging.getLogger(__name__)

STAGES = ("features", "generate", "paste", "jpeg")


Post = Callable[[int, FrameOutcome], None]


class FaceWorker:
    """One model on one device. ``post(stream, outcome)`` is called once for every frame.

    Its queue holds at most ``max_queued_frames``; `FrameScheduler` says what goes when it is full.
    """

    def __init__(
        self,
        name: str,
        model: FaceModel,
        settings: RenderSettings,
        post: Post,
        *,
        finishers: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.stage_ms: dict[str, float] = dict.fromkeys(STAGES, 0.0)
        """A moving average of what each stage takes a frame, in milliseconds."""
        self.batches = 0
        self._model = model
        self._settings = settings
        self._finisher = make_finisher(model, settings)
        self._post = post
        self._clock = clock
        # Held for microseconds at a time, so the event loop may take it.
        self._wake = threading.Condition()
        self._queue: FrameScheduler[FrameWork] = FrameScheduler(
            batch_size=settings.batch_size,
            max_batch_size=settings.max_batch_size,
            max_queued_frames=settings.max_queued_frames,
            lateness_s=settings.max_lateness_ms / 1000,
        )
        self._closing = False
        self._finishing = threading.BoundedSemaphore(2 * self._queue.max_batch_size)
        self._finishers = ThreadPoolExecutor(
            finishers, thread_name_prefix=f"finish-{name}", initializer=yield_to_others
        )
        self._thread = threading.Thread(target=self._run, name=f"face-{name}", daemon=True)
        self._started: Callable[[BaseException | None], None] = lambda error: None

    def __len__(self) -> int:
        """Frames waiting."""
        return len(self._queue)

    def start(self, started: Callable[[BaseException | None], None]) -> None:
        """Start the thread; ``started`` is called from it once the model is warm, or failed."""
        self._started = started
        self._thread.start()

    def submit(self, jobs: Sequence[FrameJob[FrameWork]]) -> None:
        """Queue frames; those that do not fit, or come after `close`, are posted as dropped."""
        with self._wake:
            dropped: Sequence[FrameJob[FrameWork]] = jobs
            if not self._closing:
                dropped = self._queue.push(jobs)
                self._wake.notify()
        self._drop(dropped, "cancelled" if self._closing else "overload")

    def cancel(self, stream: int) -> None:
        """Forget a stream's waiting frames; they are posted as cancelled."""
        with self._wake:
            removed = self._queue.cancel(stream)
        self._drop(removed, "cancelled")

    def close(self) -> None:
        """Stop after the batch in progress; what still waits is posted as cancelled."""
        with self._wake:
            self._closing = True
            self._wake.notify()

    def join(self) -> None:
        """Wait until the thread has ended and its last frames are posted. Blocks."""
        if self._thread.ident is not None:
            self._thread.join()
        self._finishers.shutdown(wait=True)

    # The worker's thread.

    def _run(self) -> None:
        yield_to_others()
        try:
            # The first user does not wait for a cold device.
            self._model.warm_up(sorted({1, self._settings.batch_size, self._queue.max_batch_size}))
        except Exception as error:
            self._started(error)
            return
        self._started(None)
        while jobs := self._next_jobs():
            self._make(jobs)

    def _next_jobs(self) -> tuple[FrameJob[FrameWork], ...]:
        """Wait for frames and take the most urgent; none where the worker is to end."""
        while True:
            with self._wake:
                while not len(self._queue) and not self._closing:
                    self._wake.wait()
                if self._closing:
                    rest = self._queue.clear()
                else:
                    rest = []
                    cost_s = (self.stage_ms["features"] + self.stage_ms["generate"]) / 1000
                    batch = self._queue.next_batch(self._clock(), cost_s)
            if self._closing:
                self._drop(rest, "cancelled")
                return ()
            self._drop(batch.late, "late")
            if batch.jobs:
                return batch.jobs

    def _make(self, jobs: Sequence[FrameJob[FrameWork]]) -> None:
        """Make a batch. If it fails, try each of its frames once more, alone."""
        works = [job.work for job in jobs]
        try:
            patches = self._generate(works)
        except Exception:
            if len(works) > 1:
                _log.warning("%s: a batch of %d failed; one by one", self.name, len(works))
            self._retry(works)
            return
        self._finish_all(works, patches)

    def _retry(self, works: Sequence[FrameWork]) -> None:
        for work in works:
            try:
                patches = self._generate([work])
            except Exception:
                _log.exception("%s: frame %d could not be made", self.name, work.frame_index)
                self._post(work.spec.number, work.spec.dropped(work.frame_index, "failed"))
            else:
                self._finish_all([work], patches)

    def _generate(self, works: Sequence[FrameWork]) -> np.ndarray:
        started = time.perf_counter()
        self._encode_audio(works)
        encoded = time.perf_counter()
        patches = to_numpy(
            self._model.generate(
                self._finisher.latents(works), [w.source.condition[w.row] for w in works]
            )
        )
        if len(patches) != len(works):
            raise RuntimeError(f"the model made {len(patches)} frames of {len(works)}")
        self._measure("features", encoded - started, len(works))
        self._measure("generate", time.perf_counter() - encoded, len(works))
        self.batches += 1
        return patches

    def _encode_audio(self, works: Sequence[FrameWork]) -> None:
        """Features of the chunks that this batch is the first to touch, all in one call."""
        new = {id(w.source): w.source for w in works if w.source.condition is None}.values()
        if not new:
            return
        block_positions = self._model.spec.grid.block_positions
        windows = np.concatenate([source.chunk.windows for source in new])
        features = self._model.encode_audio(windows)
        start = 0
        for source in new:
            stop = start + len(source.chunk.windows) * block_positions
            source.condition = self._model.condition(features[start:stop], source.chunk, source.fps)
            start = stop

    # The finishers' threads.

    def _finish_all(self, works: Sequence[FrameWork], patches: np.ndarray) -> None:
        for work, patch in zip(works, patches, strict=True):
            self._finishing.acquire()
            self._finishers.submit(self._finish, work, patch)

    def _finish(self, work: FrameWork, patch: np.ndarray) -> None:
        outcome: FrameOutcome
        try:
            started = time.perf_counter()
            pictures = self._finisher.compose([work], patch[np.newaxis])
            composed = time.perf_counter()
            outcome = work.rendered(self._finisher.encode([work], pictures)[0])
            self._measure("paste", composed - started)
            self._measure("jpeg", time.perf_counter() - composed)
        except Exception:
            _log.exception("%s: frame %d could not be finished", self.name, work.frame_index)
            outcome = work.spec.dropped(work.frame_index, "failed")
        finally:
            self._finishing.release()
        self._post(work.spec.number, outcome)

    def _drop(self, jobs: Sequence[FrameJob[FrameWork]], reason: DropReason) -> None:
        for job in jobs:
            work = job.work
            self._post(work.spec.number, work.spec.dropped(work.frame_index, reason))

    def _measure(self, stage: str, seconds: float, frames: int = 1) -> None:
        now_ms, before_ms = 1000 * seconds / frames, self.stage_ms[stage]
        self.stage_ms[stage] = now_ms if not before_ms else before_ms + 0.1 * (now_ms - before_ms)
