"""What a voice is given to read: speakable, and every word known where it is written."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.dialogue.tts.spoken import spoken as audio_of
from tests.dialogue.tts.test_phrases import TABLE
from wsavatar.dialogue.tts import espeak as espeak_module
from wsavatar.dialogue.tts.base import Chunks, WordTime
from wsavatar.dialogue.tts.english import in_english
from wsavatar.dialogue.tts.espeak import EspeakVoice
from wsavatar.dialogue.tts.fallback import FallbackVoice, Link
from wsavatar.dialogue.tts.spoken import Spoken, spoken_form


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("See https://www.example.com/a/b?c=1#d.", "See example.com."),
        ("(http://localhost:8000/x), yes", "(localhost), yes"),
        ("www.Example.org/x! me@x.com, file.txt", "Example.org! me@x.com, file.txt"),
        ("Great! 🎉 Let's go 👍🏽.", "Great! Let's go ."),
        ("👩\u200d👩\u200d👧 ❤️ and 1️⃣ two", "and 1 two"),
        ("می\u200cخواهم 5°", "می\u200cخواهم 5°"),
        ("© 2024 ACME™", "© 2024 ACME™"),
        ("- Eggs\n", "Eggs."),
        ("What we need\n", "What we need."),
        ("Is it “so”?\n", "Is it “so”?"),
        ("(a note)\n", "(a note."),
        ("a -> b → c", "a, b, c"),
        ("=== so ===", "so"),
        ("🎉🎉", ""),
        ("", ""),
    ],
)
def test_every_engine_gets_speakable_text(text: str, said: str) -> None:
    """Hosts for addresses, no emoji, no ornaments; a line without a mark is a sentence."""
    assert spoken_form(text).text == said


@pytest.mark.parametrize("text", [text.replace("|", "") for _, text in TABLE])
def test_text_of_any_language_is_left_as_it_is(text: str) -> None:
    """Only what no engine reads right is changed."""
    plain = "".join(c for c in text if c not in "🎉🚀👍🏽").replace("https://", "")
    assert spoken_form(text).text.split() == plain.replace("/a?b=c!d.html", "").split()


ENGLISH = [
    ("It costs $5.20, not $1.", "It costs 5 dollars and 20 cents, not 1 dollar."),
    ("$0.99, £3.50, €2.5bn, $10k, ¥100", "99 cents, 3 pounds and 50 pence, 2.5 billion euros, "
     "10 thousand dollars, 100 yen"),
    ("$3.5 million, $1,200, $5/month", "3.5 million dollars, 1,200 dollars, 5 dollars per month"),
    ("$10-$20 or $10–20", "10 to 20 dollars or 10 to 20 dollars"),
    ("in 1989, 1500 people", "in 19 89, 1500 people"),
    ("In 1989 Berlin had 16 GB of RAM", "In 19 89 Berlin had 16 gigabytes of ram"),
    ("since 2005 and in 2024.", "since 2005 and in 20 24."),
    ("the 1990s, 2000s and late 90s", "the 19 nineties, two thousands and late nineties"),
    ("on 2024-05-12", "on May 12, 20 24"),
    ("on 2024-15-12", "on 2024-15-12"),
    ("Jan. 5, 1969", "January 5, 19 69"),
    ("at 9:00 am, 9:00, 17:05, 10:30", "at 9 am, 9 o'clock, 17 oh 5, 10:30"),
    ("5 km, 1 km, 90 km/h, 3 m², 20 °C", "5 kilometers, 1 kilometer, 90 kilometers per hour, "
     "3 square meters, 20 degrees Celsius"),
    ("5G, 16GB, 1 ft, a 10-min walk", "5G, 16 gigabytes, 1 foot, a 10 minutes walk"),
    ("1/2 cup, 5/8, 8/10, 24/7", "½ cup, 5 over 8, 8 out of 10, 24 7"),
    ("10 - 3, 5-10 people, pp. 7–9", "10 minus 3, 5 to 10 people, pages 7 to 9"),
    ("5x3, 1920x1080, 2x, x², 10^6", "5 times 3, 1920 by 1080, 2 times, x squared, "
     "10 to the power of 6"),
    ("~5, COVID-19, F-16", "about 5, COVID-19, F-16"),
    ("+1 555 123 4567", "plus 1, 5 5 5, 1 2 3, 4 5 6 7"),
    ("Dr. Smith and Mrs. Lee vs. St. Mary", "Doctor Smith and Missis Lee versus Saint Mary"),
    ("J. R. R. Tolkien of the U.S. Army", "J R R Tolkien of the U S Army"),
    ("e.g. this, i.e. that, etc.", "for example this, that is that, et cetera."),
    ("at 5 p.m. on Monday. No. 5", "at 5 PM on Monday. number 5"),
    ("World War II, Louis XIV, Malcolm X", "World War 2, Louis the 14th, Malcolm X"),
    ("and/or, C#, #1, #tag, w/o it", "and or, C sharp, number 1, tag, without it"),
    ("It is 3.14, 1,234,567 and 5%.", "It is 3.14, 1,234,567 and 5%."),
    ("Plain words, as they are.", "Plain words, as they are."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), ENGLISH)
def test_english_is_read_as_it_is_meant(text: str, said: str) -> None:
    """Money, dates, units, ranges and abbreviations, which eSpeak NG reads wrong; the rest, which
    it reads right, is left."""
    assert in_english(Spoken.of(text)).text == said


@pytest.mark.parametrize(("text", "said"), ENGLISH)
def test_words_know_where_they_are_written(text: str, said: str) -> None:
    """What is not changed is where it was, and order is kept."""
    spoken = in_english(spoken_form(text))
    assert len(spoken.origins) == len(spoken.text)
    assert list(spoken.origins) == sorted(spoken.origins)
    assert all(0 <= origin < len(text) for origin in spoken.origins)
    for word in re.finditer(r"\S+", spoken.text):
        if word[0] in text.split() and spoken.text.split().count(word[0]) == 1:
            assert text[spoken.origins[word.start()] :].startswith(word[0])


async def test_other_languages_are_not_read_as_english(monkeypatch: pytest.MonkeyPatch) -> None:
    """A German voice gets German."""
    texts = []

    def synthesize(text: str, *rest: object) -> tuple[np.ndarray, list[WordTime]]:
        texts.append(text)
        return np.zeros(10, np.float32), []

    monkeypatch.setattr(espeak_module, "_synthesize", synthesize)
    for name in ("de", "en-us"):
        await audio_of(EspeakVoice(name), "Dr. Müller hat 5 km.")
    assert texts == ["Dr. Müller hat 5 km.", "Doctor Müller hat 5 kilometers."]


class Reader:
    """An engine that says a tenth of a second a letter, and times words by blanks."""

    times_words = True

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def speak(self, text: str) -> Chunks:
        self.texts.append(text)
        for at, letter in enumerate(text):
            if letter != " " and (at == 0 or text[at - 1] == " "):
                yield WordTime(at, at / 10)
            yield np.full(2400, 0.1, np.float32)


async def test_captions_have_the_written_words() -> None:
    """The engine reads the speakable text; its times are those of the words as they are shown."""
    reader = Reader()
    voice = FallbackVoice([Link(reader)])
    parts = [part async for part in voice.speak("Look: 🎉 https://x.org/long/path now\n")]
    assert reader.texts == ["Look: x.org now."]
    words = [word for part in parts if isinstance(part, tuple) for word in part]
    assert [(word.text, round(word.start_s, 1)) for word in words] == [
        ("Look:", 0.0),
        ("https://x.org/long/path", 0.6),
        ("now", 1.2),
    ]
    assert not any(word.estimated for word in words)


async def test_nothing_is_asked_for_a_phrase_of_ornaments() -> None:
    """No engine is asked, and none is taken to have failed."""
    reader = Reader()
    assert len(await audio_of(FallbackVoice([Link(reader)]), "🎉 ===")) == 0
    assert reader.texts == []
