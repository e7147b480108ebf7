"""What one client asks about the list of avatars: it uploads a file, renames, deletes.

Beside the conversation: its events have a queue and a task of their own, so that neither waits for
the other. The queue is bounded by what a client may send without an acknowledgement, and a client
has one upload at a time. It knows neither files nor faces; `wsavatar.avatar_jobs` does the work.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from wsavatar.avatar_jobs.maker import AvatarMaker, BusyError, Step
from wsavatar.avatar_jobs.upload import Upload
from wsavatar.avatars.format import AvatarError
from wsavatar.creation import AvatarRequest
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import ProtocolError, new_id
from wsavatar.session.avatar_list import list_updated, listed
from wsavatar.session.downlink import Downlink

__all__ = ["AvatarMaking", "STALLED_S"]

STALLED_S = 60.0
"""An upload of which nothing came for so long is given up."""
_MAX_QUEUED = 64
_PROGRESS_S = 0.1
_APPEND_BYTES = 1024  # of an append besides its data


@dataclass(slots=True, eq=False)
class _Upload:
    id: str
    file: Upload
    request: AvatarRequest
    making: asyncio.Task[None] | None = None
    """The file is complete, and an avatar is made of it."""


class AvatarMaking:
    """Of one session. `receive` what the client sends; keep `run` running.

    ``maker`` None: this server makes no avatars. ``is_allowed``: this client may change the list.
    """

    def __init__(
        self,
        downlink: Downlink,
        maker: AvatarMaker | None,
        max_message_bytes: int,
        *,
        is_allowed: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._downlink = downlink
        self._maker = maker
        self._is_allowed = is_allowed
        fits = (max_message_bytes - _APPEND_BYTES) * 3 // 4
        self._piece_bytes = max(64, min(wire.MAX_PIECE_BYTES, fits))
        self._clock = clock
        # Full: what comes is refused, and the client told to wait for an acknowledgement.
        self._queue: deque[wire.AvatarRequestEvent] = deque()
        self._queued_bytes = 0
        self._came = asyncio.Event()
        self._upload: _Upload | None = None
        self._ended = ""  # the last upload: what is still on its way for it is no mistake
        self._told_s = -1.0
        self._told_stage = ""

    def receive(self, event: wire.AvatarRequestEvent) -> None:
        """Queue what the client sent, or refuse it; never waits."""
        size = len(event.data) if isinstance(event, wire.AvatarCreateAppend) else 0
        if size > self._piece_bytes:
            text = f"data: A piece may have {self._piece_bytes} bytes."
            refusal = ProtocolError("too_long", text, param="data", event_id=event.event_id)
            self._downlink.error(refusal)
        elif len(self._queue) >= _MAX_QUEUED or self._queued_bytes + size > wire.WINDOW_BYTES:
            text = (
                f"{_MAX_QUEUED} events and {wire.WINDOW_BYTES >> 10} KiB may wait: go on when "
                "avatar.create.received has come."
            )
            self._downlink.error(ProtocolError("upload_too_fast", text, event_id=event.event_id))
        else:
            self._queue.append(event)
            self._queued_bytes += size
            self._came.set()

    async def run(self) -> None:
        """Work through what came, in order, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    event = await self._next()
                    try:
                        await self._handle(event, tasks)
                    except ProtocolError as error:
                        error.event_id = event.event_id
                        self._downlink.error(error)
                    except AvatarError as error:
                        self._downlink.error(_refusal(error, event.event_id))
        finally:
            if self._upload is not None and self._maker is not None:
                await self._maker.end_upload(self._upload.file)

    async def _next(self) -> wire.AvatarRequestEvent:
        while not self._queue:
            self._came.clear()
            upload = self._upload
            is_receiving = upload is not None and upload.making is None
            try:
                async with asyncio.timeout(STALLED_S if is_receiving else None):
                    await self._came.wait()
            except TimeoutError:
                assert upload is not None
                text = f"Nothing came for {STALLED_S:g} s: begin again."
                await self._fail(upload, "upload_stalled", text)
        event = self._queue.popleft()
        if isinstance(event, wire.AvatarCreateAppend):
            self._queued_bytes -= len(event.data)
        return event

    async def _handle(self, event: wire.AvatarRequestEvent, tasks: asyncio.TaskGroup) -> None:
        maker = self._maker
        if maker is not None and isinstance(event, wire.AvatarList):
            self._downlink.event(list_updated(await maker.listing()))
            return
        if maker is None or not self._is_allowed:
            raise ProtocolError(
                "avatars_locked",
                "This client may change no avatars here. The server's setting is avatars.uploads; "
                "by default it takes a token, or a server that only this machine reaches.",
            )
        match event:
            case wire.AvatarCreate():
                await self._begin(event, maker)
            case wire.AvatarCreateAppend():
                await self._append(event)
            case wire.AvatarCreateCommit():
                upload = self._receiving(event.upload_id)
                upload.making = tasks.create_task(
                    self._make(upload, maker), name=f"make {upload.id}"
                )
            case wire.AvatarCreateCancel():
                await self._cancel(event.upload_id)
            case wire.AvatarRename():
                await maker.rename(event.avatar_id, event.name)
                renamed = wire.AvatarRenamed(avatar_id=event.avatar_id, name=event.name)
                self._downlink.event(renamed)
            case wire.AvatarDelete():
                await maker.delete(event.avatar_id)
                self._downlink.event(wire.AvatarDeleted(avatar_id=event.avatar_id))

    async def _begin(self, event: wire.AvatarCreate, maker: AvatarMaker) -> None:
        if self._upload is not None:
            raise ProtocolError(
                "upload_active",
                f"This session makes an avatar already: wait for {self._upload.id}, or cancel it.",
            )
        file = await maker.open_upload(event.file_name, event.size)
        request = AvatarRequest(id=event.id, name=event.name, face=event.face)
        self._upload = _Upload(new_id("upload"), file, request)
        self._downlink.event(
            wire.AvatarCreateReady(
                upload_id=self._upload.id,
                max_piece_bytes=self._piece_bytes,
                window_bytes=wire.WINDOW_BYTES,
            )
        )

    async def _append(self, event: wire.AvatarCreateAppend) -> None:
        if event.upload_id == self._ended:
            return
        upload = self._receiving(event.upload_id)
        try:
            received = await asyncio.to_thread(upload.file.append, event.offset, event.data)
        except AvatarError as error:
            await self._fail(upload, "upload_failed", str(error))
            return
        self._downlink.event(
            wire.AvatarCreateReceived(upload_id=upload.id, received_bytes=received)
        )

    async def _cancel(self, upload_id: str) -> None:
        upload = self._upload
        if upload is None or upload.id != upload_id:
            raise _no_such_upload(upload_id)
        if upload.making is not None:
            upload.making.cancel()
            await asyncio.wait({upload.making})
        if self._upload is upload:  # else it has just ended
            await self._fail(upload, "cancelled", "The client has cancelled it.")

    async def _make(self, upload: _Upload, maker: AvatarMaker) -> None:
        def tell(step: Step) -> None:
            self._progress(upload.id, step)

        try:
            made = await maker.make_of(upload.file, upload.request, tell)
        except BusyError as error:
            await self._fail(upload, "avatars_busy", upload.file.told(str(error)))
            return
        except AvatarError as error:
            await self._fail(upload, "avatar_unfit", upload.file.told(str(error)))
            return
        await self._end(upload)
        self._downlink.event(
            wire.AvatarCreated(
                upload_id=upload.id,
                avatar=listed(made.entry),
                notes=[upload.file.told(note) for note in made.notes],
                preview=made.preview,
            )
        )

    def _progress(self, upload_id: str, step: Step) -> None:
        """Tell the client a step: each stage's first, and then ten a second."""
        now_s = self._clock()
        if step.stage == self._told_stage and now_s - self._told_s < _PROGRESS_S:
            return
        self._told_stage, self._told_s = step.stage, now_s
        self._downlink.event(
            wire.AvatarCreateProgress(
                upload_id=upload_id, stage=step.stage, done=step.done, total=step.total
            )
        )

    async def _fail(self, upload: _Upload, code: str, message: str) -> None:
        await self._end(upload)
        error = wire.AvatarCreateError(code=code, message=message)
        self._downlink.event(wire.AvatarCreateFailed(upload_id=upload.id, error=error))

    async def _end(self, upload: _Upload) -> None:
        self._upload, self._ended = None, upload.id
        assert self._maker is not None
        await self._maker.end_upload(upload.file)

    def _receiving(self, upload_id: str) -> _Upload:
        upload = self._upload
        if upload is None or upload.id != upload_id or upload.making is not None:
            raise _no_such_upload(upload_id)
        return upload


def _no_such_upload(upload_id: str) -> ProtocolError:
    text = f"upload_id: No file is received for {upload_id[:64]!r}: send avatar.create."
    return ProtocolError("upload_not_found", text, param="upload_id")


def _refusal(error: AvatarError, event_id: str | None) -> ProtocolError:
    code = "avatars_busy" if isinstance(error, BusyError) else "avatar_refused"
    return ProtocolError(code, str(error), event_id=event_id)
