"""When words are said: as the engine tells, else by their lengths."""

from __future__ import annotations

import numpy as np
import pytest

from wsavatar.dialogue.base import Word
from wsavatar.dialogue.tts.words import WordClock, estimated, word_spans

RATE = 24_000


def words_of(text: str) -> list[str]:
    return [text[start:end] for start, end in word_spans(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, world!", ["Hello,", "world!"]),
        ("It costs $5.20 – really.", ["It", "costs", "$5.20", "really."]),
        ("你好，world", ["你", "好", "world"]),
        ("สวัสดีครับ", ["ส", "วั", "ส", "ดี", "ค", "รั", "บ"]),
        ("안녕 하세요", ["안녕", "하세요"]),
        ("مرحبا بك", ["مرحبا", "بك"]),
        ("... 🎉 –", []),
        ("", []),
    ],
)
def test_the_words_of_a_text(text: str, words: list[str]) -> None:
    """Between blanks, with their marks; a script without blanks has one for each character."""
    assert words_of(text) == words


def test_a_word_is_where_the_engine_says() -> None:
    """It lasts as long as the engine says, or until the next; the last one to the end."""
    clock = WordClock("One two three.")
    given = [*clock.told(0, 0.1, 0.2), *clock.told(4, 0.5), *clock.told(8, 0.9)]
    given += clock.finish(2.0)
    assert given == [
        Word("One", 0.1, pytest.approx(0.2), False),
        Word("two", 0.5, pytest.approx(0.4), False),
        Word("three.", 0.9, pytest.approx(1.1), False),
    ]


def test_words_that_the_engine_passes_over_are_put_between() -> None:
    """By their lengths, and marked as estimated."""
    clock = WordClock("One fourteen two.")
    given = [*clock.told(0, 0.0), *clock.told(13, 1.3), *clock.finish(2.0)]
    assert [word.text for word in given] == ["One", "fourteen", "two."]
    assert [word.estimated for word in given] == [False, True, False]
    assert given[1].start_s == pytest.approx(0.4)
    assert given[1].start_s + given[1].duration_s == pytest.approx(1.3)


def test_several_words_of_the_engine_in_one_of_the_text() -> None:
    """A number is one word that lasts until the last of what is said for it."""
    clock = WordClock("in 1989, yes")
    given = [
        *clock.told(0, 0.0, 0.1),
        *(word for at, s in ((3, 0.2), (5, 0.6), (5, 0.9)) for word in clock.told(at, s, 0.3)),
        *clock.told(9, 1.5, 0.2),
        *clock.finish(1.8),
    ]
    assert [(word.text, word.estimated) for word in given] == [
        ("in", False),
        ("1989,", False),
        ("yes", False),
    ]
    assert given[1].start_s == pytest.approx(0.2) and given[1].duration_s == pytest.approx(1.0)


def hum(seconds: float) -> np.ndarray:
    return np.full(round(seconds * RATE), 0.2, np.float32)


def quiet(seconds: float) -> np.ndarray:
    return np.full(round(seconds * RATE), 0.001, np.float32)


def test_without_the_engines_times_words_are_spread_over_the_sound() -> None:
    """By their lengths, to its end, and marked as estimated."""
    words = estimated("alpha bravo x 12", hum(3.0), RATE)
    assert [word.text for word in words] == ["alpha", "bravo", "x", "12"]
    assert all(word.estimated for word in words)
    starts = [word.start_s for word in words]
    assert starts == pytest.approx([0, 6 / 23 * 3, 12 / 23 * 3, 14 / 23 * 3])
    assert words[-1].start_s + words[-1].duration_s == pytest.approx(3.0)


def test_a_pause_belongs_to_a_mark() -> None:
    """What is said slowly before it, and fast behind it, is where it is heard."""
    sound = np.concatenate([hum(1.4), quiet(0.4), hum(1.0)])
    words = estimated("Once upon, two three four five.", sound, RATE)
    assert words[1].start_s + words[1].duration_s == pytest.approx(1.4, abs=0.02)
    assert words[2].start_s == pytest.approx(1.8, abs=0.02)
    assert words[-1].start_s + words[-1].duration_s == pytest.approx(2.8)


def test_pauses_without_marks_change_nothing() -> None:
    """A voice may hesitate anywhere."""
    sound = np.concatenate([hum(1.0), quiet(0.4), hum(1.0)])
    starts = [word.start_s for word in estimated("one two three four", sound, RATE)]
    assert starts == pytest.approx([0, 4 / 19 * 2.4, 8 / 19 * 2.4, 14 / 19 * 2.4])


@pytest.mark.parametrize(
    ("text", "sound"),
    [
        ("", hum(1)),
        ("...", hum(1)),
        ("a", quiet(0)),
        ("a, b, c.", quiet(2)),
        ("a " * 99, hum(0.005)),
    ],
)
def test_odd_sounds_have_words_all_the_same(text: str, sound: np.ndarray) -> None:
    """As many as the text, in order, within the sound."""
    words = estimated(text, sound, RATE)
    assert len(words) == len(word_spans(text))
    assert all(0 <= word.start_s <= len(sound) / RATE + 1e-6 for word in words)


@pytest.mark.parametrize("at", [-5, 3, 99])
def test_times_that_make_no_sense_do_no_harm(at: int) -> None:
    """Before the text, behind it, backwards: words stay in order, and each comes once."""
    clock = WordClock("One two three.")
    given = [*clock.told(at, 5.0), *clock.told(8, 0.2), *clock.told(0, -1.0), *clock.finish(1.0)]
    assert [word.text for word in given] == ["One", "two", "three."]
    starts = [word.start_s for word in given]
    assert starts == sorted(starts) and all(word.duration_s >= 0 for word in given)
