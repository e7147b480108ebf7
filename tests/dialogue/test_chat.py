"""Chat: a turn is recognised, answered by a language model, and spoken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest

from tests.dialogue.fakes import (
    HEARD_RATE,
    FakeEngines,
    FakeResponse,
    FakeSession,
    FakeVoice,
    config,
    silence,
    tell,
    wait_for,
)
from wsavatar.dialogue.asr import Heard
from wsavatar.dialogue.base import SPEECH_RATE, DialogueConfig, Persona, ResponseRequest
from wsavatar.dialogue.chat import INSTRUCTIONS, Chat
from wsavatar.dialogue.conversation import Entry, Recording
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.llm import CallDelta, ChatRequest, Finished, Part, TextDelta
from wsavatar.protocol.events import FunctionTool, user_item


@dataclass
class Recognition:
    """Understands nothing before it is told to; then the next text of its engine."""

    engine: FakeRecognizer
    on_heard: Callable[[Heard], None]
    samples: int = 0
    cancelled: bool = False

    def push(self, samples: np.ndarray) -> None:
        self.samples += len(samples)

    def voice_ended(self) -> None: ...

    async def finish(self) -> str:
        await self.engine.may_finish.wait()
        text = self.engine.texts.pop(0)
        if isinstance(text, EngineError):
            raise text
        return text

    def cancel(self) -> None:
        self.cancelled = True


class FakeRecognizer:
    """Understands these texts, one a turn."""

    name = "scripted"
    note = ""
    language = ""

    def __init__(self, *texts: str | EngineError) -> None:
        self.texts = list(texts)
        self.turns: list[Recognition] = []
        self.may_finish = asyncio.Event()
        self.may_finish.set()

    async def start(self) -> None: ...

    async def check(self) -> str:
        return ""

    async def close(self) -> None: ...

    def listen(
        self, *, language: str = "", prompt: str = "", on_heard: Callable[[Heard], None]
    ) -> Recognition:
        self.turns.append(Recognition(self, on_heard))
        return self.turns[-1]

    def understands(self, text: str) -> None:
        """So much of the turn in progress."""
        self.turns[-1].on_heard(Heard(text, text))


class FakeModel:
    """Answers with these, in order: a text, parts, or an error in their place."""

    name = "scripted"
    note = ""

    def __init__(self, *answers: str | EngineError | Sequence[Part | EngineError]) -> None:
        self.answers = list(answers)
        self.requests: list[ChatRequest] = []
        self.closed = 0
        self.permits: asyncio.Semaphore | None = None

    async def start(self) -> None: ...

    async def check(self) -> str:
        return ""

    async def close(self) -> None: ...

    async def answer(self, request: ChatRequest) -> AsyncGenerator[Part, None]:
        self.requests.append(request)
        answer = self.answers.pop(0)
        parts: list[Part | EngineError]
        if isinstance(answer, str):
            parts = [TextDelta(f"{word} ") for word in answer.split()] + [Finished("stop")]
        elif isinstance(answer, EngineError):
            parts = [answer]
        else:
            parts = list(answer)
        try:
            for part in parts:
                await asyncio.sleep(0)
                if self.permits is not None:
                    await self.permits.acquire()
                if isinstance(part, EngineError):
                    raise part
                yield part
        finally:
            self.closed += 1

    def asked(self, number: int = -1) -> list[tuple[str, Any]]:
        return [(one["role"], one.get("content")) for one in self.requests[number].messages]


@dataclass
class Talk:
    """A chat and everything around it."""

    session: FakeSession
    voice: FakeVoice
    ears: FakeRecognizer
    model: FakeModel
    chat: Chat
    sentence: np.ndarray = field(repr=False)

    async def user_says(self) -> None:
        """A sentence, and the silence behind it."""
        await tell(self.chat, np.concatenate([silence(0.5), self.sentence, silence(0.8)]))

    async def answered(self, count: int = 1) -> FakeResponse:
        await wait_for(
            lambda: (
                len(self.session.responses) >= count
                and self.session.responses[count - 1].status != "in_progress"
            )
        )
        assert len(self.session.responses) == count
        return self.session.responses[-1]

    def of(self, kind: str) -> list[Any]:
        return [value for one, value in self.session.events if one == kind]


@asynccontextmanager
async def talking(
    sentence: np.ndarray,
    ears: FakeRecognizer,
    model: FakeModel,
    chosen: DialogueConfig | None = None,
) -> AsyncIterator[Talk]:
    session, voice = FakeSession(), FakeVoice()
    engines = FakeEngines(voice, ears, model)
    chat = Chat(session, chosen or config(), engines)
    try:
        yield Talk(session, voice, ears, model, chat, sentence)
    finally:
        await chat.close()


async def test_a_turn_is_understood_answered_and_spoken(sentence: np.ndarray) -> None:
    """What was said reaches the model as the user's message; its answer is spoken."""
    model = FakeModel("Hello to you. How are you?")
    async with talking(sentence, FakeRecognizer("Good morning."), model) as talk:
        await talk.user_says()
        response = await talk.answered()
        assert response.status == "completed"
        assert response.transcript.split() == "Hello to you. How are you?".split()
        assert len(response.said) > SPEECH_RATE
        assert model.asked() == [("system", INSTRUCTIONS), ("user", "Good morning.")]
        assert talk.of("transcribed")[0][1] == "Good morning."


async def test_it_speaks_while_the_answer_is_still_written(sentence: np.ndarray) -> None:
    """The first sentence is spoken before the model has written the second."""
    first = "This is the first sentence. "
    model = FakeModel([TextDelta(first), TextDelta("And the"), TextDelta(" next.")])
    model.permits = asyncio.Semaphore(2)
    async with talking(sentence, FakeRecognizer("Tell me."), model) as talk:
        await talk.user_says()
        await wait_for(lambda: bool(talk.session.responses and talk.session.responses[0].parts))
        assert talk.voice.spoken == [first.rstrip()] and model.closed == 0
        model.permits.release()
        await talk.answered()
        assert talk.voice.spoken == [first.rstrip(), "And the next."]


async def test_a_turn_without_words_is_not_answered(sentence: np.ndarray) -> None:
    """A cough becomes an item, with an empty transcript, and costs no answer."""
    async with talking(sentence, FakeRecognizer(""), FakeModel()) as talk:
        await talk.user_says()
        await wait_for(lambda: bool(talk.of("transcribed")))
        assert talk.of("transcribed")[0][1] == "" and talk.session.responses == []


async def test_words_interrupt_the_avatar(sentence: np.ndarray) -> None:
    """It stops as speech begins, the model too; the new turn is answered."""
    ears = FakeRecognizer("Tell me a story.", "No, another one.")
    model = FakeModel("Once upon a time there was a king. " * 20, "As you like.")
    async with talking(sentence, ears, model) as talk:
        talk.session.gate = asyncio.Event()
        await talk.user_says()
        await wait_for(lambda: bool(talk.session.responses))
        await tell(talk.chat, talk.sentence[:HEARD_RATE])
        assert talk.session.interruptions == 1 and talk.session.responses[0].status == "cancelled"
        talk.session.gate = None
        ears.understands("No, another")
        await wait_for(lambda: model.closed == 1)
        await tell(talk.chat, np.concatenate([talk.sentence[HEARD_RATE:], silence(0.8)]))
        second = await talk.answered(2)
        assert second.status == "completed" and second.transcript.strip() == "As you like."


@pytest.mark.parametrize("said", ["", "Mm-hmm."])
async def test_a_cough_does_not_cost_the_answer(sentence: np.ndarray, said: str) -> None:
    """The answer goes on where it stopped: no sample twice or left out, no second request."""
    story = "One two three four five six seven eight nine ten. " * 6
    ears = FakeRecognizer("Tell me a story.", said)
    async with talking(sentence, ears, FakeModel(story)) as talk:
        first, second = await interrupted_once(talk, heard_s=1.0)
        assert first.status == "cancelled" and second.status == "completed"
        whole = len(story.split()) * [0]
        assert len(talk.model.requests) == 1
        heard, rest = first.transcript, second.transcript
        assert rest.split() == story.split()[len(story.split()) - len(rest.split()) :]
        assert len(rest.split()) + len(heard.split()) >= len(whole)


async def interrupted_once(talk: Talk, heard_s: float) -> tuple[FakeResponse, FakeResponse]:
    """The user says something, is answered, interrupts after this much, and is silent again."""
    talk.session.gate = asyncio.Event()
    await talk.user_says()
    await wait_for(lambda: bool(talk.session.responses))
    first = talk.session.responses[0]
    talk.session.add_item(first)
    first.heard_s = heard_s
    await tell(talk.chat, talk.sentence[: HEARD_RATE // 2])
    talk.session.gate = None
    await tell(talk.chat, silence(0.8))
    await wait_for(lambda: len(talk.session.responses) == 2)
    return first, await talk.answered(2)


async def test_the_client_that_cancels_while_it_listens_gets_silence(sentence: np.ndarray) -> None:
    """After `response.cancel` an interrupted answer does not come back."""
    ears = FakeRecognizer("Tell me a story.", "")
    async with talking(sentence, ears, FakeModel("Once upon a time. " * 20)) as talk:
        talk.session.gate = asyncio.Event()
        await talk.user_says()
        await wait_for(lambda: bool(talk.session.responses))
        talk.session.add_item(talk.session.responses[0])
        await tell(talk.chat, talk.sentence[: HEARD_RATE // 2])
        await talk.chat.cancelled()
        assert talk.model.closed == 1
        await tell(talk.chat, silence(0.8))
        await wait_for(lambda: len(talk.of("transcribed")) == 2)
        await asyncio.sleep(0.01)
        assert len(talk.session.responses) == 1


async def test_a_pause_in_the_middle_gives_one_answer_to_all_of_it(sentence: np.ndarray) -> None:
    """A turn that begins before the last one was understood belongs to it."""
    ears = FakeRecognizer("What is", "the time?")
    async with talking(sentence, ears, FakeModel("It is noon.")) as talk:
        ears.may_finish.clear()
        await talk.user_says()
        await tell(talk.chat, talk.sentence)
        ears.may_finish.set()
        await tell(talk.chat, silence(0.8))
        await talk.answered()
        texts = [content for role, content in talk.model.asked() if role == "user"]
        assert texts == ["What is", "the time?"]


async def test_typed_text_needs_no_ears(sentence: np.ndarray) -> None:
    """An item of the client and `response.create` are answered; so is one in text alone."""
    async with talking(sentence, FakeRecognizer(), FakeModel("Hello.", "Hello again.")) as talk:
        talk.session.conversation.add(Entry(user_item("typed", text="Good day.")))
        await talk.chat.create_response(ResponseRequest())
        assert (await talk.answered()).transcript.strip() == "Hello."
        await talk.chat.create_response(ResponseRequest(modality="text"))
        response = await talk.answered(2)
        assert response.transcript == "Hello again. " and response.parts == []


async def test_push_to_talk_waits_for_what_was_said(sentence: np.ndarray) -> None:
    """The client commits and asks at once: the answer is to the words, however late they are."""
    async with talking(
        sentence, FakeRecognizer("Good day."), FakeModel("Hello."), config(turn_detection=False)
    ) as talk:
        talk.ears.may_finish.clear()
        await tell(talk.chat, sentence)
        item_id = talk.session.commit(Recording(sentence, HEARD_RATE))
        await talk.chat.committed(item_id)
        await talk.chat.create_response(ResponseRequest())
        await asyncio.sleep(0)
        assert talk.model.requests == [] and len(talk.session.responses) == 1
        talk.ears.may_finish.set()
        assert (await talk.answered()).transcript.strip() == "Hello."
        assert ("user", "Good day.") in talk.model.asked()


async def test_a_key_that_is_held_in_silence_is_not_answered(sentence: np.ndarray) -> None:
    """The model is not asked to answer its own last words; what the client asks for itself is."""
    async with talking(
        sentence, FakeRecognizer("", ""), FakeModel("Hello."), config(turn_detection=False)
    ) as talk:
        await tell(talk.chat, sentence)
        await talk.chat.committed(talk.session.commit(Recording(sentence, HEARD_RATE)))
        await talk.chat.create_response(ResponseRequest())
        response = await talk.answered()
        assert response.error == ("nothing_to_answer", "No words were heard: say it again.")
        assert talk.model.requests == [] and len(response.said) == 0
        await tell(talk.chat, sentence)
        await talk.chat.committed(talk.session.commit(Recording(sentence, HEARD_RATE)))
        await talk.chat.create_response(ResponseRequest(instructions="Ask what they want."))
        assert (await talk.answered(2)).transcript.strip() == "Hello."


async def test_a_function_of_the_client_is_called(sentence: np.ndarray) -> None:
    """The model sees the tools; its call comes as it is written, without a word."""
    call = [CallDelta("c1", "time", '{"zone":'), CallDelta("c1", "time", '"utc"}')]
    tool = FunctionTool(name="time", parameters={"type": "object"})
    chosen = replace(config(), tools=(tool,))
    model = FakeModel([*call, Finished("tool_calls")])
    async with talking(sentence, FakeRecognizer("What time is it?"), model, chosen) as talk:
        await talk.user_says()
        response = await talk.answered()
        assert response.status == "completed" and response.parts == []
        assert response.calls == {"c1": ("time", '{"zone":"utc"}')}
        assert model.requests[0].tools[0]["function"]["name"] == "time"


async def test_a_model_that_fails_is_said_and_shown(sentence: np.ndarray) -> None:
    """The response fails with the engine's words; the user hears a sentence."""
    down = EngineError("engine_unreachable", "The model cannot be reached: start it.")
    async with talking(sentence, FakeRecognizer("Hello?"), FakeModel(down)) as talk:
        await talk.user_says()
        response = await talk.answered()
        assert response.error == ("engine_unreachable", "The model cannot be reached: start it.")
        assert "cannot answer" in response.transcript and len(response.said)


async def test_a_model_cut_off_in_the_middle_fails_after_what_it_said(
    sentence: np.ndarray,
) -> None:
    """What was written is spoken, then the response fails, without an apology."""
    cut = EngineError("engine_failed", "The model broke off.")
    model = FakeModel([TextDelta("The answer is forty"), cut])
    async with talking(sentence, FakeRecognizer("What is it?"), model) as talk:
        await talk.user_says()
        response = await talk.answered()
        assert response.error == ("engine_failed", "The model broke off.")
        assert response.transcript.strip() == "The answer is forty"


async def test_recognition_that_fails_is_said_and_shown(sentence: np.ndarray) -> None:
    """Without the words there is no answer to guess: the response fails with the reason."""
    lost = EngineError("engine_timeout", "Recognition took too long.")
    async with talking(sentence, FakeRecognizer(lost), FakeModel()) as talk:
        await talk.user_says()
        response = await talk.answered()
        assert response.error == ("engine_timeout", "Recognition took too long.")


async def test_an_empty_answer_says_so(sentence: np.ndarray) -> None:
    """A model that answers with nothing gives a failed response, not a silent one."""
    model = FakeModel([TextDelta(" "), Finished("stop")])
    async with talking(sentence, FakeRecognizer("Well?"), model) as talk:
        await talk.user_says()
        response = await talk.answered()
        assert response.error is not None and response.error[0] == "empty_answer"
        assert "cannot answer" in response.transcript and len(response.said)


async def test_the_avatar_greets_once(sentence: np.ndarray) -> None:
    """The greeting of its `avatar.json`, if nothing was said before."""
    chosen = replace(config(), persona=Persona(greeting="Hello, I am Ada.", instructions="Be Ada."))
    async with talking(sentence, FakeRecognizer("Hi."), FakeModel("Hi."), chosen) as talk:
        await talk.chat.welcome()
        assert (await talk.answered()).transcript.strip() == "Hello, I am Ada."
        talk.session.conversation.add(Entry(user_item("typed", text="Hi.")))
        await talk.chat.welcome()
        assert len(talk.session.responses) == 1
        await talk.chat.create_response(ResponseRequest())
        await talk.answered(2)
        assert talk.model.asked()[0] == ("system", "Be Ada.")


async def test_who_instructs_the_model(sentence: np.ndarray) -> None:
    """The response before the session, the session before the avatar."""
    chosen = replace(config(), persona=Persona(instructions="avatar"), instructions="session")
    async with talking(sentence, FakeRecognizer(), FakeModel("a", "b"), chosen) as talk:
        talk.session.conversation.add(Entry(user_item("typed", text="Hi.")))
        await talk.chat.create_response(ResponseRequest())
        await talk.answered()
        await talk.chat.create_response(ResponseRequest(instructions="response"))
        await talk.answered(2)
        assert talk.model.asked(0)[0][1] == "session" and talk.model.asked(1)[0][1] == "response"
