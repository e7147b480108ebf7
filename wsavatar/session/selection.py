"""Avatars and dialogues by what a client asks for; what is not there is an error of the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from wsavatar.avatars.background import BackgroundError
from wsavatar.avatars.format import AvatarError
from wsavatar.config import Mode, Settings
from wsavatar.dialogue.base import Dialogue, DialogueConfig, DialogueSession
from wsavatar.dialogue.registry import DialogueError
from wsavatar.protocol.events import ProtocolError
from wsavatar.session.engine import AvatarInfo, Engine

__all__ = ["Selection", "only_as_shown", "prepared"]


async def prepared(engine: Engine, avatar_id: str, background: str | None) -> AvatarInfo:
    """The avatar before the background of this name; None: the configured one. Raises AvatarError.

    No thread of the loop's waits while its person is looked for.
    """
    avatars = engine.avatars
    search = await asyncio.to_thread(avatars.cut_out, avatar_id, background)
    if search is not None:
        await _over(search)
        search.result()
    get = partial(avatars.get, avatar_id, background=background)
    return await asyncio.get_running_loop().run_in_executor(engine.preparing, get)


async def _over(search: Future[Any]) -> None:
    """Wait for a search, which goes on for others if this is cancelled."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()

    def tell(_: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(over.set)

    search.add_done_callback(tell)
    await over.wait()


_BACKGROUND = "session.avatar.video.background"


def only_as_shown(avatar_id: str) -> ProtocolError:
    """For another background of an avatar that is shown, whose files are gone."""
    message = f"{avatar_id!r} was deleted: it can have only the background that is shown now"
    return ProtocolError("background_unavailable", message, param=_BACKGROUND)


@contextmanager
def _refusals(param: str | None) -> Iterator[None]:
    """What the store says of an avatar, as errors of the wire."""
    try:
        yield
    except BackgroundError as error:
        raise ProtocolError("background_unavailable", str(error), param=_BACKGROUND) from error
    except AvatarError as error:
        raise ProtocolError("avatar_not_found", str(error), param=param) from error


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
        with _refusals(param):
            return await prepared(self._engine, avatar_id, background)

    async def is_at_hand(self, avatar_id: str, background: str) -> bool:
        """Whether the avatar can be had before this background without its person being looked for
        first, which takes long and begins now. Raises ProtocolError."""
        with _refusals("session.avatar.id"):
            search = await asyncio.to_thread(self._engine.avatars.cut_out, avatar_id, background)
        return search is None

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
