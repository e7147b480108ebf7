"""All settings, with defaults, units and limits. Unknown keys are errors.

Sources, each overriding the one before: the defaults here, a file in ``configs/``, the environment
(``WSAVATAR_RENDER__BATCH_SIZE=8``), the command line (``--set render.batch_size=8``).
This module knows nothing of what uses the settings.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import yaml  # type: ignore[import-untyped]
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from wsavatar.errors import WsavatarError
from wsavatar.resources import resource_dir

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["ConfigError", "Settings", "find_config", "load_settings", "parse_override"]

Mode = Literal["mirror", "parrot", "chat", "upstream"]


class ConfigError(WsavatarError, ValueError):
    """A setting is unknown or out of range; the message names it and the allowed values."""


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
    max_buffer_s: Annotated[float, Field(ge=2)] = 120.0
    """Maximum uncommitted input audio of a session."""


class ModelSettings(_Section):
    """Which face model, which weights, and where they run."""

    name: str = "musetalk"
    """A face model by its name in `wsavatar.faces.registry`."""
    path: str = "embedded"
    """A directory in the official layout, or ``embedded`` for the model in the package."""
    version: Literal["v15", "v1"] = "v15"
    """MuseTalk's."""
    decoder: Literal["vae", "tiny"] = "vae"
    """MuseTalk's. tiny: TAESD decodes instead of the VAE, several times faster, softer and less
    accurate."""
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
    """None: the bundled ``avatars/``."""
    cache: Path | None = None
    """None: ``$XDG_CACHE_HOME/wsavatar`` or ``~/.cache/wsavatar``."""
    default: str = ""
    """Id of the default avatar; empty: the first by name."""
    detail: bool = True
    """Store the detail that the model's VAE loses of each face (pores, hair, edges), and add it
    where the mouth does not move; 26 MB of memory for 8 s."""


class DialogueSettings(_Section):
    """Defaults of a session's conversation; a client may change them by ``session.update``."""

    mode: Mode = "parrot"
    turn_detection: bool = True
    """False: the client commits its audio and asks for responses."""
    create_response: bool = True
    """Answer at the end of a turn without a ``response.create``."""
    interrupt_response: bool = True
    """User speech interrupts the avatar."""
    interrupt_min_ms: Annotated[int, Field(ge=0, le=2000)] = 200
    """Minimum duration of voice that interrupts the avatar while it speaks."""
    vad_threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    vad_prefix_padding_ms: Annotated[int, Field(ge=0, le=2000)] = 300
    vad_silence_ms: Annotated[int, Field(ge=100, le=5000)] = 500
    tts: Literal["auto", "edge", "espeak"] = "auto"
    tts_voice: str = ""
    """Empty: the engine's default English voice."""
    max_response_s: Annotated[float, Field(gt=0)] = 300.0


class Settings(BaseSettings):
    """All settings. Frozen: they do not change while the server runs."""

    model_config = SettingsConfigDict(
        env_prefix="WSAVATAR_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    server: ServerSettings = ServerSettings()
    audio: AudioSettings = AudioSettings()
    model: ModelSettings = ModelSettings()
    render: RenderSettings = RenderSettings()
    avatars: AvatarSettings = AvatarSettings()
    dialogue: DialogueSettings = DialogueSettings()

    file_values: ClassVar[Mapping[str, Any]] = {}
    """What a configuration file has; `load_settings` makes a class with it."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file_settings = InitSettingsSource(settings_cls, init_kwargs=dict(cls.file_values))
        return (init_settings, env_settings, file_settings)


def load_settings(
    file: Path | str | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Merge the sources in order. Raises ConfigError with one line for each mistake.

    ``file`` is a path, or a name in ``configs/``. ``overrides`` is flat:
    ``{"render.batch_size": 8}``.
    """
    source = _YamlFile.read(find_config(file)) if file is not None else _YamlFile()
    flat = dict(overrides or {})

    class Loaded(Settings):
        file_values = source.values

    _reject_unknown_environment()
    try:
        return Loaded(**_nest(flat))
    except (ValidationError, SettingsError) as error:
        raise ConfigError(_explain(error, flat, source)) from None


def parse_override(text: str) -> tuple[str, Any]:
    """``"render.batch_size=8"`` to ``("render.batch_size", 8)``; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text}: write section.key=value, such as render.batch_size=8")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise ConfigError(f"--set {text}: the value is not valid YAML; quote it") from None


def find_config(file: Path | str) -> Path:
    """The file at a path, or a name (with or without ``.yaml``) in ``configs/``."""
    path = Path(file)
    if path.is_file():
        return path
    directory = resource_dir("configs")
    named = directory / f"{path.name.removesuffix('.yaml')}.yaml"
    if len(path.parts) == 1 and named.is_file():
        return named
    names = ", ".join(sorted(entry.stem for entry in directory.glob("*.yaml")))
    raise ConfigError(f"no configuration {str(file)!r}: give a file, or one of {names}")


@dataclass(frozen=True, slots=True)
class _YamlFile:
    """A file's values, and the line of each key."""

    path: Path | None = None
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _YamlFile:
        try:
            text = path.read_text(encoding="utf-8")
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            where = getattr(error, "problem_mark", None)
            line = f":{where.line + 1}" if where else ""
            problem = getattr(error, "problem", None) or "cannot be read"
            raise ConfigError(f"{path}{line}: not valid YAML: {problem}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: cannot be read: {error}") from None
        if values is None:
            return cls(path)
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise ConfigError(f"{path}: expected sections ({', '.join(Settings.model_fields)})")
        return cls(path, values, dict(_key_lines(root)))


def _key_lines(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            yield name, key.start_mark.line + 1
            yield from _key_lines(value, f"{name}.")


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *sections, key = name.split(".")
        level = nested
        for section in sections:
            level = level.setdefault(section, {})
            if not isinstance(level, dict):
                raise ConfigError(f"--set {name}: {section!r} was set to a value before")
        level[key] = value
    return nested


def _reject_unknown_environment() -> None:
    """Pydantic ignores variables with an unknown section; a mistyped name must be an error."""
    prefix = str(Settings.model_config["env_prefix"])
    for name in os.environ:
        if name.upper().startswith(prefix):
            section = name[len(prefix) :].lower().split("__")[0]
            if section not in Settings.model_fields:
                raise ConfigError(f"environment {name}: {_unknown(section)}")


def _explain(
    error: ValidationError | SettingsError, flat: Mapping[str, Any], source: _YamlFile
) -> str:
    """One line for each mistake: its place, what is wrong, and what is allowed."""
    if isinstance(error, SettingsError):
        return str(error)
    return "\n".join(
        f"{_origin(name, flat, source)}: {_problem(name, detail)}"
        for detail in error.errors()
        if (name := ".".join(str(part) for part in detail["loc"][:2]))
    )


def _origin(name: str, flat: Mapping[str, Any], source: _YamlFile) -> str:
    """The winning source of a setting: command line, then environment, then file."""
    variable = f"{Settings.model_config['env_prefix']}{name.replace('.', '__').upper()}"
    if any(key == name or key.startswith(f"{name}.") for key in flat):
        return f"--set {name}"
    if variable in {key.upper() for key in os.environ}:
        return f"environment {variable}"
    if name in source.lines:
        return f"{source.path}:{source.lines[name]}"
    return name


def _problem(name: str, detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return _unknown(name)
    message = detail["msg"][:1].lower() + detail["msg"][1:]
    return f"{name} = {detail['input']!r}: {message}"


def _unknown(name: str) -> str:
    known = [
        *Settings.model_fields,
        *(
            f"{section}.{key}"
            for section, info in Settings.model_fields.items()
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)
            for key in info.annotation.model_fields
        ),
    ]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else f"; sections are {', '.join(known[:6])}"
    return f"unknown setting {name!r}{hint}"
