"""Small honest stand-ins: a renderer, avatars and a dialogue that do what the real ones promise,
only quickly, and a client that keeps everything it was sent."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect

from tests.protocol.document import check_message
from wsavatar.avatar_jobs.dropped import DroppedFiles
from wsavatar.avatar_jobs.maker import AvatarMaker
from wsavatar.avatars.avatar import PreparedAvatar, cycle_index
from wsavatar.avatars.background import Backgrounds
from wsavatar.avatars.format import AvatarError
from wsavatar.config import ServerSettings, Settings
from wsavatar.dialogue import registry
from wsavatar.dialogue.base import (
    SPEECH_RATE,
    Dialogue,
    DialogueConfig,
    DialogueSession,
    Response,
    ResponseRequest,
    Word,
)
from wsavatar.dialogue.engine import EngineStatus
from wsavatar.dialogue.engines import Engines
from wsavatar.dialogue.registry import DialogueError
from wsavatar.dialogue.tts import VoiceInfo, VoiceList
from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.faces.base import Chunk, Progress
from wsavatar.faces.masks import Masks
from wsavatar.media import jpeg
from wsavatar.media.pictures import DecodedPictures, Pictures
from wsavatar.protocol.binary import BinaryMessage, MessageType, unpack
from wsavatar.render.encoders import encoder_for
from wsavatar.render.jobs import DroppedFrame, FrameOutcome, RenderedFrame, VideoFormat
from wsavatar.render.load import Capacity
from wsavatar.serve.server import AvatarServer
from wsavatar.session.engine import AvatarInfo, Engine
from wsavatar.speech.chunker import Chunker, FeatureGrid
from wsavatar.videos.jobs import VideoJobs

GRID = FeatureGrid()
PERSON = np.zeros((32, 32), np.uint8)
"""Where the person is in the pictures of `avatar`."""
PERSON[6:, 6:26] = 255


def avatar(
    avatar_id: str, *, frame_count: int = 8, fps: float = 25.0, **words: str
) -> PreparedAvatar:
    """A prepared avatar of 32x32 pixels; its pictures are all of one grey that its id gives.

    ``words``: its voice, language, instructions and greeting.
    """
    grey = sum(avatar_id.encode()) % 256
    frames = np.full((frame_count, 32, 32, 3), grey, np.uint8)
    face = AvatarFace(
        crop_boxes=np.tile(np.array([8, 8, 24, 24], np.int32), (frame_count, 1)),
        paste_boxes=np.tile(np.array([4, 4, 28, 28], np.int32), (frame_count, 1)),
        masks=(np.full((24, 24), 255, np.uint8),) * frame_count,
        inputs=np.zeros((frame_count, 8, 2, 2), np.float16),
    )
    return PreparedAvatar(
        avatar_id,
        avatar_id.title(),
        32,
        32,
        fps,
        DecodedPictures(frames),
        (4, 16, 24, 12),
        face,
        **words,
    )


@dataclass
class Info:
    id: str
    name: str
    removable: bool = False
    width: int = 32
    height: int = 32
    fps: float = 25.0
    frame_count: int = 8
    has_poster: bool = False


class FakeAvatars:
    """A store of avatars that are always prepared. ``video``: what idle_video gives.

    ``uploads``: a directory of whose folders each is an avatar that a client made.
    """

    def __init__(
        self,
        *avatars: str | PreparedAvatar,
        video: Path | None = None,
        uploads: Path | None = None,
    ) -> None:
        made = [avatar(one) if isinstance(one, str) else one for one in avatars]
        self._avatars = {one.id: one for one in made}
        self._video = video
        self._uploads = uploads
        self._names: dict[str, str] = {}

    @property
    def default_id(self) -> str:
        return next(iter(self._avatars))

    def list(self) -> list[Info]:
        uploaded = self._uploaded()
        infos = [Info(one, one.title()) for one in self._avatars if one not in uploaded]
        return infos + [Info(one, self._names.get(one, one.title()), True) for one in uploaded]

    def taken(self) -> set[str]:
        return {one.id for one in self.list()}

    def get(
        self, avatar_id: str, progress: Progress | None = None, *, background: str | None = None
    ) -> PreparedAvatar:
        if avatar_id in self._uploaded():
            if progress is not None:
                progress(8, 8)
            self._avatars.setdefault(avatar_id, avatar(avatar_id))
        if avatar_id not in self._avatars:
            raise AvatarError(f"no avatar {avatar_id!r}; known: {', '.join(self._avatars)}")
        plain = self._avatars[avatar_id]
        behind = Backgrounds("original").named(background)
        if behind is None:
            return plain
        person = PERSON.repeat(plain.height // 32, 0).repeat(plain.width // 32, 1)
        return plain.before(behind, Masks([person] * plain.frame_count))

    def preview(self, avatar_id: str) -> bytes:
        return jpeg.encode(self.get(avatar_id).pictures[0])

    def rename(self, avatar_id: str, name: str) -> None:
        self._removable(avatar_id)
        self._names[avatar_id] = name

    def delete(self, avatar_id: str) -> None:
        shutil.rmtree(self._removable(avatar_id))
        self._avatars.pop(avatar_id, None)

    def _uploaded(self) -> list[str]:
        if self._uploads is None or not self._uploads.is_dir():
            return []
        return sorted(path.name for path in self._uploads.glob("[!.]*") if path.is_dir())

    def _removable(self, avatar_id: str) -> Path:
        if self._uploads is None or avatar_id not in self._uploaded():
            raise AvatarError(f"{avatar_id!r} was not made by a client")
        return self._uploads / avatar_id

    def idle_pictures(self, avatar_id: str, background: str | None = None) -> Pictures:
        return self.get(avatar_id, background=background).pictures

    def idle_video(self, avatar_id: str) -> Path:
        self.get(avatar_id)
        return self._video or Path(__file__)

    def poster(self, avatar_id: str) -> Path | None:
        self.get(avatar_id)
        return None


@dataclass
class FakeStream:
    """A response's frames, each settled once, soon after it was submitted."""

    face: FakeRenderer
    avatar: PreparedAvatar
    video: VideoFormat
    generation: int
    first_cycle_index: int
    on_frame: Callable[[FrameOutcome], None]
    due_s: list[float] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    cancelled: bool = False
    closed: bool = False

    def submit(self, chunk: Chunk, due_s: float) -> None:
        frames = range(chunk.first_frame, chunk.first_frame + chunk.frame_count)
        self.due_s.append(due_s)
        self.indices += frames
        self.waiting += frames
        if not self.face.held:
            asyncio.get_running_loop().call_soon(self.render)

    def render(self, count: int | None = None) -> None:
        """Settle the oldest frames that wait."""
        ready, self.waiting = self.waiting[:count], self.waiting[len(self.waiting[:count]) :]
        for index in ready:
            self.on_frame(self._frame(index))

    def drop(self, count: int, reason: Any) -> None:
        ready, self.waiting = self.waiting[:count], self.waiting[count:]
        for index in ready:
            self.on_frame(DroppedFrame(self.generation, index, self._pts_us(index), reason))

    def cancel(self) -> None:
        self.cancelled = True
        self.drop(len(self.waiting), "cancelled")

    def close(self) -> None:
        self.closed = True

    def _pts_us(self, index: int) -> int:
        return round(index * 1_000_000 / self.video.fps)

    def _frame(self, index: int) -> RenderedFrame:
        source = cycle_index(self.first_cycle_index + index, self.avatar.frame_count)
        label = {"avatar": self.avatar.id, "index": index, "source": source}
        codec = self.video.encoder
        picture = encoder_for(codec).encode(self.avatar.pictures[source], 50)
        data = picture + json.dumps(label).encode() + bytes(self.face.padding)
        return RenderedFrame(
            self.generation, index, self._pts_us(index), (0, 0, 32, 32), (32, 32), codec, data
        )


class FakeRenderer:
    """A renderer that takes no time; while ``held``, frames wait for `FakeStream.render`."""

    def __init__(self, *, held: bool = False, padding: int = 0) -> None:
        self.held = held
        self.padding = padding
        self.streams: list[FakeStream] = []
        self.is_open = False
        self.problems = {"fake:0": "", "fake:1": ""}
        self.capacity = Capacity(time.monotonic)

    async def start(self) -> None:
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False

    def open_chunker(self, fps: Fraction, chunk_ms: int, first_ms: int | None = None) -> Chunker:
        return GRID.open_chunker(fps, chunk_ms, first_ms)

    def open_stream(
        self,
        avatar: AvatarInfo,
        video: VideoFormat,
        generation: int,
        first_cycle_index: int,
        on_frame: Callable[[FrameOutcome], None],
    ) -> FakeStream:
        stream = FakeStream(self, avatar, video, generation, first_cycle_index, on_frame)
        self.streams.append(stream)
        return stream

    def health(self) -> dict[str, str]:
        return self.problems

    def stats(self) -> dict[str, int]:
        return {"streams": len(self.streams)}


def tone(seconds: float, hz: float, rate: int = SPEECH_RATE) -> np.ndarray:
    """A sine of amplitude 0.5, float32."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype("f4")


class ToneDialogue(Dialogue):
    """Says what it is told to as a tone: ``speak("440 2.5")`` is 2.5 s of 440 Hz.

    ``speak("crash")`` raises, ``speak("fail")`` fails its response, ``speak("hum 300")`` says 1 s
    and leaves the response open, ``speak("timed 440 1")`` says when its words are, and
    ``speak("call NAME JSON")`` calls a function. What was committed is transcribed as "hello
    there", or not at all where the client's prompt is "fail". ``calls`` is what it was told, in
    order.
    """

    def __init__(self, session: DialogueSession, config: DialogueConfig) -> None:
        self.session = session
        self.config = config
        self.calls: list[str] = []
        self.heard_samples = 0
        self.commits: list[tuple[str, int]] = []
        self.requests: list[ResponseRequest] = []
        self.closed = False
        self.response: Response | None = None

    async def heard(self, samples: np.ndarray) -> None:
        self.calls.append("heard")
        self.heard_samples += len(samples)

    async def cleared(self) -> None:
        self.calls.append("cleared")

    async def committed(self, item_id: str) -> None:
        self.calls.append("committed")
        audio = self.session.conversation.get(item_id).audio
        assert audio is not None
        self.commits.append((item_id, len(audio.samples)))
        if self.config.transcription is None:
            return
        if self.config.transcription.prompt == "fail":
            self.session.transcription_failed(item_id, "engine_failed", "It broke.")
            return
        self.session.transcript_delta(item_id, "hello ")
        self.session.transcript_delta(item_id, "there")
        self.session.transcribed(item_id, "hello there", len(audio.samples) / audio.rate)

    async def create_response(self, request: ResponseRequest) -> None:
        self.calls.append("create_response")
        self.requests.append(request)
        newest = self.session.conversation.last_user_entry()
        entries = request.input if request.input is not None else [newest] if newest else []
        text = "".join(entry.item.text for entry in entries)
        await self._say(text or "440 1", request)

    async def speak(self, text: str) -> None:
        self.calls.append("speak")
        await self._say(text, None)

    async def _say(self, text: str, request: ResponseRequest | None) -> None:
        if text == "crash":
            raise RuntimeError("this dialogue crashes")
        self.response = response = self.session.respond(request)
        if text == "fail":
            await response.fail("tts_failed", "no voice")
            return
        if text.startswith("hum"):
            await response.audio(tone(1.0, float(text.split()[1])))
            return
        if text.startswith("call"):
            _, name, arguments = text.split(maxsplit=2)
            await response.arguments("call_1", name, arguments[:4])
            await response.arguments("call_1", name, arguments[4:])
            await response.done()
            return
        is_timed = text.startswith("timed")
        hz, seconds = text.removeprefix("timed ").split()[:2]
        await response.text(text)
        if is_timed:
            await response.words([Word(text, 0.0, float(seconds), estimated=True)])
        await response.audio(tone(float(seconds), float(hz)))
        await response.done()

    async def configure(self, config: DialogueConfig) -> None:
        self.calls.append("configure")
        self.config = config

    async def close(self) -> None:
        self.closed = True


class Dialogues:
    """Makes `ToneDialogue`s and remembers them; the mode ``upstream`` is not available."""

    def __init__(self, kind: type[ToneDialogue] = ToneDialogue) -> None:
        self.kind = kind
        self.refuses_upstream = True
        self.made: list[tuple[str, ToneDialogue]] = []

    def create(self, mode: str, session: DialogueSession, config: DialogueConfig) -> ToneDialogue:
        if mode == "upstream" and self.refuses_upstream:
            raise DialogueError("unsupported_mode", "There is no mode 'upstream' yet.")
        dialogue = self.kind(session, config)
        self.made.append((mode, dialogue))
        return dialogue


class ToneVoice:
    """Says every phrase as half a second of tone."""

    def __init__(self, name: str) -> None:
        self.name = name

    def for_response(self) -> ToneVoice:
        return self

    async def speak(self, text: str) -> AsyncIterator[np.ndarray]:
        yield tone(0.5, 330)


class FakeSpeech:
    """Engines that are there, and named."""

    def __init__(self, *, converse: bool = False) -> None:
        self.converse = converse

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def status(self) -> list[EngineStatus]:
        return [EngineStatus("asr", "a good ear"), EngineStatus("llm", "a clever model")]

    def voice(self, name: str = "") -> ToneVoice:
        return ToneVoice(name)

    def voice_list(self) -> VoiceList:
        return VoiceList((VoiceInfo("coral", "Coral", "en-US", "openai"),), complete=False)


def fake_engine(
    face: FakeRenderer | None = None,
    avatars: FakeAvatars | None = None,
    create_dialogue: Callable[..., Any] | None = None,
    speech: FakeSpeech | None = None,
    maker: AvatarMaker | None = None,
    dropped: DroppedFiles | None = None,
    videos: VideoJobs | None = None,
) -> Engine:
    return Engine(
        face or FakeRenderer(),
        avatars or FakeAvatars("ada", "bob"),
        create_dialogue or Dialogues().create,
        speech,
        maker,
        videos,
        dropped,
    )


def real_dialogues(**sections: Any) -> Callable[..., Dialogue]:
    """The modes that the product has, with engines by these settings."""
    return partial(registry.create, Engines(Settings(**sections)))


def settings(**sections: dict[str, Any]) -> Settings:
    """Settings for a test: any free port, no engines that this machine may have, and what is
    given."""
    server = {"host": "127.0.0.1", "port": 0, **sections.pop("server", {})}
    for kind in ("asr", "llm"):
        sections.setdefault(kind, {"engine": "none"})
    return Settings(server=ServerSettings(**server), **sections)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def running(
    engine: Engine, chosen: Settings | None = None, frontend: Path | None = None
) -> AsyncIterator[AvatarServer]:
    """A server with this engine, listening and ready."""
    server = AvatarServer(chosen or settings(), lambda *_: engine, frontend)
    async with server:
        await server.ready()
        yield server


@dataclass
class Client:
    """A WebSocket client that keeps what it was sent, in order: events, and binary messages."""

    socket: ClientConnection
    log: list[dict[str, Any] | BinaryMessage] = field(default_factory=list)

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def receive(self, timeout_s: float = 30.0) -> dict[str, Any] | BinaryMessage:
        async with asyncio.timeout(timeout_s):
            message = await self.socket.recv()
        got = unpack(message) if isinstance(message, bytes) else json.loads(message)
        if isinstance(got, dict):
            check_message("sendServerEvent", got)
        self.log.append(got)
        return got

    async def until(self, kind: str, timeout_s: float = 30.0) -> dict[str, Any]:
        """Read up to the next event of this type; the rest is in ``log``."""
        while True:
            got = await self.receive(timeout_s)
            if isinstance(got, dict) and got["type"] == kind:
                return got

    async def error(self) -> dict[str, Any]:
        """The next error event's content."""
        error: dict[str, Any] = (await self.until("error"))["error"]
        return error

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """All events, or those of one type."""
        return [one for one in self.log if isinstance(one, dict) and kind in (None, one["type"])]

    def kinds(self) -> list[str]:
        """The types of all events in order, repeats in a row told once."""
        names = [one["type"] for one in self.events()]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]

    def binary(self, kind: MessageType) -> list[BinaryMessage]:
        return [one for one in self.log if isinstance(one, BinaryMessage) and one.type is kind]

    def binary_only(self) -> bool:
        """Whether audio and frames came as binary messages, and none as JSON."""
        kinds = {one["type"] for one in self.events()}
        as_json = kinds & {"response.output_audio.delta", "response.video.delta"}
        return not as_json and any(isinstance(one, BinaryMessage) for one in self.log)

    def audio(self) -> bytes:
        """All audio of the response, from JSON or binary messages."""
        packed = b"".join(one.payload for one in self.binary(MessageType.AUDIO))
        deltas = self.events("response.output_audio.delta")
        return packed + b"".join(base64.b64decode(one["delta"]) for one in deltas)

    def frames(self) -> list[tuple[int, float, int, bytes]]:
        """(index, pts in ms, generation, JPEG) of every frame, from JSON or binary messages."""
        packed = [
            (one.index, one.pts_us / 1000, one.generation, one.payload)
            for one in self.binary(MessageType.FRAME)
        ]
        return packed + [
            (one["frame_index"], one["pts_ms"], one["generation"], base64.b64decode(one["delta"]))
            for one in self.events("response.video.delta")
        ]


@contextlib.asynccontextmanager
async def client(server: AvatarServer, query: str = "", **options: Any) -> AsyncIterator[Client]:
    """A connected client that has read its session.created."""
    url = f"ws://127.0.0.1:{server.port}/v1/realtime{query}"
    async with connect(url, max_size=None, compression=None, **options) as socket:
        connected = Client(socket)
        await connected.until("session.created")
        yield connected


def label_of(frame: bytes) -> dict[str, Any]:
    """What a `FakeRenderer` wrote behind a frame's picture."""
    text = frame[frame.rindex(b"\xff\xd9") + 2 :].rstrip(b"\0")
    label: dict[str, Any] = json.loads(text)
    return label


def frame_total(seconds: float, fps: int = 25) -> int:
    return -int(-Fraction(seconds).limit_denominator(1_000_000) * fps // 1)


async def served_well(server: AvatarServer) -> None:
    """A good client gets a whole response."""
    async with client(server) as good:
        await good.send("avatar.speak", text="440 1")
        done = await good.until("response.done")
        assert done["response"]["status"] == "completed"
        assert len(good.frames()) == 25


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def get(
    server: AvatarServer, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> Answer:
    def ask() -> Answer:
        asking = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        with contextlib.closing(asking):
            asking.request(method, path, headers=headers or {})
            return Answer(asking.getresponse())

    return await asyncio.to_thread(ask)
