"""A dialogue that says tones, and the engines that it would have."""

from __future__ import annotations

from collections.abc import AsyncIterator

import numpy as np

from wsavatar.dialogue.base import (
    SPEECH_RATE,
    Dialogue,
    DialogueConfig,
    DialogueSession,
    Response,
    ResponseRequest,
    Word,
)
from wsavatar.dialogue.engine import EngineStatus
from wsavatar.dialogue.registry import DialogueError
from wsavatar.dialogue.tts import VoiceInfo, VoiceList


def tone(seconds: float, hz: float, rate: int = SPEECH_RATE) -> np.ndarray:
    """A sine of amplitude 0.5, float32."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype("f4")


class ToneDialogue(Dialogue):
    """Says what it is told to as a tone: ``speak("440 2.5")`` is 2.5 s of 440 Hz.

    ``speak("crash")`` raises, ``speak("fail")`` fails its response, ``speak("hum 300")`` says 1 s
    and leaves the response open, ``speak("timed 440 1")`` says when its words are, and
    ``speak("call NAME JSON")`` calls a function. What was committed is transcribed as "hello
    there", or not at all where the client's prompt is "fail". ``calls`` is what it was told, in
    order.
    """

    def __init__(self, session: DialogueSession, config: DialogueConfig) -> None:
        self.session = session
        self.config = config
        self.calls: list[str] = []
        self.heard_samples = 0
        self.commits: list[tuple[str, int]] = []
        self.requests: list[ResponseRequest] = []
        self.closed = False
        self.response: Response | None = None

    async def heard(self, samples: np.ndarray) -> None:
        self.calls.append("heard")
        self.heard_samples += len(samples)

    async def cleared(self) -> None:
        self.calls.append("cleared")

    async def committed(self, item_id: str) -> None:
        self.calls.append("committed")
        audio = self.session.conversation.get(item_id).audio
        assert audio is not None
        self.commits.append((item_id, len(audio.samples)))
        if self.config.transcription is None:
            return
        if self.config.transcription.prompt == "fail":
            self.session.transcription_failed(item_id, "engine_failed", "It broke.")
            return
        self.session.transcript_delta(item_id, "hello ")
        self.session.transcript_delta(item_id, "there")
        self.session.transcribed(item_id, "hello there", len(audio.samples) / audio.rate)

    async def create_response(self, request: ResponseRequest) -> None:
        self.calls.append("create_response")
        self.requests.append(request)
        newest = self.session.conversation.last_user_entry()
        entries = request.input if request.input is not None else [newest] if newest else []
        text = "".join(entry.item.text for entry in entries)
        await self._say(text or "440 1", request)

    async def speak(self, text: str) -> None:
        self.calls.append("speak")
        await self._say(text, None)

    async def _say(self, text: str, request: ResponseRequest | None) -> None:
        if text == "crash":
            raise RuntimeError("this dialogue crashes")
        self.response = response = self.session.respond(request)
        if text == "fail":
            await response.fail("tts_failed", "no voice")
            return
        if text.startswith("hum"):
            await response.audio(tone(1.0, float(text.split()[1])))
            return
        if text.startswith("call"):
            _, name, arguments = text.split(maxsplit=2)
            await response.arguments("call_1", name, arguments[:4])
            await response.arguments("call_1", name, arguments[4:])
            await response.done()
            return
        is_timed = text.startswith("timed")
        hz, seconds = text.removeprefix("timed ").split()[:2]
        await response.text(text)
        if is_timed:
            await response.words([Word(text, 0.0, float(seconds), estimated=True)])
        await response.audio(tone(float(seconds), float(hz)))
        await response.done()

    async def configure(self, config: DialogueConfig) -> None:
        self.calls.append("configure")
        self.config = config

    async def close(self) -> None:
        self.closed = True


class Dialogues:
    """Makes `ToneDialogue`s and remembers them; the mode ``upstream`` is not available."""

    def __init__(self, kind: type[ToneDialogue] = ToneDialogue) -> None:
        self.kind = kind
        self.refuses_upstream = True
        self.made: list[tuple[str, ToneDialogue]] = []

    def create(self, mode: str, session: DialogueSession, config: DialogueConfig) -> ToneDialogue:
        if mode == "upstream" and self.refuses_upstream:
            raise DialogueError("unsupported_mode", "There is no mode 'upstream' yet.")
        dialogue = self.kind(session, config)
        self.made.append((mode, dialogue))
        return dialogue


class ToneVoice:
    """Says every phrase as half a second of tone."""

    def __init__(self, name: str) -> None:
        self.name = name

    def for_response(self) -> ToneVoice:
        return self

    async def speak(self, text: str) -> AsyncIterator[np.ndarray]:
        yield tone(0.5, 330)


class FakeSpeech:
    """Engines that are there, and named."""

    def __init__(self, *, converse: bool = False) -> None:
        self.converse = converse

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def status(self) -> list[EngineStatus]:
        return [EngineStatus("asr", "a good ear"), EngineStatus("llm", "a clever model")]

    def voice(self, name: str = "") -> ToneVoice:
        return ToneVoice(name)

    def voice_list(self) -> VoiceList:
        return VoiceList((VoiceInfo("coral", "Coral", "en-US", "openai"),), complete=False)
