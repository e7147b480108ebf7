"""The sections of the settings, with defaults, units and limits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic_settings import NoDecode

__all__ = [
    "AsrSettings",
    "AudioSettings",
    "AvatarSettings",
    "Codec",
    "DialogueSettings",
    "LlmSettings",
    "Mode",
    "ModelSettings",
    "RenderSettings",
    "ServerSettings",
    "TtsSettings",
    "UpstreamSettings",
    "VideoSettings",
]

Mode = Literal["mirror", "parrot", "chat", "upstream"]


def _split(value: object) -> object:
    """Lists may be written with commas: ``cuda:0,cuda:1``."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.strip("[]").split(",") if part.strip())
    return value


def _origins(values: tuple[str, ...]) -> tuple[str, ...]:
    """Normalise origins as browsers send them: scheme, host and port, in lower case."""
    for value in values:
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#@\s]+/?", value, re.IGNORECASE):
            raise ValueError(f"{value!r} is no origin: write scheme and host, https://example.com")
    return tuple(value.lower().rstrip("/") for value in values)


def _not_a_comment(value: object) -> object:
    if value is None:
        raise ValueError('in YAML # begins a comment: put a colour into quotes, "#00b140"')
    return value


Codec = Literal["jpeg", "webp", "png"]

Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Section):
    """Address, admission and limits."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    max_sessions: Annotated[int, Field(ge=1)] = 32
    max_message_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    idle_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    resume_s: Annotated[float, Field(ge=0, le=600)] = 30.0
    """How long a session whose connection is lost waits for its client's next one; 0: it ends."""
    shutdown_grace_s: Annotated[float, Field(ge=0)] = 5.0
    auth_tokens: Names = ()
    """Bearer tokens that may connect; empty: everyone may."""
    allowed_origins: Annotated[Names, AfterValidator(_origins)] = ()
    """Web origins other than the server's own page (``https://example.com``) that may connect and
    read HTTP responses."""
    tls_cert: Path | None = None
    """PEM file of the certificate and its chain; the server then accepts https and wss only."""
    tls_key: Path | None = None
    """PEM file of the certificate's key; None: the key is in ``tls_cert``."""
    frames: Literal["asked", "always"] = "asked"
    """asked: a session gets frames once its client has used the avatar extension
    (``session.avatar``, any ``avatar.*`` event, ``?avatar=``). always: every session gets them."""
    outbox_bytes: Annotated[int, Field(ge=64 * 1024)] = 8 * 1024 * 1024
    """Limit of frames that wait for one slow client. The oldest are dropped first, audio never."""


class AudioSettings(_Section):
    """Audio chunks and buffers."""

    chunk_ms: Annotated[int, Field(ge=100, le=2000)] = 500
    first_chunk_ms: Annotated[int, Field(ge=40, le=2000)] = 200
    """In the first second of a response, so that its first frame comes early."""
    live_chunk_ms: Annotated[int, Field(ge=40, le=2000)] = 200
    """Of speech that is mirrored while it is spoken: a client need wait only so long for the next
    frames. A server over its capacity takes ``chunk_ms``, which is less work."""
    max_buffer_s: Annotated[float, Field(ge=2)] = 120.0
    """Maximum uncommitted input audio of a session."""


class ModelSettings(_Section):
    """Which face model, which weights, and where they run.

    A face model may have settings of its own here, which it checks itself: `model_options`.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = ""
    """A face model by its name in `wsavatar.faces.registry`; empty: the first."""
    path: str = "embedded"
    """A directory in the official layout, or ``embedded`` for the model in the package."""
    devices: Annotated[Names, Field(min_length=1)] = ("auto",)
    """``auto``, or any of cpu, cuda:0, cuda:1, …; chunks go to them in turn."""
    processes: Literal["auto", "one", "per_device"] = "auto"
    """per_device: each device has a process of its own. auto: the same with several GPUs."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    """auto: float16 on a GPU. On a CPU bfloat16 where OpenVINO runs, the processor computes in it
    (AVX512-BF16, AMX) and the model's wsavatar.json says that its pictures stay true; else float32.
    """
    cpu_backend: Literal["auto", "openvino", "torch"] = "auto"
    cpu_threads: Annotated[int, Field(ge=0)] = 0
    """0: all cores."""


class RenderSettings(_Section):
    """Batches, pictures and the render queue."""

    batch_size: Annotated[int, Field(ge=1, le=64)] = 4
    max_batch_size: Annotated[int, Field(ge=1, le=64)] = 4
    """Limit to which a batch grows when the queue is long."""
    max_queued_frames: Annotated[int, Field(ge=16)] = 2048
    """Per device; above it the newest frames of the session with most are dropped and counted."""
    max_lateness_ms: Annotated[int, Field(ge=0, le=10_000)] = 40
    """Maximum lateness of a frame; later ones are dropped before rendering. Finished videos drop no
    frames."""
    jpeg_quality: Annotated[int, Field(ge=10, le=100)] = 85
    """Of WebP pictures too."""
    codecs: Annotated[tuple[Codec, ...], NoDecode, BeforeValidator(_split), Field(min_length=1)] = (
        "jpeg",
        "webp",
        "png",
    )
    """Formats of the frames that clients may ask for; unless they do, they get the first that can
    have the background. WebP and PNG can be transparent, and cost more: docs/performance.md."""
    fps: Annotated[int, Field(ge=5, le=60)] = 25
    sharpness: Annotated[float, Field(ge=0, le=2)] = 0.55
    """Unsharp mask on the model's picture, for a mouth as sharp as the face around it; 0: off."""
    colour_match: bool = False
    """Shift the mouth's colours by up to 6 levels of 255 to those of the video at the seam."""
    device_avatar_mb: Annotated[int, Field(ge=0)] = 4096
    """GPU memory for avatars, MB; the least recently used are removed first. An avatar of 8 s at
    1280x720 takes 740 MB, so the default is enough for five and leaves the rest of 24 GB to the
    model. An avatar that does not fit is copied frame by frame."""


class AvatarSettings(_Section):
    """Folders of avatars and of prepared avatars."""

    directory: Path | None = None
    """None: the bundled ``avatars/``, which are there too where this one has none at the start."""
    cache: Path | None = None
    """None: ``$XDG_CACHE_HOME/wsavatar`` or ``~/.cache/wsavatar``."""
    default: str = ""
    """Id of the default avatar; empty: Leo of the bundled ones, else the first by name, of
    ``directory`` if it has any."""
    decoded_mb: Annotated[int, Field(ge=0)] = 256
    """Pictures of an avatar stay decoded in memory up to so many MB: 13 s at 512x512. Longer or
    larger ones are decoded when they are wanted, which costs time and saves memory."""
    uploads: Literal["auto", "on", "off"] = "auto"
    """Whether clients may make avatars, and rename and delete those. auto: clients with a token;
    without tokens, clients of this machine while the server listens on it alone."""
    uploads_directory: Path | None = None
    """Of the avatars that clients make. None: ``$XDG_DATA_HOME/wsavatar/avatars`` or
    ``~/.local/share/wsavatar/avatars``."""
    more_directories: tuple[Path, ...] = ()
    """Further folders of avatars, after these two. Nothing in them is changed."""
    max_uploads: Annotated[int, Field(ge=1)] = 100
    """Avatars in ``uploads_directory``."""
    max_upload_mb: Annotated[int, Field(ge=1, le=4096)] = 100
    """Size of a client's photo or video, in 1024 * 1024 bytes."""
    max_upload_megapixels: Annotated[int, Field(ge=1, le=500)] = 80
    """Pixels of a client's photo."""
    max_upload_s: Annotated[float, Field(gt=0)] = 600.0
    """Duration of a client's video. Of a long one the calmest part is taken."""
    parallel: Annotated[int, Field(ge=0, le=64)] = 0
    """Avatars that are made at the same time while the server runs; 0: one for every four cores."""
    watch: bool = True
    """Photos and videos that are put into ``directory`` or ``uploads_directory`` become avatars."""
    landmarks: Literal["embedded", "dwpose"] = "embedded"
    """What finds faces when an avatar is made: the small networks of the package, or DWPose, whose
    files `weights --download --dwpose` fetches."""
    dwpose: Path | None = None
    """Folder of DWPose's two ONNX files; None: ``dwpose/`` in ``model.path``, or where that is the
    embedded model, ``models/dwpose``."""
    background: Annotated[str, BeforeValidator(_not_a_comment)] = "original"
    """What is behind the avatars: original, transparent, a colour such as "#00b140", or the path of
    a picture, which is scaled to cover."""
    choose_background: bool = True
    """Clients may ask for another background. The first time the person is looked for in each of
    the avatar's pictures, which takes seconds to minutes."""
    detail: bool = True
    """Move each frame's own pixels with the jaw, and show the model's only where the mouth differs
    from them: skin, beard and the edge of the face stay the picture's."""


class VideoSettings(_Section):
    """Videos that clients order over the WebSocket (``avatar.render``)."""

    enabled: bool = True
    parallel: Annotated[int, Field(ge=1, le=16)] = 1
    """Videos that are made at the same time. Live sessions come first."""
    max_waiting: Annotated[int, Field(ge=0, le=1000)] = 8
    """Videos that wait for their turn; more are refused."""
    max_s: Annotated[float, Field(gt=0, le=3600)] = 300.0
    """Longest video."""
    keep_s: Annotated[float, Field(gt=0)] = 3600.0
    """How long a finished video can be fetched."""
    disk_mb: Annotated[int, Field(ge=1)] = 1024
    """Disk for finished videos, in 1024 * 1024 bytes; the oldest are deleted first."""
    directory: Path | None = None
    """Where they are kept, in a folder of their own; None: the system's for temporary files."""


class DialogueSettings(_Section):
    """Defaults of a session's conversation; a client may change them by ``session.update``."""

    mode: Literal["auto"] | Mode = "auto"
    """A new session's. auto: upstream where ``upstream.url`` is set, else chat where speech
    recognition and a language model work, else parrot."""
    turn_detection: bool = True
    """False: the client commits its audio and asks for responses."""
    create_response: bool = True
    """Answer at the end of a turn without a ``response.create``."""
    interrupt_response: bool = True
    """User speech interrupts the avatar."""
    interrupt_min_ms: Annotated[int, Field(ge=0, le=2000)] = 96
    """Voice in a row that interrupts the avatar while it speaks, in blocks of 32 ms. A click, a
    cough or a knock makes fewer than three of them."""
    echo_guard: bool = True
    """The avatar's own voice, from loudspeakers in the microphone, does not interrupt it."""
    vad_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    vad_prefix_padding_ms: Annotated[int, Field(ge=0, le=2000)] = 300
    vad_silence_ms: Annotated[int, Field(ge=100, le=5000)] = 500
    resume_false_interruption: bool = True
    """Speech over the avatar in which no words were recognised, or only a "mm-hmm", does not cost
    the answer: it goes on where it stopped. Needs speech recognition."""
    apology: str = "Sorry, I cannot answer just now."
    """Said when no answer can be had; the reason is in the response. Empty: nothing is said."""
    max_response_s: Annotated[float, Field(gt=0)] = 300.0


class AsrSettings(_Section):
    """Speech recognition: what the user says, as text."""

    engine: str = "auto"
    """An engine by its name in `wsavatar.dialogue.asr`; auto: an endpoint if ``base_url`` is set,
    else what is installed; none: nothing is recognised."""
    model: str = ""
    """The engine's: a name or a directory; empty: its default."""
    language: str = ""
    """As "en"; empty: the avatar's, else the engine finds it out."""
    base_url: str = ""
    """An OpenAI-compatible endpoint: ``http://127.0.0.1:8000/v1``."""
    api_key: SecretStr = SecretStr("")
    """Empty: ``OPENAI_API_KEY``."""
    device: str = "auto"
    """Where a local model runs: auto, cpu, cuda, cuda:1."""
    timeout_s: Annotated[float, Field(gt=0)] = 10.0


class LlmSettings(_Section):
    """The language model: what the avatar answers."""

    engine: str = "auto"
    """An engine by its name in `wsavatar.dialogue.llm`; auto: the endpoint of ``base_url`` or of
    ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``, else an Ollama on this machine, else what is
    installed; none: no language model."""
    model: str = ""
    """Empty: the endpoint's first, or the engine's default."""
    base_url: str = ""
    """An OpenAI-compatible endpoint; empty: ``OPENAI_BASE_URL``, else OpenAI's."""
    api_key: SecretStr = SecretStr("")
    """Empty: ``OPENAI_API_KEY``."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """None: the model's own."""
    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """Longest answer, unless the client asks for a shorter one."""
    history_tokens: Annotated[int, Field(ge=64)] = 4000
    """Older messages are left out above this."""
    instructions: str = ""
    """Empty: the avatar's, else to be friendly and brief, since the answer is spoken."""
    extra_body: dict[str, Any] = {}
    """Added to the request's JSON."""
    timeout_s: Annotated[float, Field(gt=0)] = 20.0
    """To the first token, and from one to the next."""


class TtsSettings(_Section):
    """Speech synthesis: the avatar's voice."""

    engines: Annotated[Names, Field(min_length=1)] = ("auto",)
    """Engines by their names in `wsavatar.dialogue.tts`, in order: where one fails, the next one
    speaks. auto: all that are set up, the best first."""
    voice: str = ""
    """A name, or several with commas between them, of which each engine takes the first that it
    knows. Empty: the avatar's, else the engine's default English voice."""
    model: str = ""
    """The endpoint's model, or Piper's default voice: its name, its file, or a folder of voices.
    Empty: the engine's own."""
    base_url: str = ""
    """An OpenAI-compatible endpoint."""
    api_key: SecretStr = SecretStr("")
    """Empty: ``OPENAI_API_KEY``."""
    timeout_s: Annotated[float, Field(gt=0)] = 8.0
    """To the first sound, and from one to the next."""


def _websocket(url: str) -> str:
    if url and not re.fullmatch(r"wss?://[^/?#@\s]+(/[^?#\s]*)?(\?[^#\s]*)?", url):
        raise ValueError("write the address of a WebSocket: wss://api.openai.com/v1/realtime")
    return url


class UpstreamSettings(_Section):
    """The server that mode ``upstream`` talks to: any on the OpenAI Realtime protocol."""

    url: Annotated[str, AfterValidator(_websocket)] = ""
    """``wss://api.openai.com/v1/realtime``; empty: there is no such mode."""
    model: str = ""
    """For the address' ``?model=``; empty: as ``url`` has it, else OpenAI's ``gpt-realtime``."""
    api_key: SecretStr = SecretStr("")
    """Empty: ``OPENAI_API_KEY`` where the host is OpenAI's, else none is sent. It is sent as
    ``api-key`` to Azure, else as a bearer token."""
    headers: dict[str, SecretStr] = {}
    """Sent when connecting, besides the key's."""
    voice: str = ""
    """Empty: the upstream's default."""
    instructions: str = ""
    """Empty: the avatar's, else the upstream's default."""
    transcription_model: str = "gpt-4o-mini-transcribe"
    """For clients that want to know what the user said and name no model."""
    timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """To connect, and for each answer that is waited for."""
