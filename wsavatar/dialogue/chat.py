"""Mode chat: the user's turn is recognised, a language model answers, a voice speaks.

The three work at the same time: the turn is recognised while it is spoken, and the answer is spoken
while it is written. Speech over the avatar stops it at once; if no words come of it, the answer
goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from .asr import Heard
from .base import Dialogue, DialogueConfig, DialogueSession, ResponseRequest, Samples
from .engine import EngineError
from .engines import Engines
from .interruption import resume_at, says_something
from .listener import Listener
from .llm import ChatRequest, Finished, Part, TextDelta
from .llm.history import messages, tool_choice, tools
from .speaker import Answer, Interrupted, Speaker
from .trace import TurnTrace
from .transcriber import Transcriber, TurnText
from .turn_buffer import TurnBuffer
from .turn_end import silence_ms
from .turns import TurnAudio, TurnBegan

__all__ = ["INSTRUCTIONS", "Chat"]

_log = logging.getLogger(__name__)

INSTRUCTIONS = (
    "You are a friendly person in a spoken conversation. Answer in one to three short sentences, "
    "in the language of the user, without lists, markup or emoji."
)
"""Where neither client, avatar nor configuration give any."""
_MAX_TEXTS = 31
"""Texts of items without an answer that the next answer waits for."""


class Chat(Dialogue):
    """Mode chat."""

    def __init__(self, session: DialogueSession, config: DialogueConfig, engines: Engines) -> None:
        self._session = session
        self._config = config
        self._engines = engines
        self._speaker = Speaker(session, engines.voice, config)
        self._listener = Listener(session, config)
        self._transcriber = Transcriber(
            session,
            engines.recognizer,
            config,
            always=True,
            on_heard=self._on_heard,
            on_failed=partial(engines.failed, "asr"),
        )
        self._turn = TurnBuffer(config.input_rate)
        self._texts: list[TurnText] = []  # of items that no answer has waited for
        self._interrupted: Interrupted | None = None  # by a turn that may have no words
        self._waiting: asyncio.Task[None] | None = None  # for the text of a turn, to answer it
        self._answers = asyncio.Lock()  # held while a response is begun
        self._closing = set[asyncio.Task[None]]()

    # -- the user speaks --------------------------------------------------------------------------

    async def heard(self, samples: Samples) -> None:
        self._transcriber.hear(samples)
        for event in self._listener.push(samples, while_speaking=self._speaks):
            self._transcriber.follow(event, self._listener.silent_ms)
            self._set_silence()
            if isinstance(event, TurnBegan):
                await self._turn_began()
            elif isinstance(event, TurnAudio):
                self._turn.add(event.samples)
                if self._turn.is_full:
                    self._listener.stop_turn()
                    self._commit()
                    self._listener.start_turn()
            else:
                await self._turn_ended()

    async def cleared(self) -> None:
        self._listener.clear()
        self._transcriber.clear()
        self._turn.take()

    async def committed(self, item_id: str) -> None:
        self._turn.take()
        self._note(self._transcriber.commit(item_id))

    async def _turn_began(self) -> None:
        """The user speaks: no answer to an earlier turn begins, and the avatar stops."""
        await self._stop_waiting()
        if not self._speaks or not self._config.settings.interrupt_response:
            return
        self._session.interrupt()
        interrupted = await self._speaker.interrupt()
        await self._forget_interrupted()
        if interrupted is None:
            return
        if self._transcriber.listens and self._config.settings.resume_false_interruption:
            self._interrupted = interrupted
        else:
            await interrupted.close()

    async def _turn_ended(self) -> None:
        if not self._commit():
            return  # the client has committed it
        trace = TurnTrace.of_turn(self._listener.silent_ms)
        await self._stop_waiting()
        self._waiting = asyncio.create_task(self._turn_is_over(trace), name="turn")

    def _commit(self) -> bool:
        """The turn so far becomes an item, if there is one."""
        turn = self._turn.take()
        if turn is not None:
            self._note(self._transcriber.commit(self._session.commit(turn)))
        return turn is not None

    def _note(self, text: TurnText) -> None:
        """The text of an item that the next answer is to."""
        self._texts = [*self._texts[-_MAX_TEXTS:], text]

    def _set_silence(self) -> None:
        """The silence that ends the turn, by its text where that is of all voice up to now."""
        config, heard = self._config, self._transcriber.heard
        if not config.semantic:
            return
        text = heard.text if heard.whole else ""
        silence = silence_ms(
            text, config.eagerness, config.settings.vad_silence_ms, self._transcriber.language
        )
        self._listener.set_silence_ms(silence)

    def _on_heard(self, heard: Heard) -> None:
        """More of the turn in progress was understood."""
        self._set_silence()
        if self._interrupted is not None and says_something(heard.stable):
            interrupted, self._interrupted = self._interrupted, None
            closing = asyncio.create_task(interrupted.close(), name="close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    # -- the avatar answers -----------------------------------------------------------------------

    async def create_response(self, request: ResponseRequest) -> None:
        await self._stop_waiting()
        await self._forget_interrupted()
        await self._answer(replace(request, trace=TurnTrace.of_turn()))

    async def speak(self, text: str) -> None:
        await self._stop_waiting()
        await self._forget_interrupted()
        await self._speaker.say((text,), ResponseRequest(trace=TurnTrace.of_turn()))

    async def welcome(self) -> None:
        greeting = self._config.persona.greeting
        if greeting and not len(self._session.conversation) and not self._speaks:
            await self._speaker.say((greeting,))

    async def cancelled(self) -> bool:
        expected = self._interrupted is not None
        await self._stop_waiting()
        await self._forget_interrupted()
        return expected

    async def _turn_is_over(self, trace: TurnTrace) -> None:
        """Answer what was said, or go on with the answer that it interrupted without a word."""
        said = [await _said(text) for text in self._texts]
        trace.mark("transcript")
        async with self._answers:
            words = any(one is None or says_something(one) for one in said)
            if self._interrupted is not None and not words:
                self._texts.clear()
                await self._go_on()
                return
            await self._forget_interrupted()
            if self._config.may_answer(self._speaks) and any(one is None or one for one in said):
                await self._answer(ResponseRequest(modality=self._config.modality, trace=trace))

    async def _go_on(self) -> None:
        """The interrupted answer goes on, if its item is still there."""
        interrupted, self._interrupted = self._interrupted, None
        assert interrupted is not None
        item_id = interrupted.response.item_id
        conversation = self._session.conversation
        entry = conversation.get(item_id) if item_id in conversation else None
        if entry is None or entry.spoken is None:
            await interrupted.close()
            return
        heard_s = interrupted.response.heard_s
        if entry.heard_ms is not None:
            heard_s = entry.heard_ms / 1000
        start_s, audio = interrupted.saying.kept_audio()
        saying = interrupted.saying
        position_s = resume_at(audio, saying.rate, start_s, heard_s, saying.kept_words())
        await self._speaker.resume(interrupted, position_s, len(entry.spoken.until(position_s)))

    async def _answer(self, request: ResponseRequest) -> None:
        texts, self._texts = self._texts, []
        await self._speaker.say((self._written(request, texts),), request)

    async def _written(self, request: ResponseRequest, texts: Sequence[TurnText]) -> Answer:
        """The model's answer. If it cannot begin, the avatar says so before the error."""
        begun = answered = False
        try:
            async with aclosing(self._ask(request, texts)) as parts:
                async for part in parts:
                    if not begun and request.trace is not None:
                        request.trace.mark("first_token")
                    begun = True
                    answered = answered or _is_answer(part)
                    yield part
            if not answered:
                raise EngineError("empty_answer", "The language model answered with nothing.")
        except EngineError as error:
            apology = self._config.settings.apology
            silent = error.code == "nothing_to_answer" or request.modality != "audio"
            if not answered and apology and not silent:
                yield TextDelta(apology)
            raise

    async def _ask(self, request: ResponseRequest, texts: Sequence[TurnText]) -> Answer:
        failure: EngineError | None = None
        heard = False
        for text in texts:
            try:
                heard = bool(await text.final()) or heard
            except EngineError as error:
                failure = error
        asks_itself = request.instructions is not None or request.input is not None
        if texts and not heard and failure is None and not asks_itself:
            failure = EngineError("nothing_to_answer", "No words were heard: say it again.")
        if request.trace is not None:
            request.trace.mark("transcript")
        model = self._engines.language_model
        if model is None:
            raise EngineError("engine_missing", self._engines.problem("llm"))
        settings = self._engines.settings.llm
        entries = self._session.conversation if request.input is None else request.input
        asked = messages(tuple(entries), self._instructions(request), settings.history_tokens)
        if failure is not None and (not asked or asked[-1]["role"] not in ("user", "tool")):
            raise failure  # nothing else was said
        config = self._config
        limit = request.max_output_tokens or config.max_output_tokens
        offered = config.tools if request.tools is None else request.tools
        chat = ChatRequest(
            messages=asked,
            tools=tools(offered),
            tool_choice=tool_choice(request.tool_choice or config.tool_choice),
            max_tokens=settings.max_tokens if limit == "inf" else min(limit, settings.max_tokens),
        )
        try:
            async with aclosing(model.answer(chat)) as parts:
                async for part in parts:
                    yield part
        except EngineError as error:
            self._engines.failed("llm", error)
            raise

    def _instructions(self, request: ResponseRequest) -> str:
        """Of the response, else the session, else the avatar, else the server."""
        if request.instructions is not None:
            return request.instructions
        config = self._config
        own = self._engines.settings.llm.instructions
        return config.instructions or config.persona.instructions or own or INSTRUCTIONS

    # -- lifecycle --------------------------------------------------------------------------------

    async def configure(self, config: DialogueConfig) -> None:
        self._config = config
        self._listener.configure(config)
        self._transcriber.configure(config)
        self._speaker.configure(config)
        if not self._listener.detects:
            self._turn.take()
        self._turn.change_rate(config.input_rate)

    async def close(self) -> None:
        await self._stop_waiting()
        await self._forget_interrupted()
        self._listener.clear()
        await self._transcriber.close()
        await self._speaker.stop()

    # -- helpers ----------------------------------------------------------------------------------

    @property
    def _speaks(self) -> bool:
        return self._speaker.busy or self._session.speaking

    async def _stop_waiting(self) -> None:
        """The turn that is over is not answered. A response that is being begun is begun."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            async with self._answers:
                waiting.cancel()
            await asyncio.wait([waiting])

    async def _forget_interrupted(self) -> None:
        interrupted, self._interrupted = self._interrupted, None
        if interrupted is not None:
            await interrupted.close()


async def _said(text: TurnText) -> str | None:
    """What was said; None: it could not be recognised."""
    try:
        return await text.final()
    except EngineError:
        return None


def _is_answer(part: Part) -> bool:
    """Whether there is something in it to say or do, or a limit was in its way."""
    if isinstance(part, Finished):
        return part.reason in ("max_output_tokens", "content_filter")
    return not isinstance(part, TextDelta) or bool(part.text.strip())
