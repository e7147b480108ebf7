"""The configuration of a session: from the server's settings, and as its dialogue gets it. Pure."""

from __future__ import annotations

from wsavatar.avatars.avatar import AvatarInfo
from wsavatar.config import DialogueSettings, Mode, Settings
from wsavatar.dialogue.base import DialogueConfig, Persona, TranscriptionRequest
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import SessionConfig

__all__ = ["dialogue_config", "initial_config", "with_avatar"]


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
            video=wire.VideoConfig(fps=settings.render.fps, quality=settings.render.jpeg_quality),
        ),
        default_turn_detection=detection,
        default_voice=_default_voice(settings, mode, avatar),
        transcriber=transcriber,
    )


def with_avatar(config: SessionConfig, settings: Settings, avatar: AvatarInfo) -> SessionConfig:
    """The configuration with an avatar, which brings its voice if nobody has chosen another."""
    return config.model_copy(
        update={
            "avatar": config.avatar.model_copy(update={"id": avatar.id}),
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
