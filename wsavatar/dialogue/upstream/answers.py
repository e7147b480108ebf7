"""The upstream's responses: which were asked for, and how they reach the client.

Knows their events and interruptions; not the user's turns.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from wsavatar.dialogue.base import DialogueConfig, DialogueSession, Response, ResponseRequest
from wsavatar.dialogue.trace import TurnTrace
from wsavatar.media.audio import decode
from wsavatar.protocol.events import CancelReason

from .connection import Connection
from .errors import UpstreamError
from .items import Items
from .messages import Json, Nonsense, number, problem_of, response_of, section, text
from .speech import Call, Cancelled, Done, Failed, Item, Speech
from .user_audio import RATE

__all__ = ["Answers"]

_MAX_KEPT = 64
"""Items whose audio can still be truncated."""
_QUIET_POLL_S = 0.05


@dataclass(slots=True, eq=False)
class _Asked:
    """A ``response.create`` that the upstream has not answered yet."""

    request: ResponseRequest
    timer: asyncio.TimerHandle
    revoked: bool = False


class Answers:
    """Responses of one upstream, one at a time."""

    def __init__(
        self,
        session: DialogueSession,
        config: DialogueConfig,
        connection: Connection,
        items: Items,
        timeout_s: float,
    ) -> None:
        self._session = session
        self._config = config
        self._connection = connection
        self._items = items
        self._timeout_s = timeout_s
        self._asked: deque[_Asked] = deque()
        self._speech: Speech | None = None  # the newest
        self._by_item: OrderedDict[str, Speech] = OrderedDict()
        self._calls: dict[str, tuple[str, str]] = {}  # by item: the call's id and name
        self._written: set[str] = set()  # items of the newest response that came in deltas
        self._tasks: set[asyncio.Task[None]] = set()
        self.trace: TurnTrace | None = None
        """Of the user's turn that the next response answers."""

    # -- for the dialogue -------------------------------------------------------------------------

    def configure(self, config: DialogueConfig) -> None:
        self._config = config

    def ask(self, request: ResponseRequest, event_id: str | None) -> None:
        """Answer now. Without a connection, the response fails."""
        if not self._connection.is_open:
            problem = self._connection.problem or UpstreamError(
                "upstream_unreachable", "There is no connection to the upstream yet."
            )
            self._connection.wake()
            self._fail(request, problem.code, str(problem))
            return
        event = {"type": "response.create", "response": response_of(request, self._items.known)}
        self._connection.send(event, "respond", event_id)
        timer = asyncio.get_running_loop().call_later(self._timeout_s, self._unanswered)
        self._asked.append(_Asked(request, timer))

    def refused(self) -> None:
        """The upstream refuses the oldest request."""
        if self._asked:
            self._asked.popleft().timer.cancel()

    def revoke(self) -> bool:
        """The client cancels. Whether it had asked for a response that has not begun."""
        speech = self._speech
        waits = speech is not None and speech.response is None and not speech.stopped
        if speech is not None and waits:
            self._stop(speech)
        pending = [one for one in self._asked if not one.revoked]
        for one in pending:
            one.revoked = True
        if pending:
            self._connection.send({"type": "response.cancel"}, "own")
        return bool(pending) or waits

    def truncated(self, item_id: str, heard_ms: int) -> None:
        """The client has played so much of an item."""
        speech = self._by_item.get(item_id)
        if speech is not None:
            self._cut(speech, heard_ms)
        elif item_id in self._items.known:
            self._items.replace(item_id)  # it has it as a text

    def lost(self, message: str) -> None:
        """The connection has ended: what was to come will not."""
        if self._speech is not None:
            self._speech.put(Failed("upstream_lost", message))
        self._by_item.clear()
        asked, self._asked = self._asked, deque()
        for one in asked:
            one.timer.cancel()
            self._fail(one.request, "upstream_lost", message, revoked=one.revoked)

    async def close(self) -> None:
        """Stop everything, also upstream."""
        for one in self._asked:
            one.timer.cancel()
        if self._speech is not None:
            self._stop(self._speech)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # -- what the upstream says -------------------------------------------------------------------

    def created(self, event: Json) -> None:
        given = section(event, "response")
        response_id = text(given, "id")
        asked = self._asked.popleft() if self._asked else None
        trace, self.trace = self.trace, None
        if asked is not None:
            asked.timer.cancel()
            request = asked.request
        else:
            request = ResponseRequest(modality=self._config.modality, trace=trace)
        modality = _modality(given, request.modality)
        request = replace(request, modality=modality, trace=request.trace or trace)
        self._written.clear()
        self._calls.clear()
        self._begin(
            Speech(response_id, self._config.settings.max_response_s),
            request,
            revoked=asked is not None and asked.revoked,
        )

    def item_added(self, event: Json) -> None:
        speech, item = self._named(event), section(event, "item")
        item_id, kind = text(item, "id"), text(item, "type")
        if speech is None or kind not in ("message", "function_call"):
            return
        if kind == "function_call":
            self._calls[item_id] = (text(item, "call_id"), text(item, "name"))
        if speech.in_conversation:
            self._items.add(item_id)
        speech.put(Item(item_id))

    def audio(self, event: Json) -> None:
        speech = self._named(event)
        if speech is None:
            return
        item_id = text(event, "item_id")
        try:
            pcm = base64.b64decode(text(event, "delta"), validate=True)
        except binascii.Error:
            raise Nonsense("delta") from None
        if len(pcm) % 2:
            raise Nonsense("delta")
        speech.audio(item_id, number(event, "content_index", 0), decode(pcm, "audio/pcm"))
        self._by_item[item_id] = speech
        if len(self._by_item) > _MAX_KEPT:
            self._by_item.popitem(last=False)

    def words(self, event: Json) -> None:
        """More of a transcript, or of a text."""
        if speech := self._named(event):
            self._written.add(text(event, "item_id"))
            self._write(speech, text(event, "delta"))

    def all_words(self, event: Json) -> None:
        """A whole transcript, or text: of an upstream that sends no deltas."""
        speech, item_id = self._named(event), text(event, "item_id")
        if speech is not None and item_id not in self._written:
            self._written.add(item_id)
            name = "text" if "text" in event else "transcript"
            self._write(speech, text(event, name, ""))

    def arguments(self, event: Json) -> None:
        """More of a call's arguments, or, from an upstream that sends no deltas, all of them."""
        speech, item_id = self._named(event), text(event, "item_id")
        if speech is None:
            return
        if item_id not in self._calls:
            raise Nonsense("item_id")
        if "delta" in event:
            delta = text(event, "delta")
        elif item_id in self._written:
            return
        else:
            delta = text(event, "arguments", "")
        self._written.add(item_id)
        speech.put(Call(*self._calls[item_id], delta))

    def done(self, event: Json) -> None:
        given = section(event, "response")
        speech = self._speech
        if speech is not None and speech.id == text(given, "id"):
            speech.put(self._outcome(given))

    # -- inside -----------------------------------------------------------------------------------

    def _named(self, event: Json) -> Speech | None:
        """The response of an event, unless it is stopped or was never begun."""
        response_id = text(event, "response_id")
        speech = self._speech
        return speech if speech and speech.id == response_id and not speech.ended else None

    def _write(self, speech: Speech, words: str) -> None:
        if speech.trace is not None:
            speech.trace.mark("first_token")
        speech.put(words)

    def _outcome(self, given: Json) -> Done | Failed | Cancelled:
        status, details = given.get("status"), section(given, "status_details")
        reason = details.get("reason")
        if status == "failed":
            problem = problem_of(section(details, "error"))
            return Failed(problem.code, self._connection.without_secrets(problem.message))
        if status == "cancelled":
            reasons: dict[object, CancelReason] = {
                "turn_detected": "turn_detected",
                "client_cancelled": "client_cancelled",
            }
            return Cancelled(reasons.get(reason))
        if status == "incomplete":
            filtered = reason == "content_filter"
            return Done("content_filter" if filtered else "max_output_tokens")
        return Done()

    def _begin(self, speech: Speech, request: ResponseRequest, *, revoked: bool) -> None:
        speech.in_conversation, speech.trace = request.in_conversation, request.trace
        self._speech = speech
        begin = partial(self._respond, speech, request)
        may_interrupt = self._config.settings.interrupt_response
        quiet = None
        if revoked:
            speech.response = begin()
            speech.response.cancel("client_cancelled")
        elif self._session.speaking and not may_interrupt:
            quiet = self._quiet()
        else:
            speech.response = begin()
        self._start(speech.run(begin, partial(self._cancel, speech), quiet), f"say {speech.id}")

    def _respond(self, speech: Speech, request: ResponseRequest) -> Response:
        return self._session.respond(
            request, rate=RATE, response_id=speech.id, stopped=partial(self._stopped, speech)
        )

    def _stopped(self, speech: Speech, heard_ms: int) -> None:
        """The client does not hear it to its end."""
        grows = not speech.ended
        self._stop(speech)
        self._cut(speech, heard_ms, grows=grows)

    def _stop(self, speech: Speech) -> None:
        if not speech.ended:
            self._cancel(speech)
        speech.stop()

    def _cancel(self, speech: Speech) -> None:
        event = {"type": "response.cancel", "response_id": speech.id}
        self._connection.send(event, "own")

    def _cut(self, speech: Speech, heard_ms: int, *, grows: bool = False) -> None:
        if not speech.in_conversation:
            return
        for cut in speech.cuts(heard_ms, grows=grows):
            event = {
                "type": "conversation.item.truncate",
                "item_id": cut.item_id,
                "content_index": cut.content_index,
                "audio_end_ms": cut.heard_ms,
            }
            self._connection.send(event, "own")

    async def _quiet(self) -> None:
        """Nothing may interrupt the avatar: wait until it has said what it says."""
        while self._session.speaking:  # noqa: ASYNC110
            await asyncio.sleep(_QUIET_POLL_S)

    def _unanswered(self) -> None:
        """The oldest request has waited too long. If it is answered after all, that is said."""
        if self._asked:
            asked = self._asked.popleft()
            message = f"The upstream did not begin to answer in {self._timeout_s:g} s."
            self._fail(asked.request, "upstream_timeout", message, revoked=asked.revoked)

    def _fail(
        self, request: ResponseRequest, code: str, message: str, *, revoked: bool = False
    ) -> None:
        response = self._session.respond(request)
        if revoked:
            response.cancel("client_cancelled")
        else:
            self._start(response.fail(code, message), f"fail {response.id}")

    def _start(self, work: Any, name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _modality(given: Json, otherwise: Literal["audio", "text"]) -> Literal["audio", "text"]:
    said = given.get("output_modalities")
    if said == ["text"]:
        return "text"
    return "audio" if said == ["audio"] else otherwise
