"""A server's voices: which engines speak, in which order, what the page is told of them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import aclosing

import numpy as np
import pytest
from aiohttp import web

from tests.dialogue.fakes import wait_for
from tests.dialogue.scripted_endpoint import Answer, pcm_tone, scripted_endpoint
from tests.dialogue.tts.spoken import spoken
from wsavatar.avatars.library import AvatarLibrary
from wsavatar.config import AvatarSettings, Settings, TtsSettings
from wsavatar.dialogue.engine import EngineError
from wsavatar.dialogue.engines import Engines
from wsavatar.dialogue.tts import ENGINES, VoiceError, create_voices
from wsavatar.dialogue.tts.base import (
    Chunks,
    Synthesizer,
    VoiceEngine,
    VoiceInfo,
    VoiceUnreachable,
)
from wsavatar.dialogue.tts.edge import EdgeEngine
from wsavatar.dialogue.tts.voices import Voices


class FakeEngine(VoiceEngine):
    """Says its name's first letter as a level, or what is wrong with it."""

    def __init__(self, name: str, wait_s: float) -> None:
        self.name, self.wait_s = name, wait_s
        self.note = f"{name} is nice"
        self.missing = self.broken = ""
        self.started = self.closed = 0
        self.listed: Sequence[VoiceInfo] = (VoiceInfo(f"{name}-1", "One", "en", name),)
        self.more: Sequence[VoiceInfo] | None = None
        self.gate = asyncio.Event()
        self.looked_up = 0
        self.asked_for: list[str] = []

    times_words = True

    def problem(self) -> str:
        return self.missing

    def synthesizer(self, name: str) -> Synthesizer:
        self.asked_for.append(name)
        return self

    def voices(self) -> Sequence[VoiceInfo]:
        return self.listed

    async def look_up(self) -> None:
        self.looked_up += 1
        await self.gate.wait()
        if self.more is None:
            raise VoiceUnreachable("Not there.")
        self.listed = self.more

    async def start(self) -> None:
        self.started += 1
        if self.broken:
            raise VoiceError(self.broken)

    async def close(self) -> None:
        self.closed += 1

    async def speak(self, text: str) -> Chunks:
        if self.missing or self.broken:
            raise VoiceError(self.missing or self.broken)
        yield np.full(2400, ord(self.name[0]) / 1000, np.float32)


class Server:
    """Voices by fake engines."""

    def __init__(self, *missing: str) -> None:
        self.missing = missing
        self.engines: dict[str, FakeEngine] = {}
        self.now_s = 100.0

    def voices(self, *engines: str, **settings: object) -> Voices:
        makers = {name: self._maker(name) for name in ("alpha", "beta", "gamma")}
        made = TtsSettings.model_validate({"engines": engines, **settings})
        return Voices(made, makers, ["beta", "alpha"], clock=lambda: self.now_s)

    def _maker(self, name: str) -> object:
        def make(settings: TtsSettings, wait_s: float) -> FakeEngine:
            engine = self.engines[name] = FakeEngine(name, wait_s)
            engine.missing = f"{name} is not installed." if name in self.missing else ""
            return engine

        return make


async def first(voices: Voices) -> str:
    """The engine that speaks, by its first letter."""
    return chr(round(float((await spoken(voices.voice()))[0]) * 1000))


async def test_engines_speak_in_the_order_of_the_list() -> None:
    """The first one, and the next where it fails. Each but the last has half of the time."""
    server = Server()
    voices = server.voices("gamma", "alpha", timeout_s=6)
    assert voices.name == "gamma, then alpha" and await first(voices) == "g"
    server.engines["gamma"].broken = "Out of order."
    assert await first(voices) == "a"
    assert [server.engines[name].wait_s for name in ("gamma", "alpha")] == [3, 6]


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("alpha-1, beta-1", ("alpha-1", "beta-1")),
        ("beta-1,alpha-1", ("alpha-1", "beta-1")),
        ("gamma-1, beta-1", ("gamma-1", "beta-1")),
        ("somebody, nobody", ("somebody", "somebody")),
        ("", ("", "")),
    ],
)
def test_each_engine_takes_the_first_name_that_it_knows(name: str, asked: tuple[str, str]) -> None:
    """An avatar keeps a fitting voice where the best engine cannot be reached; of names that an
    engine does not know it gets the first, which may tell the language."""
    server = Server()
    server.voices("alpha", "beta").voice(name)
    assert tuple(engine.asked_for[-1] for engine in server.engines.values()) == asked


@pytest.mark.parametrize(
    ("name", "speaks"),
    [("beta-1", "b"), ("gamma-1, beta-1", "b"), ("beta-1, alpha-1", "a"), ("somebody", "a")],
)
async def test_an_engine_that_has_the_wished_voice_goes_first(name: str, speaks: str) -> None:
    """A woman's face does not get a man's voice while an engine has a woman's."""
    said = await spoken(Server().voices("alpha", "beta").voice(name))
    assert chr(round(float(said[0]) * 1000)) == speaks


def test_a_language_is_no_wish_for_an_engine() -> None:
    """eSpeak NG's voices of a language are named by it; its variants are its own."""
    espeak = ENGINES["espeak"](TtsSettings(), 1.0)
    assert [espeak.owns(name) for name in ("en-us", "de", "en-us+f3", "alloy")] == [
        False,
        False,
        True,
        False,
    ]


async def test_the_note_is_of_the_engine_that_speaks() -> None:
    """A service that cannot be reached gets nothing that is said."""
    server = Server()
    voices = server.voices("gamma", "alpha")
    assert voices.note == "gamma is nice"
    server.engines["alpha"].more = server.engines["alpha"].listed
    for engine in server.engines.values():
        engine.gate.set()  # they look their voices up, and gamma is not there
    voices.listed()
    await wait_for(lambda: voices.listed().complete)
    assert voices.note == "alpha is nice"
    await voices.close()


def test_the_bundled_avatars_have_voices_of_every_engine() -> None:
    """Edge's, an endpoint's, and eSpeak NG's with a fitting variant."""
    settings = TtsSettings(base_url="http://127.0.0.1:9/v1")
    engines = {name: ENGINES[name](settings, 1.0) for name in ("edge", "openai", "espeak")}
    avatars = AvatarLibrary(AvatarSettings())
    for listed in avatars.list():
        names = [one.strip() for one in avatars.read(listed.id).voice.split(",")]
        known = {name: [one for one in names if engines[name].knows(one)] for name in engines}
        assert [len(found) for found in known.values()] == [1, 1, 1], listed.id


async def test_auto_is_all_that_are_set_up() -> None:
    """The best first; it may stand among names, and none comes twice."""
    assert Server().voices("auto").name == "beta, then alpha"
    assert Server("beta").voices("auto").name == "alpha"
    assert Server().voices("alpha", "auto").name == "alpha, then beta"
    assert Server().voices("gamma", "auto").name == "gamma, then beta, then alpha"


def test_an_engine_that_is_not_there_is_a_clear_error() -> None:
    """The error names those there are."""
    with pytest.raises(VoiceError, match="'flite'; these are: auto, openai, edge, piper, espeak"):
        create_voices(TtsSettings(engines=("edge", "flite")))


def test_what_auto_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endpoint only if one is configured: a key in the environment costs nobody money."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    assert "openai" not in create_voices(TtsSettings()).name
    configured = create_voices(TtsSettings(base_url="http://127.0.0.1:9/v1")).name
    assert configured.startswith("openai, then edge") and configured.endswith("espeak")
    assert list(ENGINES) == ["openai", "edge", "piper", "espeak"]


async def test_the_configured_voice_is_the_default() -> None:
    """A session's own name goes before it."""
    server = Server()
    voices = server.voices("alpha", voice="configured")
    voices.voice(), voices.voice("own")
    assert server.engines["alpha"].asked_for == ["configured", "own"]


@pytest.mark.parametrize(
    ("name", "engines"),
    [
        ("en-US-AvaMultilingualNeural", ["edge"]),
        ("en-us+f3", ["espeak"]),
        ("de", ["espeak"]),
        ("marin", ["openai"]),
        ("ash", ["openai"]),
        ("af_heart", ["openai"]),
        ("de_DE-thorsten-low", []),
        ("", []),
    ],
)
def test_whose_name_it_is(name: str, engines: list[str]) -> None:
    """By its form; Piper's are those that are installed."""
    settings = TtsSettings(base_url="http://127.0.0.1:9/v1")
    assert [one for one, make in ENGINES.items() if make(settings, 1.0).knows(name)] == engines


async def test_status_says_what_is_wrong_and_what_to_type() -> None:
    """One engine that cannot be used is a note; none that can is a problem."""
    server = Server("gamma")
    voices = server.voices("gamma", "alpha")
    await voices.start()
    assert voices.problem == "" and voices.name == "alpha"
    assert voices.note == "alpha is nice gamma is not installed."
    server = Server("gamma")
    voices = server.voices("gamma")
    assert voices.problem == "gamma is not installed." and voices.name == voices.note == ""
    with pytest.raises(EngineError, match="not installed"):
        await voices.start()


async def test_an_engine_that_does_not_start_is_passed_over() -> None:
    """The others start; what is wrong is shown until it starts."""
    server = Server()
    voices = server.voices("alpha", "beta")
    server.engines["alpha"].broken = "The file is broken."
    await voices.start()
    assert voices.name == "beta" and "The file is broken." in voices.note
    server.engines["alpha"].broken = ""
    await voices.start()
    assert voices.name == "alpha, then beta"
    await voices.close()
    assert all(server.engines[name].closed == 1 for name in ("alpha", "beta"))


def test_engines_have_a_status_of_their_voices() -> None:
    """As of every kind of engine; a wrong name is a problem to show, not a server that is down."""
    status = {
        one.kind: one for one in Engines(Settings(tts=TtsSettings(engines=("espeak",)))).status()
    }
    assert status["tts"].name == "espeak" and status["tts"].problem == ""
    assert "piper" in status["tts"].note
    engines = Engines(Settings(tts=TtsSettings(engines=("flite",))))
    assert "flite" in engines.problem("tts")
    with pytest.raises(VoiceError, match="flite"):
        engines.voice()


async def test_starting_imports_off_the_loop() -> None:
    """Packages that take a second to import do not hold up the sessions; nothing is asked of an
    endpoint before there is something to say."""
    async with scripted_endpoint() as endpoint:
        voices = create_voices(
            TtsSettings(engines=("openai", "edge", "espeak"), base_url=endpoint.url)
        )
        await voices.start()
        assert {"openai", "edge_tts"} < set(sys.modules) and endpoint.connections == 0
        await voices.close()


# -- checks ---------------------------------------------------------------------------------------


async def test_a_check_uses_each_engine() -> None:
    """What speaks, how fast, and what does not, why."""
    server = Server("gamma")
    voices = server.voices("gamma", "alpha")
    missing, well = await voices.check_each()
    assert (missing.name, missing.problem) == ("gamma", "gamma is not installed.")
    assert (well.name, well.problem) == ("alpha", "") and well.seconds >= 0
    assert "alpha spoke after" in await voices.check()
    server.engines["alpha"].broken = "Out of order."
    with pytest.raises(EngineError, match="Out of order"):
        await voices.check()


async def test_a_real_endpoint_and_espeak_are_checked() -> None:
    """By a word that each really says."""
    async with scripted_endpoint(speech=[Answer(pcm_tone(0.2))]) as endpoint:
        settings = TtsSettings(engines=("openai", "espeak"), base_url=endpoint.url)
        voices = create_voices(settings)
        assert [(one.name, one.problem) for one in await voices.check_each()] == [
            ("openai", ""),
            ("espeak", ""),
        ]
        endpoint.speech = [Answer("no", status=401)]
        checks = await voices.check_each()
        await voices.close()
    assert "refuses the key" in checks[0].problem and checks[1].problem == ""


# -- the voices to choose -------------------------------------------------------------------------


async def test_voices_are_listed_without_waiting() -> None:
    """What is known at once; a service is asked meanwhile, once, and its voices come later."""
    server = Server()
    voices = server.voices("alpha", "beta")
    alpha = server.engines["alpha"]
    alpha.more = tuple(VoiceInfo(f"alpha-{n}", "More", "de", "alpha") for n in range(3000))
    server.engines["beta"].gate.set()
    assert [info.id for info in voices.listed().voices] == ["alpha-1", "beta-1"]
    assert not voices.listed().complete
    alpha.gate.set()
    await wait_for(lambda: voices.listed().complete)
    assert len(voices.listed().voices) == 2000 and alpha.looked_up == 1
    await voices.close()


async def test_a_service_that_is_away_is_asked_again_later() -> None:
    """Not with every visit of the page."""
    server = Server()
    voices = server.voices("alpha")
    alpha = server.engines["alpha"]
    alpha.gate.set()
    for _ in range(3):
        await wait_for(lambda: voices.listed().complete)
    assert alpha.looked_up == 1
    server.now_s += 61
    voices.listed()
    await wait_for(lambda: alpha.looked_up == 2)
    await voices.close()


async def test_closing_ends_a_look_up() -> None:
    """A service that does not answer holds nothing up."""
    voices = Server().voices("alpha")
    voices.listed()
    await voices.close()


async def test_edges_voices_are_those_of_its_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real package and a service in its place, that is down at first."""
    voice = {
        "ShortName": "de-DE-KatjaNeural",
        "FriendlyName": "Microsoft Katja Online (Natural) - German (Germany)",
        "Locale": "de-DE",
        "VoiceTag": {},
    }
    status = 500

    async def answer(request: web.Request) -> web.Response:
        return web.json_response([voice], status=status)

    app = web.Application()
    app.router.add_get("/voices/list", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    monkeypatch.setattr(
        "edge_tts.voices.VOICE_LIST", f"http://127.0.0.1:{port}/voices/list?token=x"
    )
    engine = EdgeEngine()
    with pytest.raises(VoiceError):
        await engine.look_up()
    assert engine.voices() == ()
    status = 200
    await engine.look_up()
    (info,) = engine.voices()
    assert (info.id, info.language, info.engine) == ("de-DE-KatjaNeural", "de-DE", "edge")
    await runner.cleanup()
    await engine.look_up()  # known already


async def test_a_voice_that_is_listed_speaks() -> None:
    """What the page offers is what a session may ask for."""
    voices = create_voices(TtsSettings(engines=("espeak",)))
    german = next(one for one in voices.listed().voices if one.language == "de")
    async with aclosing(voices.voice(german.id).speak("Guten Tag.")) as speech:
        assert len(await anext(speech)) > 0
    await voices.close()
