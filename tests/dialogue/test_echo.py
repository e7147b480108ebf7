"""The echo guard: the avatar's own voice from loudspeakers does not interrupt it, the user does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from tests.dialogue.test_vad import phrases_of
from wsavatar.bench.loudspeaker import Loudspeaker
from wsavatar.dialogue.echo import EchoGuard
from wsavatar.dialogue.silero import SileroStream
from wsavatar.dialogue.tts.espeak import EspeakVoice
from wsavatar.dialogue.vad import SpeechStarted, VoiceActivity
from wsavatar.media.audio import resample

RATE = 16_000
PACKET = RATE // 50
SENTENCES = (
    "Of course I can help you. The museum opens at nine in the morning and closes at six.",
    "The quick brown fox jumps over the lazy dog, and then it goes back to its den by the river.",
    "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow.",
    "Please call Stella, and ask her to bring these things with her from the store.",
    "There are three reasons for this, and nobody asked for the most important one before.",
    "Your order has been placed, and it will arrive on Thursday between eight and ten.",
    "It costs twenty nine euros a month, and you can cancel whenever you want to.",
    "First heat the oil in a large pan, then add the onions and cook them until they are soft.",
    "The library is on the left side of the street, just behind the old post office.",
    "That is a good question, and the honest answer is that nobody knows for certain.",
)


@pytest.fixture(scope="module")
def answers() -> list[np.ndarray]:
    """Ten sentences of the avatar, of some 5 s each, at -20 dBFS."""

    async def say(text: str, voice: str) -> np.ndarray:
        parts = EspeakVoice(voice).speak(text)
        sound = np.concatenate([part async for part in parts if isinstance(part, np.ndarray)])
        return sound * np.float32(0.1 / np.sqrt(np.mean(sound**2)))

    voices = ("en-us", "en-gb+f3")
    said = [asyncio.run(say(text, voices[at % 2])) for at, text in enumerate(SENTENCES)]
    return [resample(sound, 24_000, RATE) for sound in said]


@pytest.fixture(scope="module")
def user(samples_dir: Path) -> list[np.ndarray]:
    """Phrases of a second and a half, as loud as the avatar."""
    import soundfile as sf

    audio, _ = sf.read(samples_dir / "eng.wav", dtype="float32")
    return [phrase * np.float32(0.1 / np.sqrt(np.mean(phrase**2))) for phrase in phrases_of(audio)]


@dataclass
class Played:
    """A response that the client plays from ``begins_s`` on; the server is wrong by ``wrong_s``."""

    samples: np.ndarray
    begins_s: float
    wrong_s: float = 0.0
    now_s: float = 0.0

    def position_s(self, ago_s: float) -> float:
        return self.now_s - ago_s - self.begins_s - self.wrong_s

    def read(self, start: int, stop: int) -> np.ndarray:
        audio = np.zeros(stop - start, np.float32)
        first, last = max(start, 0), min(stop, len(self.samples))
        if first < last:
            audio[first - start : last - start] = self.samples[first:last]
        return audio


@dataclass
class Room:
    """A conversation on loudspeakers, in a quiet room."""

    answers: Sequence[np.ndarray]
    gain_db: float | None = -20.0
    """None: headphones."""
    reverberation_s: float = 0.4
    wrong_s: float = 0.0
    drift: float = 0.0
    """By how much the client's clock is faster."""
    pause_s: float = 1.0
    seed: int = 0
    microphone: np.ndarray = field(init=False)
    responses: list[Played] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        random = np.random.default_rng(self.seed)
        begins_s = [1.0]
        for answer in self.answers:
            begins_s.append(begins_s[-1] + len(answer) / RATE + self.pause_s)
        self.microphone = np.zeros(round((begins_s[-1] + 1) * RATE), np.float32)
        for answer, at_s in zip(self.answers, begins_s, strict=False):
            self.responses.append(Played(answer, at_s, self.wrong_s))
            if self.gain_db is None:
                continue
            places = np.arange(len(answer)) * (1 + self.drift)
            room = Loudspeaker(
                RATE,
                delay_s=random.uniform(0.05, 0.6),
                gain_db=self.gain_db,
                reverberation_s=self.reverberation_s,
                seed=self.seed,
            )
            heard = np.interp(places, np.arange(len(answer)), answer, right=0).astype("f4")
            self.add(room.push(np.concatenate([heard, np.zeros(RATE, np.float32)])), at_s)
        self.microphone += 1e-3 * random.standard_normal(len(self.microphone)).astype("f4")

    def add(self, sound: np.ndarray, at_s: float) -> None:
        """The microphone hears this too."""
        start = round(at_s * RATE)
        sound = sound[: len(self.microphone) - start]
        self.microphone[start : start + len(sound)] += sound

    def starts_s(self, *, guarded: bool = True) -> list[float]:
        """When speech is found to start that interrupts, in packets of 20 ms."""
        voice = SileroStream().probability
        guard = EchoGuard(voice, self._playing)
        vad = VoiceActivity(probability=guard.probability if guarded else voice)
        found = []
        for end in range(PACKET, len(self.microphone), PACKET):
            for response in self.responses:
                response.now_s = end / RATE
            guard.arrived(PACKET)
            events = vad.push(self.microphone[end - PACKET : end], min_voice_ms=96)
            found += [end / RATE for event in events if isinstance(event, SpeechStarted)]
        return found

    def _playing(self) -> list[Played]:
        begun = [one for one in self.responses if one.position_s(0.5 - self.wrong_s) > -1]
        return [one for one in begun[-2:] if one.position_s(2) < len(one.samples) / RATE]


ROOMS = [(-20, 0.0), (-20, 0.3), (-20, 0.6), (-10, 0.4)]


@pytest.mark.parametrize(("gain_db", "reverberation_s"), ROOMS)
def test_the_avatar_does_not_interrupt_itself(
    answers: list[np.ndarray], gain_db: float, reverberation_s: float
) -> None:
    """Ten sentences at -20 and -10 dB in the microphone, 50 to 600 ms late: no interruption, in
    the first one neither. Without the guard each of them interrupts."""
    room = Room(answers, gain_db, reverberation_s)
    assert room.starts_s() == []
    assert len(Room(answers[:3], gain_db, reverberation_s).starts_s(guarded=False)) >= 3


@pytest.mark.slow
@pytest.mark.parametrize(("gain_db", "reverberation_s"), ROOMS)
def test_the_avatar_does_not_interrupt_itself_in_many_rooms(
    answers: list[np.ndarray], gain_db: float, reverberation_s: float
) -> None:
    """A hundred sentences in five more rooms, with other delays: one interruption at most."""
    rooms = [Room(answers * 2, gain_db, reverberation_s, seed=seed) for seed in range(1, 6)]
    assert sum(len(room.starts_s()) for room in rooms) <= 1


@pytest.mark.parametrize("wrong_s", [-0.5, 0.4])
def test_the_server_may_be_wrong_about_the_position(
    answers: list[np.ndarray], wrong_s: float
) -> None:
    """By half a second, as with clients that do not report; and a clock may be 0.01 % off."""
    assert Room(answers[:5], wrong_s=wrong_s, drift=1e-4).starts_s() == []


@pytest.mark.parametrize("level_db", [0, -6])
def test_a_user_interrupts_the_avatar_on_loudspeakers(
    answers: list[np.ndarray], user: list[np.ndarray], level_db: float
) -> None:
    """As loud as the avatar, or 6 dB less, over an echo of -20 dB: within 250 ms nine of ten times,
    and always within half a second."""
    room = Room(answers, pause_s=2.5)
    spoken_s = [one.begins_s + 2.2 for one in room.responses]
    for at_s, phrase in zip(spoken_s, user, strict=False):
        room.add(phrase * np.float32(10 ** (level_db / 20)), at_s)
    starts_s = room.starts_s()
    late_ms = [
        min((1000 * (start - at) for start in starts_s if start > at - 0.05), default=9999)
        for at in spoken_s
    ]
    assert len(late_ms) == 10
    assert np.quantile(late_ms, 0.9) <= 250 and max(late_ms) <= 500


def test_without_an_echo_nothing_waits(answers: list[np.ndarray], user: list[np.ndarray]) -> None:
    """On headphones a user is heard with the guard when he is heard without it."""
    room = Room(answers[:6], None, pause_s=2.5)
    for response, phrase in zip(room.responses, user, strict=False):
        room.add(phrase, response.begins_s + 2.2)
    assert room.starts_s() == room.starts_s(guarded=False) != []


def test_before_it_is_known_whether_there_is_an_echo_voice_must_last_longer(
    answers: list[np.ndarray], user: list[np.ndarray]
) -> None:
    """Half a second into the first answer a user on headphones needs 0.3 s more, no longer."""
    for phrase in user[:4]:
        room = Room(answers[:1], None)
        room.add(phrase, 1.5)
        with_guard, without = room.starts_s()[0], room.starts_s(guarded=False)[0]
        assert without <= with_guard <= without + 0.3


def test_a_user_is_heard_while_the_avatar_is_silent(
    answers: list[np.ndarray], user: list[np.ndarray]
) -> None:
    """An echo that is known costs nothing in the pause behind an answer."""
    room = Room(answers[:3], pause_s=4.0)
    spoken_s = [one.begins_s + len(one.samples) / RATE + 1.5 for one in room.responses]
    for at_s, phrase in zip(spoken_s, user, strict=False):
        room.add(phrase, at_s)
    late_ms = [1000 * (start - at) for start, at in zip(room.starts_s(), spoken_s, strict=True)]
    assert max(late_ms) <= 200
