"""What the user says, as text: while it is said, and all of it when the turn is over.

Follows a dialogue's turns and has an engine recognise them. It knows turns, the session and the
interface of engines, not the use of a text.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

from wsavatar.media.audio import Resampler, resample

from .asr import ASR_RATE, Heard, Recognition, Recognizer
from .asr.words import continuation
from .base import DialogueConfig, DialogueSession, Samples
from .conversation import Recording
from .engine import EngineError
from .turns import TurnAudio, TurnEnded, TurnEvent, Turns
from .vad import VoiceActivity

__all__ = ["PAUSE_MS", "Transcriber", "TurnText"]

_log = logging.getLogger(__name__)

PAUSE_MS = 96
"""Silence after which the turn so far is read, since it may be over. The silence that follows is
recognised only if voice comes after it."""
_MAX_WAITING = 8
"""Turns of a session that are over and not read yet. More of them fail at once."""

_NOTHING = Heard("", "", whole=True)


class TurnText:
    """The text of one turn: the newest reading while it is spoken, then `final`."""

    def __init__(
        self,
        listen: Callable[[Callable[[Heard], None]], Recognition],
        on_heard: Callable[[TurnText], None],
    ) -> None:
        self._listen = listen
        self._on_heard = on_heard
        self._recognition: Recognition | None = None  # None: no voice yet
        self._result: asyncio.Future[str] | None = None
        self._held: list[Samples] = []  # silence: recognised if voice follows
        self.paused = True
        self.heard = _NOTHING
        self.item_id: str | None = None
        self.sent = ""  # deltas of the item `sent_as`
        self.sent_as: str | None = None
        self.seconds = 0.0

    @property
    def is_over(self) -> bool:
        """Whether the turn was ended, read or not."""
        return self._result is not None

    async def final(self) -> str:
        """All that was said in a turn that is over; empty: no words. Raises EngineError.

        Several may wait for it. Raises CancelledError if the turn is cancelled.
        """
        if self._result is None:
            raise RuntimeError("the turn is not over")
        return await asyncio.shield(self._result)

    def cancel(self) -> None:
        """The text is not wanted any more."""
        if self._recognition is not None:
            self._recognition.cancel()
        if self._result is not None:
            self._result.cancel()

    # -- for the transcriber ----------------------------------------------------------------------

    def add(self, samples: Samples, *, silent: bool) -> None:
        """More of the turn at ASR_RATE; ``silent``: it ends with a pause."""
        if silent and self.paused:
            self._held.append(samples)
            return
        self._resume()
        self._push(samples)
        if silent:
            self.pause()

    def pause(self) -> None:
        """The user is silent, perhaps for good."""
        if not self.paused and self._recognition is not None:
            self.paused = True
            self._recognition.voice_ended()

    def flush(self, samples: Samples) -> None:
        """The last samples of the turn's stream."""
        if not self.paused:
            self._push(samples)

    def finish(self, in_order: asyncio.Lock) -> asyncio.Future[str]:
        """The turn is over: read it when ``in_order`` allows."""
        self._held.clear()
        self._result = asyncio.create_task(self._finish(in_order), name="transcribe")
        return self._result

    def fail(self, error: EngineError) -> None:
        """The turn is over and is not read."""
        self.cancel()
        self._held.clear()
        self._result = asyncio.get_running_loop().create_future()
        self._result.set_exception(error)
        self._result.exception()  # asyncio reports one that nobody asks for

    def when_read(self, tell: Callable[[str | EngineError], None]) -> None:
        """Call this with the text, or with why there is none; not if it is cancelled."""

        def done(result: asyncio.Future[str]) -> None:
            if result.cancelled():
                return
            error = result.exception()
            if error is None:
                tell(result.result())
            elif isinstance(error, EngineError):
                tell(error)

        assert self._result is not None
        self._result.add_done_callback(done)

    def _resume(self) -> None:
        held, self._held = self._held, []
        self.paused = False
        for samples in held:
            self._push(samples)

    def _push(self, samples: Samples) -> None:
        if not len(samples):
            return
        if self._recognition is None:
            self._recognition = self._listen(self._newer)
        self.seconds += len(samples) / ASR_RATE
        self.heard = replace(self.heard, whole=False)
        self._recognition.push(samples)

    async def _finish(self, in_order: asyncio.Lock) -> str:
        if self._recognition is None:
            return ""
        try:
            async with in_order:
                text = await self._recognition.finish()
        except EngineError:
            raise
        except asyncio.CancelledError:
            self._recognition.cancel()
            raise
        except Exception as error:  # the task's boundary
            _log.exception("a turn could not be recognised")
            raise EngineError(
                "engine_failed", "Speech recognition failed; the server's log says why."
            ) from error
        self.heard = Heard(text, text, whole=True)
        return text

    def _newer(self, heard: Heard) -> None:
        self.heard = heard
        self._on_heard(self)


class Transcriber:
    """The transcription of one dialogue. Its methods do not wait; engines work elsewhere.

    With turn detection call `follow` with each event of the `Listener`; without it, `hear` with the
    audio. Call `commit` when the turn has become an item: then the session is told the text, and
    while the turn is spoken, if its client asked for that. A turn is recognised if the client asked
    for transcription, or ``always``. ``on_heard`` gets each newer text of the turn in progress,
    ``on_failed`` why a turn has no text.
    """

    def __init__(
        self,
        session: DialogueSession,
        recognizer: Recognizer | None,
        config: DialogueConfig,
        *,
        always: bool = False,
        on_heard: Callable[[Heard], None] | None = None,
        on_failed: Callable[[EngineError], None] | None = None,
    ) -> None:
        self._session = session
        self._recognizer = recognizer
        self._config = config
        self._always = always
        self._on_heard = on_heard
        self._on_failed = on_failed
        self._turn: TurnText | None = None  # in progress
        self._waiting: set[TurnText] = set()  # over, not read yet
        self._in_order = asyncio.Lock()  # a session has one turn read at a time, not all of them
        self._to_asr = Resampler(config.input_rate, ASR_RATE)
        self._voice: Turns | None = None
        self._find_voice()

    @property
    def listens(self) -> bool:
        """Whether turns are recognised: there is an engine, and somebody wants the text."""
        return self._recognizer is not None and (self._always or self._client_asks)

    @property
    def language(self) -> str:
        """What the user speaks, as "en": as the client says, the settings, the avatar; or empty."""
        asked = self._config.transcription
        of_engine = self._recognizer.language if self._recognizer is not None else ""
        return (asked.language if asked else "") or of_engine or self._config.persona.language

    @property
    def heard(self) -> Heard:
        """The newest text of the turn in progress. ``whole``: of all voice up to now."""
        return _NOTHING if self._turn is None else self._turn.heard

    def follow(self, event: TurnEvent, silent_ms: int) -> None:
        """The next event of turn detection. ``silent_ms``: `Listener.silent_ms`.

        A turn goes on, with the next `TurnBegan` too, until `commit`, `end` or `clear`.
        """
        if isinstance(event, TurnAudio) and self.listens:
            if self._turn is None:
                self._turn = self._new_turn()
            self._turn.add(self._to_asr.push(event.samples), silent=silent_ms >= PAUSE_MS)
        elif isinstance(event, TurnEnded) and self._turn is not None:
            self._turn.pause()

    def hear(self, samples: Samples) -> None:
        """Audio where turns are not detected, at the input's rate. Silence is left out."""
        if self._voice is not None:
            for event in self._voice.push(samples):
                self.follow(event, self._voice.silent_ms)

    def commit(self, item_id: str) -> TurnText:
        """The turn in progress is over and is this item now."""
        turn = self.end()
        self.assign(turn, item_id)
        return turn

    def end(self) -> TurnText:
        """The turn in progress is over, and no item yet (`assign`)."""
        turn, self._turn = self._turn or self._new_turn(), None
        turn.flush(self._to_asr.flush())
        self._start_anew()
        self._finish(turn)
        return turn

    def read(self, recording: Recording) -> TurnText:
        """The text of a recording that was not followed."""
        turn = self._new_turn()
        turn.add(resample(recording.samples, recording.rate, ASR_RATE), silent=False)
        self._finish(turn)
        return turn

    def assign(self, turn: TurnText, item_id: str) -> None:
        """A turn that is over is this item: the session is told its text as soon as it is read."""
        turn.item_id = item_id
        self._tell_more(turn, turn.heard.stable)
        turn.when_read(lambda result: self._tell(turn, item_id, result))

    def clear(self) -> None:
        """Drop the turn in progress."""
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()
        self._start_anew()

    def configure(self, config: DialogueConfig) -> None:
        """Change the configuration; a turn in progress goes on, if turns are found as before."""
        old, self._config = self._config, config
        if not self.listens or config.settings.turn_detection != old.settings.turn_detection:
            self.clear()
        if config.input_rate != old.input_rate:
            if self._turn is not None:
                self._turn.flush(self._to_asr.flush())
            self._to_asr = Resampler(config.input_rate, ASR_RATE)
        self._find_voice()

    async def close(self) -> None:
        """Stop; texts that are not read yet are not wanted any more."""
        self.clear()
        for turn in tuple(self._waiting):
            turn.cancel()

    @property
    def _client_asks(self) -> bool:
        return self._config.transcription is not None

    def _new_turn(self) -> TurnText:
        return TurnText(self._listen, self._newer)

    def _listen(self, on_heard: Callable[[Heard], None]) -> Recognition:
        assert self._recognizer is not None
        asked = self._config.transcription
        return self._recognizer.listen(
            language=self.language,
            prompt=asked.prompt if asked else "",
            on_heard=on_heard,
        )

    def _finish(self, turn: TurnText) -> None:
        if self._recognizer is None:
            turn.fail(
                EngineError(
                    "engine_missing",
                    "There is no speech recognition. Install one: pip install 'wsavatar[local]'; "
                    "or name one in the configuration (asr.engine).",
                )
            )
        elif len(self._waiting) >= _MAX_WAITING:
            turn.fail(
                EngineError(
                    "engine_timeout", "Turns end faster than they are read: this one is not read."
                )
            )
        else:
            self._waiting.add(turn)
            turn.finish(self._in_order).add_done_callback(lambda _: self._waiting.discard(turn))
            turn.when_read(self._note_failure)

    def _newer(self, turn: TurnText) -> None:
        """A reading came."""
        self._tell_more(turn, turn.heard.stable)
        if turn is self._turn and self._on_heard is not None:
            self._on_heard(turn.heard)

    def _tell_more(self, turn: TurnText, text: str) -> None:
        """Send the client what it does not have yet of a text whose words do not change."""
        item_id = self._session.spoken_item_id if turn is self._turn else turn.item_id
        if item_id is None or not self._client_asks:
            return
        if item_id != turn.sent_as:
            turn.sent, turn.sent_as = "", item_id
        if delta := continuation(turn.sent, text):
            turn.sent += delta
            self._session.transcript_delta(item_id, delta)

    def _tell(self, turn: TurnText, item_id: str, result: str | EngineError) -> None:
        if isinstance(result, str):
            if not self._always and not self._client_asks:
                return
            self._tell_more(turn, result)
            self._session.transcribed(item_id, result, turn.seconds)
        elif self._client_asks:
            self._session.transcription_failed(item_id, result.code, str(result))

    def _note_failure(self, result: str | EngineError) -> None:
        if isinstance(result, EngineError) and self._on_failed is not None:
            self._on_failed(result)

    def _find_voice(self) -> None:
        """Without turn detection, voice is still told from silence. Raises SileroError."""
        settings, rate = self._config.settings, self._config.input_rate
        if settings.turn_detection or not self.listens:
            self._voice = None
        elif self._voice is None:
            vad = VoiceActivity(settings.vad_threshold, settings.vad_prefix_padding_ms)
            self._voice = Turns(vad, rate)
        else:
            self._voice.change_rate(rate)

    def _start_anew(self) -> None:
        self._to_asr.reset()
        if self._voice is not None:
            self._voice.clear()
