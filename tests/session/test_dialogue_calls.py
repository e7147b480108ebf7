"""What a session tells its dialogue beyond what every mode needs, and what that may choose."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from tests.fake_dialogue import Dialogues, ToneDialogue
from tests.session.held import Held, Line, holding
from wsavatar.dialogue.base import DialogueConfig, DialogueSession
from wsavatar.dialogue.conversation import Entry, Recording
from wsavatar.protocol.events import ProtocolError

PCM = base64.b64encode(bytes(9_600)).decode()  # 0.2 s


class Remote(ToneDialogue):
    """Stands for a dialogue whose conversation is kept elsewhere: it chooses ids itself."""

    broken = False

    def __init__(self, session: DialogueSession, config: DialogueConfig) -> None:
        super().__init__(session, config)
        self.edits: list[tuple[Any, ...]] = []
        self.stopped: list[int] = []
        self.pending = False
        self.closed = False

    async def start(self) -> None:
        if self.broken:
            raise ProtocolError("upstream_unreachable", "It is not there.", type="server_error")

    async def commit(self, audio: Recording) -> bool:
        self.session.commit(audio, item_id="theirs_1")
        return True

    async def item_created(self, entry: Entry, previous_id: str | None) -> None:
        self.edits.append(("created", entry.id, previous_id, self.session.event_id))

    async def item_deleted(self, item_id: str) -> None:
        self.edits.append(("deleted", item_id))

    async def item_truncated(self, item_id: str, heard_ms: int) -> None:
        self.edits.append(("truncated", heard_ms))

    async def cancelled(self) -> bool:
        return self.pending

    async def speak(self, text: str) -> None:
        self.response = self.session.respond(response_id="resp_theirs", stopped=self.stopped.append)
        await self.response.audio(np.zeros(24_000, np.float32))


def dialogue(held: Held) -> Remote:
    made = held.dialogues.made[-1][1]
    assert isinstance(made, Remote)
    return made


def text_item(item_id: str) -> dict[str, Any]:
    content = [{"type": "input_text", "text": "hello"}]
    return {"id": item_id, "type": "message", "role": "user", "content": content}


async def test_a_dialogue_learns_of_every_change_of_the_conversation() -> None:
    """Items that a client creates, deletes and truncates, with the id of its event."""
    async with holding(dialogues=Dialogues(Remote)) as held:
        line = held.line
        line.say("conversation.item.create", item=text_item("one"), event_id="mine")
        line.say("conversation.item.create", item=text_item("two"), previous_item_id="root")
        line.say("conversation.item.delete", item_id="one")
        line.say("conversation.item.delete", item_id="never")
        line.say("avatar.speak", text="any")
        item = (await line.until("response.output_item.added"))["item"]
        line.say(
            "conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=500
        )
        await line.until("conversation.item.truncated")
        await line.caught_up()
        assert dialogue(held).edits == [
            ("created", "one", None, "mine"),
            ("created", "two", "root", None),
            ("deleted", "one"),
            ("truncated", 500),
        ]


async def test_a_dialogue_may_choose_the_ids() -> None:
    """The item of the client's commit, a turn's item, and a response have the dialogue's ids."""
    async with holding(dialogues=Dialogues(Remote)) as held:
        held.line.say("input_audio_buffer.append", audio=PCM)
        held.line.say("input_audio_buffer.commit")
        assert (await held.line.until("input_audio_buffer.committed"))["item_id"] == "theirs_1"
        dialogue(held).session.speech_started(0, "theirs_2")
        started = await held.line.until("input_audio_buffer.speech_started")
        assert started["item_id"] == "theirs_2"
        assert dialogue(held).session.commit(None) == "theirs_2"
        held.line.say("avatar.speak", text="any")
        created = await held.line.until("response.created")
        assert created["response"]["id"] == "resp_theirs"


async def test_a_dialogue_learns_how_much_was_heard() -> None:
    """Once, where a response is stopped; of a client that reports playback, what it reported."""
    async with holding(dialogues=Dialogues(Remote)) as held:
        held.line.say("avatar.speak", text="any")
        await held.line.until("response.output_audio.delta", 2)
        held.line.say(
            "avatar.playback",
            response_id="resp_theirs",
            position_ms=400,
            frames_shown=0,
            frames_late=0,
        )
        held.line.say("response.cancel")
        await held.line.until("response.done")
        dialogue(held).session.interrupt()
        assert dialogue(held).stopped == [400]


async def test_a_cancel_may_be_meant_for_a_response_that_has_not_begun() -> None:
    """The dialogue says whether one was asked for; otherwise it is the client's error."""
    async with holding(dialogues=Dialogues(Remote)) as held:
        dialogue(held).pending = True
        held.line.say("response.cancel")
        await held.line.caught_up()
        assert not held.line.of("error")
        dialogue(held).pending = False
        held.line.say("response.cancel")
        error = (await held.line.until("error"))["error"]
        assert error["code"] == "response_cancel_not_active"


async def test_a_mode_that_cannot_start_is_refused() -> None:
    """The mode before it stays in force, and the dialogue that could not start is closed."""
    async with holding(dialogues=Dialogues(Remote)) as held:
        first = dialogue(held)
        with_mode = {"avatar": {"mode": "chat"}}
        Remote.broken = True
        try:
            held.line.say("session.update", session=with_mode, event_id="mine")
            error = (await held.line.until("error"))["error"]
        finally:
            Remote.broken = False
        assert (error["code"], error["event_id"]) == ("upstream_unreachable", "mine")
        assert dialogue(held).closed and not first.closed
        held.line.say("session.update", session=with_mode)
        updated = await held.line.until("session.updated")
        assert updated["session"]["avatar"]["mode"] == "chat" and first.closed


async def test_a_session_begins_though_its_mode_cannot_start() -> None:
    """The client is told why, and may choose another mode."""
    Remote.broken = True
    try:
        async with holding(Line(), dialogues=Dialogues(Remote)) as held:
            error = (await held.line.until("error"))["error"]
            assert error["code"] == "upstream_unreachable" and error["type"] == "server_error"
            await held.line.caught_up()
    finally:
        Remote.broken = False


class Greeter(ToneDialogue):
    """Says hello, and counts how often it was asked to."""

    def __init__(self, session: DialogueSession, config: DialogueConfig) -> None:
        super().__init__(session, config)
        self.welcomes = 0

    async def welcome(self) -> None:
        self.welcomes += 1


def welcomes(held: Held) -> list[int]:
    return [one.welcomes for _, one in held.dialogues.made if isinstance(one, Greeter)]


async def test_a_client_that_shows_the_avatar_is_welcomed_until_something_was_said() -> None:
    """By the mode that it chooses, too; not once there is a conversation, or a response."""
    async with holding(dialogues=Dialogues(Greeter)) as held:
        held.line.say("session.update", session={"instructions": "Hi"})
        await held.line.caught_up()
        assert welcomes(held) == [0]
        held.line.say("session.update", session={"avatar": {"video": {"encoding": "binary"}}})
        held.line.say("session.update", session={"avatar": {"mode": "chat"}})
        await held.line.caught_up()
        assert welcomes(held) == [1, 1]
        held.line.say("avatar.speak", text="440 0.2")
        held.line.say("session.update", session={"avatar": {"mode": "parrot"}})
        await held.line.caught_up()
        assert welcomes(held) == [1, 1, 0]


async def test_a_client_that_names_an_avatar_in_the_address_is_welcomed_at_once() -> None:
    """It shows the avatar from the first moment on."""
    async with holding(dialogues=Dialogues(Greeter), server={"frames": "always"}) as held:
        await held.line.caught_up()
        assert welcomes(held) == [1]
