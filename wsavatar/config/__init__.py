"""All settings: `sections` has them with defaults and limits, `loading` where they come from,
`options` those of a face model."""

from .loading import ConfigError, Settings, find_config, load_settings, parse_override
from .options import model_options
from .sections import (
    AsrSettings,
    AudioSettings,
    AvatarSettings,
    Codec,
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
    "Codec",
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
    "model_options",
    "parse_override",
]
