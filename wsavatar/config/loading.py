"""All settings and where they come from. Unknown keys are errors.

Sources, each overriding the one before: the defaults here, a file in ``configs/``, the environment
(``WSAVATAR_RENDER__BATCH_SIZE=8``), the command line (``--set render.batch_size=8``).
This module knows nothing of what uses the settings.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from wsavatar.errors import WsavatarError
from wsavatar.resources import resource_dir

from .sections import (
    AsrSettings,
    AudioSettings,
    AvatarSettings,
    DialogueSettings,
    LlmSettings,
    ModelSettings,
    RenderSettings,
    ServerSettings,
    TtsSettings,
    UpstreamSettings,
    VideoSettings,
)

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = ["ConfigError", "Settings", "find_config", "load_settings", "parse_override"]


class ConfigError(WsavatarError, ValueError):
    """A setting is unknown or out of range; the message names it and the allowed values."""


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
    videos: VideoSettings = VideoSettings()
    dialogue: DialogueSettings = DialogueSettings()
    asr: AsrSettings = AsrSettings()
    llm: LlmSettings = LlmSettings()
    tts: TtsSettings = TtsSettings()
    upstream: UpstreamSettings = UpstreamSettings()

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
    sections = ", ".join(Settings.model_fields)
    hint = f"; did you mean {near[0]!r}?" if near else f"; sections are {sections}"
    return f"unknown setting {name!r}{hint}"
