"""Every setting there is, with its default, its unit and its limits. Unknown keys fail.

Read from, the later winning: the defaults here, a file in ``configs/``, the environment
(``WSAVATAR_RENDER__BATCH_SIZE=8``), the command line (``--set render.batch_size=8``).
This room knows nothing that runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

__all__ = ["ConfigError", "Settings", "load_settings"]

Mode = Literal["mirror", "parrot", "chat", "upstream"]


class ConfigError(ValueError):
    """A setting is unknown or out of range; the message names it and says what is allowed."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerSettings(_Section):
    """Listening, admission and limits."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    max_sessions: Annotated[int, Field(ge=1)] = 32
    max_message_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    idle_timeout_s: Annotated[float, Field(gt=0)] = 600.0
    shutdown_grace_s: Annotated[float, Field(ge=0)] = 5.0
    auth_tokens: tuple[str, ...] = ()
    """Bearer tokens that may connect; none means everyone may."""
    outbox_bytes: Annotated[int, Field(ge=64 * 1024)] = 8 * 1024 * 1024
    """Frames waiting for one slow client; the oldest go first, audio never goes."""


class AudioSettings(_Section):
    """How audio is sliced and how much of it may wait."""

    chunk_ms: Annotated[int, Field(ge=100, le=2000)] = 500
    max_buffer_s: Annotated[float, Field(gt=0)] = 120.0
    """Longest uncommitted input audio a session may hold."""


class ModelSettings(_Section):
    """Which weights, and where they run."""

    path: str = "embedded"
    """A directory in the official layout, or ``embedded`` for the one in the package."""
    version: Literal["v15", "v1"] = "v15"
    devices: tuple[str, ...] = ("auto",)
    """``auto``, or any of cpu, cuda:0, cuda:1, …; chunks go to them in turn."""
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    cpu_backend: Literal["auto", "openvino", "torch"] = "auto"
    cpu_threads: Annotated[int, Field(ge=0)] = 0
    """0: all cores."""


class RenderSettings(_Section):
    """Batches, pictures and the queue before them."""

    batch_size: Annotated[int, Field(ge=1, le=64)] = 4
    max_batch_size: Annotated[int, Field(ge=1, le=64)] = 4
    """A deep queue may grow a batch up to this."""
    max_queued_frames: Annotated[int, Field(ge=16)] = 2048
    """Per device; beyond it the newest of the deepest session are dropped and counted."""
    jpeg_quality: Annotated[int, Field(ge=10, le=100)] = 85
    fps: Annotated[int, Field(ge=5, le=60)] = 25


class AvatarSettings(_Section):
    """Where avatars lie and where their prepared form is kept."""

    directory: Path | None = None
    """None: the bundled ``avatars/``."""
    cache: Path | None = None
    """None: ``$XDG_CACHE_HOME/wsavatar`` or ``~/.cache/wsavatar``."""
    default: str = ""
    """Empty: the first by name."""


class DialogueSettings(_Section):
    """What a session does with what it hears, unless it asks otherwise."""

    mode: Mode = "parrot"
    vad_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    vad_prefix_padding_ms: Annotated[int, Field(ge=0, le=2000)] = 300
    vad_silence_ms: Annotated[int, Field(ge=100, le=5000)] = 500
    tts: Literal["auto", "edge", "espeak"] = "auto"
    tts_voice: str = ""
    """Empty: the engine's own English voice."""
    max_response_s: Annotated[float, Field(gt=0)] = 300.0


class Settings(BaseSettings):
    """All of it. Frozen: a running server never changes under a session's feet."""

    model_config = SettingsConfigDict(
        env_prefix="WSAVATAR_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    server: ServerSettings = ServerSettings()
    audio: AudioSettings = AudioSettings()
    model: ModelSettings = ModelSettings()
    render: RenderSettings = RenderSettings()
    avatars: AvatarSettings = AvatarSettings()
    dialogue: DialogueSettings = DialogueSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings)


def load_settings(file: Path | None = None, overrides: dict[str, Any] | None = None) -> Settings:
    """Merge the sources in order. Raises ConfigError in words an operator can act on."""
    raise NotImplementedError((file, overrides, yaml, ValidationError))
