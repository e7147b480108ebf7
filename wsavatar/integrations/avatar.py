"""An avatar for a program that has a voice: PCM16 in; pictures and the same voice out, in step.

>>> avatar = Avatar("ws://127.0.0.1:8765/v1/realtime")  # doctest: +SKIP
>>> await avatar.start()  # doctest: +SKIP
>>> await avatar.push(pcm); avatar.end_segment()  # doctest: +SKIP
>>> slot = await avatar.next()  # once every 1 / avatar.fps seconds  # doctest: +SKIP

`wsavatar.integrations.pipecat` and `.livekit` are built on this.
"""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import struct
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit

from PIL import Image

from wsavatar.errors import WsavatarError
from wsavatar.integrations.connection import Connection, Message
from wsavatar.integrations.timeline import Step, Timeline
from wsavatar.protocol.binary import unpack

__all__ = ["RATES", "Avatar", "AvatarUnavailable", "Picture", "Slot"]

RATES = (16_000, 24_000, 48_000)
"""Sample rates that the server takes."""
MAX_BUFFERED_S = 120.0
"""Voice that may wait. Full: `Avatar.push` waits."""
STARVED_S = 0.4
"""Without a new frame for this long the face goes to rest rather than freeze."""
DISSOLVE_S = 0.16
"""Duration of the change between speech and rest."""
_HTTP_TIMEOUT_S = 30.0
_AGAIN_S = 0.5
_MAX_IDLE_BYTES = 512 * 1024 * 1024


class AvatarUnavailable(WsavatarError):
    """The server cannot be reached, or refuses the session; the message says why."""


@dataclass(frozen=True, slots=True)
class Picture:
    """``rgb``: 3 bytes a pixel, row by row."""

    rgb: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Slot:
    """What is shown and heard for 1 / fps seconds.

    ``content``: voice (PCM16 mono, bytes) and marks, in order; empty at rest. ``speaking``: the
    picture belongs to the voice.
    """

    picture: Picture
    content: tuple[Any, ...]
    speaking: bool


class Avatar:
    """A session of the server, over as many connections as it takes.

    ``id``: of the avatar; None: the server's default. ``rate``: of the voice, one of `RATES`.
    ``video``: more of ``session.avatar.video`` (``fps``, ``quality``, ``max_width``, a colour as
    ``background``). ``tls``: for
    ``wss://`` with a certificate that the system does not know. ``lead_s``: how long before it is
    heard the program takes a slot.

    A lost connection costs frames, not voice: it goes on over the idle pictures, and the server is
    asked for new frames once it is back.
    """

    def __init__(
        self,
        url: str,
        *,
        id: str | None = None,
        token: str | None = None,
        rate: int = 24_000,
        video: dict[str, Any] | None = None,
        tls: ssl.SSLContext | None = None,
        lead_s: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if rate not in RATES:
            raise ValueError(f"the server takes {RATES} samples a second, not {rate}")
        self.rate = rate
        self._url = url
        self._tls = tls
        self._id = id
        self._video = {"encoding": "binary", "region": "full", **(video or {})}
        self._clock = clock
        self.fps = int(self._video.get("fps", 25))
        self._timeline = Timeline(rate, self.fps, lead_s)
        self._connection = Connection(
            url, token=token, tls=tls, on_message=self._receive, on_lost=self._lost
        )
        self._news = asyncio.Event()  # there may be something to send
        self._room = asyncio.Event()  # `push` may go on
        self._session: asyncio.Future[dict[str, Any]] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._face: _Face | None = None
        self._is_new = False  # the session is not configured yet
        self._interruptions = 0

    # -- lifecycle --------------------------------------------------------------------------------

    async def start(self, timeout_s: float = 30.0) -> None:
        """Connect and fetch the idle pictures. Raises AvatarUnavailable."""
        self._session = asyncio.get_running_loop().create_future()
        self._tasks = [
            asyncio.create_task(self._connection.run(), name="avatar connection"),
            asyncio.create_task(self._send(), name="avatar sender"),
        ]
        try:
            async with asyncio.timeout(timeout_s):
                session = await self._session
                self._face = await asyncio.to_thread(self._fetch_face, session["avatar"]["id"])
        except (OSError, ValueError) as error:
            await self.close()
            why = self._connection.problem or str(error) or "it does not answer"
            raise AvatarUnavailable(f"no avatar from {self._url}: {why}") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the session."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of all pictures."""
        return self._started.size

    @property
    def connected(self) -> bool:
        """Whether frames can come now."""
        return self._timeline.connected

    @property
    def empty(self) -> bool:
        """Whether all voice and all marks were given out."""
        return self._timeline.empty

    # -- the voice --------------------------------------------------------------------------------

    async def push(self, pcm: bytes) -> None:
        """Say this: PCM16 mono at ``rate``, faster than it is heard if you have it. Waits while
        two minutes are buffered."""
        while self._timeline.buffered_s > MAX_BUFFERED_S:
            self._room.clear()
            await self._room.wait()
        self._timeline.push(pcm)
        self._news.set()

    def mark(self, what: Any) -> None:
        """`next` gives this back when all voice before it was given out."""
        self._timeline.mark(what)

    def end_segment(self) -> None:
        """The speech is complete. Without this its last moments wait for more."""
        self._timeline.end_segment()
        self._news.set()

    def interrupt(self) -> list[Any]:
        """Be silent at once. Returns the marks that are not given out any more."""
        marks = self._timeline.interrupt()
        self._interruptions += 1
        self._news.set()
        self._room.set()
        return marks

    # -- the face ---------------------------------------------------------------------------------

    async def next(self) -> Slot:
        """What is due now. To be called once every 1 / fps seconds."""
        now_s = self._clock()
        step = self._timeline.step(now_s)
        report = self._timeline.report(now_s)
        if report is not None:
            await self._connection.send(report)
        self._news.set()
        self._room.set()
        before = self._interruptions
        picture = await asyncio.to_thread(self._started.show, step)
        content = step.content
        if before != self._interruptions:  # meanwhile
            content = tuple(one for one in content if not isinstance(one, bytes))
        return Slot(picture, content, step.speaking)

    # -- the server -------------------------------------------------------------------------------

    @property
    def _started(self) -> _Face:
        if self._face is None:
            raise RuntimeError("start() the avatar first")
        return self._face

    def _receive(self, message: Message) -> None:
        if isinstance(message, dict):
            kind = message.get("type")
            if kind == "session.created":
                self._is_new = True
            elif kind == "session.updated":
                self._timeline.connection_opened()
                if self._session is not None and not self._session.done():
                    self._session.set_result(message["session"])
            elif kind == "error" and not self._timeline.connected:
                # There is no session: the settings are wrong, or the server is not ready.
                self._connection.problem = message["error"]["message"]
                if self._session is not None and not self._session.done():
                    self._session.set_exception(ValueError(message["error"]["message"]))
        self._timeline.receive(message)
        self._news.set()

    def _lost(self) -> None:
        self._timeline.connection_lost()

    async def _send(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if self._is_new:
                self._is_new = False
                await self._connection.send(self._configuration())
            for message in self._timeline.outgoing():
                await self._connection.send(message)

    def _configuration(self) -> dict[str, Any]:
        form = {"type": "audio/pcm", "rate": self.rate}
        avatar: dict[str, Any] = {"mode": "mirror", "video": self._video}
        if self._id is not None:
            avatar["id"] = self._id
        audio = {"input": {"format": form, "turn_detection": None}, "output": {"format": form}}
        session = {"type": "realtime", "audio": audio, "avatar": avatar}
        return {"type": "session.update", "session": session}

    def _fetch_face(self, avatar_id: str) -> _Face:
        address = urlsplit(self._url)
        scheme = "https" if address.scheme == "wss" else "http"
        path = address.path.removesuffix("/v1/realtime")
        base = f"{scheme}://{address.netloc}{path}/avatars/{quote(avatar_id)}"
        about = json.loads(self._get(f"{base}/avatar.json"))
        look = {key: self._video[key] for key in self._video if key in ("background", "codec")}
        idle = self._get(f"{base}/idle.bin?{urlencode(look)}")
        return _Face(idle, about["fps"], self.fps, self._video.get("max_width"))

    def _get(self, url: str) -> bytes:
        until_s = time.monotonic() + _HTTP_TIMEOUT_S
        while True:
            try:
                with urllib.request.urlopen(
                    url, timeout=_HTTP_TIMEOUT_S, context=self._tls
                ) as answer:
                    body: bytes = answer.read(_MAX_IDLE_BYTES)
                return body
            except HTTPError as error:  # 503: pictures before a background are being made
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or time.monotonic() > until_s:
                    raise
                time.sleep(_AGAIN_S)


class _Face:
    """The picture of each slot: frames of speech, the idle cycle, and dissolves between them.

    ``idle``: the server's ``idle.bin``. Runs on a thread, one call at a time.
    """

    def __init__(self, idle: bytes, idle_fps: float, fps: int, max_width: int | None) -> None:
        self._idle = _pictures(idle)
        if not self._idle:
            raise ValueError("the avatar has no idle pictures")
        self._per_slot = idle_fps / fps
        self._cycle = 0.0  # place in the idle cycle
        self._fps = fps
        self._missing = 0  # slots of speech without a frame
        self._source = ""  # of the newest picture: "idle" or "speech"
        self._old: Image.Image | None = None  # dissolves into the new
        self._old_share = 0.0
        first = Image.open(io.BytesIO(self._idle[0]))
        width, height = first.size
        if max_width is not None and max_width < width:
            width, height = max_width, round(height * max_width / width)
        self.size = (width, height)
        self._newest = Image.new("RGB", self.size)

    def show(self, step: Step) -> Picture:
        """The picture of the next slot."""
        speech = self._speech(step)
        source = "idle" if speech is None else "speech"
        if source != self._source:
            if self._source:
                self._old, self._old_share = self._newest, 1.0
            self._source = source
        picture = self._rest() if speech is None else speech
        self._old_share -= 1 / (DISSOLVE_S * self._fps)
        if self._old is not None and self._old_share > 0:
            picture = Image.blend(picture, self._old, self._old_share)
        else:
            self._old = None
        self._newest = picture
        return Picture(picture.tobytes(), *self.size)

    def _speech(self, step: Step) -> Image.Image | None:
        """None: the face is at rest."""
        if not step.speaking:
            self._missing = 0
            return None
        if step.frame is None:
            self._missing += 1
            starved = self._missing > STARVED_S * self._fps
            return None if starved or self._source != "speech" else self._newest
        self._missing = 0
        if step.first_cycle is not None:
            self._cycle = step.first_cycle + (step.index + 1) * self._per_slot
        return self._decode(step.frame)

    def _rest(self) -> Image.Image:
        index, self._cycle = int(self._cycle), self._cycle + self._per_slot
        period = max(1, 2 * (len(self._idle) - 1))  # forward, then backward
        place = index % period
        return self._decode(self._idle[min(place, period - place)])

    def _decode(self, data: bytes) -> Image.Image:
        picture: Image.Image = Image.open(io.BytesIO(data))
        if picture.size != self.size:
            picture = picture.resize(self.size)
        return picture.convert("RGB")


def _pictures(idle: bytes) -> list[bytes]:
    """The pictures of an ``idle.bin``: each a u32 length and a binary frame message."""
    pictures, at = [], 0
    while at + 4 <= len(idle):
        (length,) = struct.unpack_from("<I", idle, at)
        pictures.append(unpack(idle[at + 4 : at + 4 + length]).payload)
        at += 4 + length
    return pictures
