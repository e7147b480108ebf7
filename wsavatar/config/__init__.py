"""All settings: `sections` has them with defaults and limits, `loading` where they come from."""

from .loading import ConfigError, Settings, find_config, load_settings, parse_override
from .sections import (
    AsrSettings,
    AudioSettings,
    AvatarSettings,
    DialogueSettings,
    LlmSettings,
    Mode,
    ModelSettings,
    RenderSettings,
    ServerSettings,
    TtsSettings,
    UpstreamSettings,
    VideoSettings,
)

__all__ = [
    "AsrSettings",
    "AudioSettings",
    "AvatarSettings",
    "ConfigError",
    "DialogueSettings",
    "LlmSettings",
    "Mode",
    "ModelSettings",
    "RenderSettings",
    "ServerSettings",
    "Settings",
    "TtsSettings",
    "UpstreamSettings",
    "VideoSettings",
    "find_config",
    "load_settings",
    "parse_override",
]
