"""The configuration of a session: from the server's settings, and as its dialogue gets it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wsavatar.avatars.avatar import AvatarInfo
from wsavatar.avatars.background import TRANSPARENT, default_name
from wsavatar.config import Codec, DialogueSettings, Mode, Settings
from wsavatar.dialogue.base import DialogueConfig, Persona, TranscriptionRequest
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import ProtocolError, SessionConfig

__all__ = [
    "check_background",
    "check_video",
    "dialogue_config",
    "first_codec",
    "initial_config",
    "may_wait",
    "names_background",
    "with_avatar",
]


def initial_config(
    settings: Settings, avatar: AvatarInfo, mode: Mode, transcriber: str
) -> SessionConfig:
    """The configuration of a new session. ``transcriber``: what recognises speech, or empty."""
    dialogue = settings.dialogue
    detection = wire.TurnDetection(
        threshold=dialogue.vad_threshold,
        prefix_padding_ms=dialogue.vad_prefix_padding_ms,
        silence_duration_ms=dialogue.vad_silence_ms,
        create_response=dialogue.create_response,
        interrupt_response=dialogue.interrupt_response,
    )
    return SessionConfig(
        audio=wire.AudioConfig(
            input=wire.AudioInput(turn_detection=detection if dialogue.turn_detection else None),
        ),
        avatar=wire.AvatarConfig(
            id=avatar.id,
            mode=mode,
            video=wire.VideoConfig(
                fps=settings.render.fps,
                quality=settings.render.jpeg_quality,
                codec=first_codec(settings.render.codecs, avatar.background),
                background=avatar.background,
            ),
        ),
        default_turn_detection=detection,
        default_voice=_default_voice(settings, mode, avatar),
        transcriber=transcriber,
    )


def first_codec(codecs: Sequence[Codec], background: str) -> Codec:
    """The first of these formats that can have such a background."""
    fit = [codec for codec in codecs if background != TRANSPARENT or codec != "jpeg"]
    return fit[0] if fit else "webp"


def check_video(config: SessionConfig, old: SessionConfig, settings: Settings) -> None:
    """Raise ProtocolError for frames that this server does not send."""
    video, before = config.avatar.video, old.avatar.video
    if video.codec != before.codec and video.codec not in settings.render.codecs:
        known = ", ".join(settings.render.codecs)
        text = f"This server's frames are {known} (render.codecs)."
        raise ProtocolError("unsupported_value", text, param="session.avatar.video.codec")
    check_background(video.background, before.background, settings, "session.avatar.video")


def check_background(name: str, default: str, settings: Settings, where: str = "") -> None:
    """Raise ProtocolError where clients may not choose this background."""
    if name not in ("", default) and not settings.avatars.choose_background:
        text = f"On this server the background is {default!r} (avatars.choose_background)."
        param = f"{where}.background".lstrip(".")
        raise ProtocolError("unsupported_value", text, param=param)


def names_background(patch: Mapping[str, Any]) -> bool:
    """Whether a ``session.update`` says which background there is to be."""
    avatar = patch.get("avatar")
    video = avatar.get("video") if isinstance(avatar, dict) else None
    return isinstance(video, dict) and video.get("background") is not None


def may_wait(background: str, settings: Settings) -> bool:
    """Whether another background may be shown until this one is at hand.

    Not in place of the operator's.
    """
    chosen = settings.avatars
    return chosen.choose_background and background != default_name(chosen.background)


def with_avatar(config: SessionConfig, settings: Settings, avatar: AvatarInfo) -> SessionConfig:
    """The configuration with an avatar and what is behind it; it brings its voice if nobody has
    chosen another."""
    video = config.avatar.video.model_copy(update={"background": avatar.background})
    return config.model_copy(
        update={
            "avatar": config.avatar.model_copy(update={"id": avatar.id, "video": video}),
            "default_voice": _default_voice(settings, config.avatar.mode, avatar),
        }
    )


def _default_voice(settings: Settings, mode: Mode, avatar: AvatarInfo) -> str:
    return settings.upstream.voice if mode == "upstream" else settings.tts.voice or avatar.voice


def dialogue_config(
    settings: DialogueSettings, config: SessionConfig, avatar: AvatarInfo
) -> DialogueConfig:
    """The server's settings with the client's changes, and who the avatar is."""
    given = config.audio.input.turn_detection
    detection = given or config.default_turn_detection
    return DialogueConfig(
        settings=settings.model_copy(
            update={
                "mode": config.avatar.mode,
                "turn_detection": given is not None,
                "create_response": detection.create_response,
                "interrupt_response": detection.interrupt_response,
                "vad_threshold": detection.threshold,
                "vad_prefix_padding_ms": detection.prefix_padding_ms,
                "vad_silence_ms": detection.silence_duration_ms,
            }
        ),
        input_rate=config.audio.input.format.rate,
        voice=config.voice,
        transcription=_transcription(config),
        persona=Persona(avatar.language, avatar.instructions, avatar.greeting),
        instructions=config.instructions,
        tools=config.tools,
        tool_choice=config.tool_choice,
        max_output_tokens=config.max_output_tokens,
        modality=config.output_modalities[0],
        semantic=detection.type == "semantic_vad",
        eagerness=detection.eagerness,
        passed_on=config.passed_on,
    )


def _transcription(config: SessionConfig) -> TranscriptionRequest | None:
    asked = config.audio.input.transcription
    if asked is None:
        return None
    model = asked.model if config.avatar.mode == "upstream" else None
    return TranscriptionRequest(asked.language or "", asked.prompt or "", model or "")
