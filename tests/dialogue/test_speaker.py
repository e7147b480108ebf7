"""Texts: said phrase by phrase, one thing at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import numpy as np
import pytest

from tests.dialogue.fakes import (
    HEARD_RATE,
    FakeSession,
    FakeVoice,
    config,
    engines_of,
    until_over,
    wait_for,
)
from wsavatar.config import Settings, TtsSettings
from wsavatar.dialogue.base import SPEECH_RATE, ResponseRequest, Word
from wsavatar.dialogue.conversation import Entry, Recording
from wsavatar.dialogue.engines import Engines
from wsavatar.dialogue.llm import Finished, TextDelta
from wsavatar.dialogue.parrot import Parrot
from wsavatar.dialogue.speaker import Speaker
from wsavatar.dialogue.tts import VoiceError
from wsavatar.protocol.events import user_item


async def test_captions_come_before_the_words_they_are_of(
    session: FakeSession, voice: FakeVoice
) -> None:
    """A text is said phrase by phrase: the first sentence alone, so that speech begins early."""
    speaker = Speaker(session, engines_of(voice).voice, config(max_response_s=60))
    await speaker.say(("One. Two three.\nFour?",))
    response = await until_over(session)
    assert voice.spoken == ["One. Two three.", "Four?"]
    assert response.transcript.split() == "One. Two three. Four?".split()
    assert len(response.said) == len("One.Two three. Four?") * SPEECH_RATE // 10
    await speaker.stop()


@pytest.mark.parametrize(
    ("text", "code"),
    [("", "empty_text"), (" \x00\u200b\n", "empty_text"), ("a" * 5001, "text_too_long")],
)
async def test_a_text_that_cannot_be_said_fails(
    session: FakeSession, voice: FakeVoice, text: str, code: str
) -> None:
    """Empty, invisible or endless: an error with a code, and the voice is not asked."""
    speaker = Speaker(session, engines_of(voice).voice, config(max_response_s=60))
    await speaker.say((text,))
    response = await until_over(session)
    assert response.error is not None and response.error[0] == code and voice.spoken == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(VoiceError("No network."), "tts_failed"), (RuntimeError("a bug"), "internal_error")],
)
async def test_a_voice_that_fails_fails_the_response(
    session: FakeSession, error: Exception, code: str
) -> None:
    """The session lives, the client is told; a bug's message stays in the log."""
    speaker = Speaker(session, lambda _: FakeVoice(error), config(max_response_s=60))
    await speaker.say(("Hello.",))
    response = await until_over(session)
    assert response.error is not None and response.error[0] == code
    assert "a bug" not in response.error[1]
    await speaker.stop()


async def test_a_text_that_cannot_be_said_cancels_what_it_replaces(
    session: FakeSession, voice: FakeVoice
) -> None:
    """What was cut off by it is not reported as completed."""
    session.gate = asyncio.Event()
    speaker = Speaker(session, engines_of(voice).voice, config())
    await speaker.say(("A long text.",))
    await wait_for(lambda: voice.spoken != [])
    await speaker.say(("...",))
    assert [one.status for one in session.responses] == ["cancelled", "failed"]


async def test_texts_and_recordings_are_said_in_their_order(
    session: FakeSession, voice: FakeVoice, sentence: np.ndarray
) -> None:
    """Items of both kinds in one request: nothing of it is left out."""
    parrot = Parrot(session, config(), engines_of(voice))
    recording = Recording(sentence, HEARD_RATE)
    entries = (
        Entry(user_item("a"), recording),
        Entry(user_item("b", text="And this.")),
        Entry(user_item("c"), recording),
    )
    await parrot.create_response(ResponseRequest(input=entries))
    response = await until_over(session)
    assert response.rate == SPEECH_RATE and voice.spoken == ["And this."]
    seconds = len(response.said) / SPEECH_RATE
    assert seconds == pytest.approx(2 * 3 + len("And this.") / 10, abs=0.8)
    await parrot.close()


async def test_a_new_text_takes_the_old_ones_place(session: FakeSession, voice: FakeVoice) -> None:
    """One thing is said at a time; the old voice is closed before the new one begins."""
    speaker = Speaker(session, engines_of(voice).voice, config(max_response_s=60))
    await speaker.say(("First.",))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await speaker.say(("Second.",))
    response = await until_over(session, count=2)
    assert response.transcript.strip() == "Second." and response.status == "completed"
    assert session.responses[0].status != "in_progress"
    await speaker.stop()


async def test_a_cancelled_text_stops_the_voice(session: FakeSession, voice: FakeVoice) -> None:
    """After the client's cancel no more is synthesised."""
    speaker = Speaker(session, engines_of(voice).voice, config(max_response_s=60))
    await speaker.say(("x" * 150,))
    await wait_for(lambda: len(session.responses[0].parts) > 0)
    session.cancel()
    await wait_for(lambda: not speaker.busy)
    assert voice.closed == 1 and len(session.responses[0].parts) < 10
    await speaker.stop()


async def test_stopping_ends_the_response(session: FakeSession, voice: FakeVoice) -> None:
    """A dialogue that is closed leaves no response hanging and no task behind."""
    session.gate = asyncio.Event()
    speaker = Speaker(session, engines_of(voice).voice, config(max_response_s=60))
    await speaker.say(("Hello.",))
    await asyncio.sleep(0)
    await speaker.stop()
    assert session.responses[0].status == "completed" and not speaker.busy


async def test_a_response_is_bounded(session: FakeSession, voice: FakeVoice) -> None:
    """What was said up to the limit stands; then the response fails with a clear code."""
    speaker = Speaker(session, engines_of(voice).voice, config(max_response_s=1))
    await speaker.say(("x" * 50,))
    response = await until_over(session)
    assert response.error is not None and response.error[0] == "response_too_long"
    assert len(response.said) == SPEECH_RATE
    await speaker.stop()


async def test_words_are_timed_in_the_response(session: FakeSession) -> None:
    """From its first sample, whatever was said before them in it."""
    speaker = Speaker(session, engines_of(TimingVoice()).voice, config(max_response_s=60))
    await speaker.say(("First of all, a sentence. Then this.", "And more."))
    response = await until_over(session)
    assert [word.text for word in response.timed] == [
        *"First of all, a sentence.".split(),
        *"Then this. And more.".split(),
    ]
    spoken = "First of all, a sentence.Then this.And more."
    starts = [round(word.start_s * 10) for word in response.timed]
    assert starts == [0, 6, 9, 14, 16, 25, 30, 35, 39]
    assert len(response.said) == len(spoken) * SPEECH_RATE // 10


async def test_code_is_shown_and_not_said(session: FakeSession, voice: FakeVoice) -> None:
    """A text of code alone cannot be said; an answer of code alone is complete all the same."""
    code = "```python\nprint(1)\n```"
    speaker = Speaker(session, engines_of(voice).voice, config(max_response_s=60))
    await speaker.say((f"**Look** here:\n{code}\nDone.",))
    response = await until_over(session)
    assert voice.spoken == ["Look here:", "Done."]
    assert response.transcript == "Look here:\nprint(1)\nDone."
    await speaker.say((code,))
    refused = await until_over(session, count=2)
    assert refused.error is not None and refused.error[0] == "nothing_to_say"

    async def answer() -> AsyncGenerator[TextDelta | Finished, None]:
        yield TextDelta(code)
        yield Finished("stop")

    await speaker.say((answer(),))
    answered = await until_over(session, count=3)
    assert answered.status == "completed" and answered.transcript == "print(1)\n"
    await speaker.stop()


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", "failed"),
        ("🎉🎉 👍🏽", "failed"),
        ("```\ncode\n```", "failed"),
        ("**", "failed"),
        ("مرحبا بالعالم، كيف حالك؟", "completed"),
        ("שלום עולם", "completed"),
        ("สวัสดีครับผมชื่อสมชายยินดีที่ได้รู้จัก" * 12, "completed"),
        ("这是一个没有空格的句子" * 30, "completed"),
        ("half \ud83d of a character", "completed"),
        ("[[odd]] <speak>&amp;</speak> \x01%s%n", "completed"),
        ("https://example.com/" + "a" * 900, "completed"),
    ],
)
async def test_odd_texts_with_a_real_voice(session: FakeSession, text: str, status: str) -> None:
    """Said, or refused with a reason; and the session goes on."""
    engines = Engines(Settings(tts=TtsSettings(engines=("espeak",))))
    speaker = Speaker(session, engines.voice, config(max_response_s=120))
    await speaker.say((text,))
    response = await until_over(session)
    assert response.status == status
    assert response.error is None or response.error[0] in ("empty_text", "nothing_to_say")
    response.transcript.encode()  # no half of a character
    await speaker.say(("Hello.",))
    assert (await until_over(session, count=2)).status == "completed"
    await speaker.stop()


async def test_an_answer_of_three_thousand_words(session: FakeSession, voice: FakeVoice) -> None:
    """All of it is shown and said in its order, in phrases of bounded length."""
    words = [f"word{n}{'.' if n % 11 == 10 else ',' if n % 5 == 4 else ''} " for n in range(3000)]

    async def answer() -> AsyncGenerator[TextDelta | Finished, None]:
        for word in words:
            yield TextDelta(word)
        yield Finished("stop")

    speaker = Speaker(session, engines_of(voice).voice, config(max_response_s=3600))
    await speaker.say((answer(),))
    response = await until_over(session)
    assert response.status == "completed" and response.transcript.split() == "".join(words).split()
    assert " ".join(voice.spoken).split() == response.transcript.split()
    assert max(map(len, voice.spoken)) <= 200
    await speaker.stop()


class TimingVoice(FakeVoice):
    """Says when it says each word."""

    async def speak(self, text: str) -> AsyncGenerator[np.ndarray | tuple[Word, ...], None]:
        at = 0
        for word in text.split():
            at = text.index(word, at)
            yield (Word(word, at / 10, len(word) / 10, False),)
            at += len(word)
        async for part in super().speak(text):
            yield part
