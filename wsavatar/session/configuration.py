"""Converts the session's configuration to arguments of a dialogue and of a response. Pure.

Knows the server's settings, a session's configuration, its avatar and the parameters of a response.
"""

from __future__ import annotations

from wsavatar.avatars.avatar import AvatarInfo
from wsavatar.config import DialogueSettings, Mode, Settings
from wsavatar.dialogue.base import DialogueConfig, Persona, ResponseRequest, TranscriptionRequest
from wsavatar.dialogue.conversation import Conversation, Entry
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import ItemReference, ResponseParams, SessionConfig
from wsavatar.session.microphone import recording_of

__all__ = ["dialogue_config", "initial_config", "response_request", "with_avatar"]


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


def response_request(
    params: ResponseParams | None, config: SessionConfig, conversation: Conversation
) -> ResponseRequest:
    """The request of ``response.create``. Raises ProtocolError for a reference to no item."""
    if params is None:
        return ResponseRequest(modality=config.output_modalities[0])
    modalities = params.output_modalities or config.output_modalities
    output = params.audio.output
    return ResponseRequest(
        input=None if params.input is None else _entries(params, config, conversation),
        instructions=params.instructions,
        tools=params.tools,
        tool_choice=params.tool_choice,
        modality=modalities[0],
        max_output_tokens=params.max_output_tokens,
        voice=output.voice or None,
        output_format=output.format,
        metadata=params.metadata,
        in_conversation=params.conversation == "auto",
    )


def _entries(
    params: ResponseParams, config: SessionConfig, conversation: Conversation
) -> tuple[Entry, ...]:
    entries = []
    for index, item in enumerate(params.input or ()):
        if isinstance(item, ItemReference):
            entries.append(conversation.get(item.id, param=f"response.input[{index}].id"))
        else:
            entries.append(
                Entry(
                    item, recording_of(item, config.audio.input.format, f"response.input[{index}]")
                )
            )
    return tuple(entries)
