"""Avatars and dialogues by what a client asks for; what is not there is an error of the wire."""

from __future__ import annotations

import asyncio
from functools import partial

from wsavatar.avatars.background import BackgroundError
from wsavatar.avatars.format import AvatarError
from wsavatar.config import Mode, Settings
from wsavatar.dialogue.base import Dialogue, DialogueConfig, DialogueSession
from wsavatar.dialogue.registry import DialogueError
from wsavatar.protocol.events import ProtocolError
from wsavatar.session.engine import AvatarInfo, Engine

__all__ = ["Selection"]


class Selection:
    """What one server offers its sessions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def default_avatar(self) -> str:
        """The id of the default avatar. Raises ProtocolError if there is none."""
        try:
            return await asyncio.to_thread(lambda: self._engine.avatars.default_id)
        except AvatarError as error:
            raise ProtocolError("avatar_not_found", str(error), type="server_error") from error

    async def avatar(
        self, avatar_id: str, param: str | None = None, background: str | None = None
    ) -> AvatarInfo:
        """The avatar of this id, prepared, before the configured background or this one. Raises
        ProtocolError, about ``param`` if there is no such avatar."""
        get = partial(self._engine.avatars.get, avatar_id, background=background)
        try:
            return await asyncio.to_thread(get)
        except BackgroundError as error:
            param = "session.avatar.video.background"
            raise ProtocolError("background_unavailable", str(error), param=param) from error
        except AvatarError as error:
            raise ProtocolError("avatar_not_found", str(error), param=param) from error

    def dialogue(self, mode: Mode, session: DialogueSession, config: DialogueConfig) -> Dialogue:
        """A dialogue that was not started yet. Raises ProtocolError."""
        try:
            return self._engine.create_dialogue(mode, session, config)
        except DialogueError as error:
            raise ProtocolError(error.code, str(error), param="session.avatar.mode") from error

    async def started_dialogue(
        self, mode: Mode, session: DialogueSession, config: DialogueConfig
    ) -> Dialogue:
        """A dialogue that works. Raises ProtocolError."""
        dialogue = self.dialogue(mode, session, config)
        try:
            await dialogue.start()
        except BaseException:
            await dialogue.close()
            raise
        return dialogue

    def mode(self, settings: Settings) -> Mode:
        """The mode of a new session."""
        if settings.dialogue.mode != "auto":
            return settings.dialogue.mode
        if settings.upstream.url:
            return "upstream"
        speech = self._engine.speech
        return "chat" if speech is not None and speech.converse else "parrot"

    def transcriber(self) -> str:
        """The server's speech recognition; empty: there is none."""
        engines = self._engine.speech.status() if self._engine.speech is not None else ()
        return next((engine.name for engine in engines if engine.kind == "asr"), "")
