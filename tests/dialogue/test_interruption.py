"""What costs the avatar its answer, and where an answer that nothing cost goes on."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from wsavatar.dialogue.base import Word
from wsavatar.dialogue.interruption import resume_at, says_something
from wsavatar.dialogue.tts.base import WordTime
from wsavatar.dialogue.tts.espeak import EspeakVoice

SIGNS = """\

Mm-hmm.
Mhm
Mmmm...
Hmmm
Uh-huh.
uhuh
Yeah.
yeah yeah
Ok
Okay, right.
I see.
Got it, ok.
Oh wow!
All right.
(coughs)
[BLANK_AUDIO]
*laughs* ha ha ha
♪ music ♪
you
Ja.
genau, genau
Ach so.
Na klar
Ouais
d'accord
D’accord.
Bien sûr
Sí, sí
claro
ajá
Va bene.
certo
Sim
tá bom
嗯嗯
对对对
好的。
はい
はいはい
うんうん
そうですね
네
да, да"""

WORDS = """\
No.
Stop
Wait
Yeah, but what about Monday?
Okay, stop
Yes and no
What?
Thank you.
right to left
ok ok ok ok
Hold on
Ja, aber
Nein
Halt
Attends
Non
Espera
No, no
Aspetta
Não
等等
不是
待って
違います
five
5"""


@pytest.mark.parametrize("text", SIGNS.splitlines())
def test_signs_of_listening_say_nothing(text: str) -> None:
    """Noises, fillers and what people say while they listen, in nine languages."""
    assert not says_something(text)


@pytest.mark.parametrize("text", WORDS.splitlines())
def test_words_say_something(text: str) -> None:
    """One word that is more is enough, and so is a row of the others."""
    assert says_something(text)


RATE = 24_000


def test_without_times_of_words_it_goes_on_in_the_last_pause() -> None:
    """A gap of 40 ms, as before a "t", is no pause; one of 120 ms is."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(2 * RATE).astype("f4")
    for start_s, seconds in ((1.30, 0.12), (1.50, 0.04)):
        noise[round(start_s * RATE) : round((start_s + seconds) * RATE)] *= 0.01
    assert resume_at([noise], RATE, 0.0, 1.6) == pytest.approx(1.36, abs=0.05)
    split = np.array_split(noise[RATE:], 7)
    assert resume_at(split, RATE, 1.0, 1.6) == pytest.approx(1.36, abs=0.05)


def test_it_goes_back_at_most_six_tenths_and_never_forward() -> None:
    """Not before what is kept, and not behind what was heard."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * RATE).astype("f4")
    for heard_s in (0.0, 0.03, 0.3, 1.0, 2.5, 3.0, 9.0):
        at = resume_at([noise], RATE, 0.0, heard_s)
        assert max(min(heard_s, 3.0) - 0.6, 0) <= at <= min(heard_s, 3.0)
    assert resume_at([], RATE, 5.0, 4.0) == 5.0
    assert resume_at([noise], RATE, 5.0, 5.2) >= 5.0


def test_estimated_times_of_words_are_not_believed() -> None:
    """They may be half a second off."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(RATE).astype("f4")
    words = [Word("one", 0.3, 0.2, estimated=True), Word("two", 0.5, 0.2, estimated=True)]
    assert resume_at([noise], RATE, 0.0, 0.9, words) == resume_at([noise], RATE, 0.0, 0.9)


def test_no_word_of_a_voice_is_cut_in_half() -> None:
    """Wherever eSpeak NG is interrupted, it goes on where a word begins: in the last 0.6 s, or
    the last one."""

    async def speak() -> tuple[np.ndarray, list[float]]:
        parts = EspeakVoice("en-us").speak("When the light strikes raindrops, they form a rainbow.")
        got = [part async for part in parts]
        sound = np.concatenate([part for part in got if not isinstance(part, WordTime)])
        return sound, [part.start_s for part in got if isinstance(part, WordTime)]

    sound, starts = asyncio.run(speak())
    words = [Word("", start, 0.0, estimated=False) for start in starts]
    for heard_s in np.arange(0.7, len(sound) / RATE, 0.1):
        at = resume_at([sound], RATE, 0.0, float(heard_s), words)
        last = max(start for start in starts if start <= heard_s - 0.05)
        assert at in starts and (heard_s - 0.6 <= at <= last or at == last)
