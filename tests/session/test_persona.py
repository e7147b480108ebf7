"""Who the avatar is: its voice, language, instructions and greeting, as its file says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.fake_avatars import FakeAvatars, avatar
from tests.session.held import Held, holding
from wsavatar.dialogue.base import DialogueConfig, Persona

ADA = {
    "voice": "en-US-Ada, en-us+f3",
    "language": "en",
    "instructions": "Be Ada.",
    "greeting": "I am Ada.",
}
BOB = {"voice": "de-DE-Bob", "language": "de", "instructions": "Sei Bob.", "greeting": "Hallo."}


@asynccontextmanager
async def meeting(**chosen: Any) -> AsyncIterator[Held]:
    """A session with Ada, where Bob and somebody of whom nothing is known can be chosen."""
    avatars = FakeAvatars(avatar("ada", **ADA), avatar("bob", **BOB), "someone")
    async with holding(avatars=avatars, **chosen) as held:
        yield held


def told(held: Held) -> DialogueConfig:
    return held.dialogues.made[-1][1].config


async def update(held: Held, **session: Any) -> str:
    """Send a session.update; returns the voice that is then shown."""
    before = len(held.line.of("session.updated"))
    held.line.say("session.update", session=session)
    updated = await held.line.until("session.updated", before + 1)
    voice: str = updated["session"]["audio"]["output"]["voice"]
    return voice


def a_voice(name: str) -> dict[str, Any]:
    return {"output": {"voice": name}}


async def test_the_dialogue_knows_who_it_is_and_another_avatar_is_another_person() -> None:
    """In place: the conversation goes on, with the other's words and voice."""
    async with meeting() as held:
        created = held.line.of("session.created")[0]["session"]
        assert created["audio"]["output"]["voice"] == "en-US-Ada"
        assert told(held).persona == Persona("en", "Be Ada.", "I am Ada.")
        assert told(held).voice == "en-US-Ada, en-us+f3"  # each engine takes what it knows
        assert await update(held, avatar={"id": "bob"}) == "de-DE-Bob"
        assert told(held).persona == Persona("de", "Sei Bob.", "Hallo.")
        assert told(held).voice == "de-DE-Bob"
        assert await update(held, avatar={"id": "someone"}) == ""
        assert told(held).persona == Persona()
        assert len(held.dialogues.made) == 1


async def test_a_voice_that_the_client_chose_stays_with_every_avatar() -> None:
    """Until it chooses the empty one, which means the avatar's own."""
    async with meeting() as held:
        assert await update(held, audio=a_voice("coral")) == "coral"
        assert await update(held, avatar={"id": "bob"}) == "coral"
        assert told(held).voice == "coral"
        assert await update(held, audio=a_voice("")) == "de-DE-Bob"


async def test_the_servers_voice_is_every_avatars() -> None:
    """``tts.voice`` in the settings is a choice of who runs the server."""
    async with meeting(tts={"voice": "onyx"}) as held:
        assert held.line.of("session.created")[0]["session"]["audio"]["output"]["voice"] == "onyx"
        assert await update(held, avatar={"id": "bob"}) == "onyx"
        assert (told(held).voice, told(held).persona.language) == ("onyx", "de")


async def test_a_session_that_is_sent_back_with_another_avatar_gets_its_voice() -> None:
    """What session.updated showed is no choice: an SDK may send all of it with every update."""
    async with meeting() as held:
        await update(held, audio=a_voice("en-US-Ada"))
        assert await update(held, audio=a_voice("en-US-Ada"), avatar={"id": "bob"}) == "de-DE-Bob"


async def test_a_response_names_the_voice_that_is_shown() -> None:
    """response.created has the session's voice, or the one that was asked for it alone."""
    async with meeting() as held:
        held.line.say("response.create")
        held.line.say("response.create", response={"audio": a_voice("coral")})
        await held.line.until("response.done", 2)
        voices = [
            one["response"]["audio"]["output"]["voice"] for one in held.line.of("response.created")
        ]
        assert voices == ["en-US-Ada", "coral"]
