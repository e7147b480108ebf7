"""When words are said: as the engine tells, else by their lengths."""

from __future__ import annotations

import pytest

from wsavatar.dialogue.base import Word
from wsavatar.dialogue.tts.words import Pace, WordClock, word_spans


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


def test_without_the_engines_times_words_come_as_far_as_the_sound_is_there() -> None:
    """At the voice's pace; the rest at the end, so that the last word ends with the sound."""
    pace = Pace()
    clock = WordClock("alpha bravo charlie delta echo", pace)
    early = [*clock.sounded(0.3), *clock.sounded(0.9)]
    assert [word.text for word in early] == ["alpha", "bravo"]
    late = list(clock.finish(4.0))
    assert [word.text for word in late] == ["charlie", "delta", "echo"]
    assert all(word.estimated for word in [*early, *late])
    starts = [word.start_s for word in [*early, *late]]
    assert starts == sorted(starts)
    assert late[-1].start_s + late[-1].duration_s == pytest.approx(4.0)
    assert pace.s_per_letter > Pace().s_per_letter  # it speaks more slowly than was assumed


def test_a_voice_that_is_known_is_met_better() -> None:
    """After some phrases at its pace, words come where they are in a voice of even speed."""
    pace = Pace()
    text = "alpha bravo charlie delta echo foxtrot golf hotel"
    seconds = 0.1 * (len(text) + 1)
    for _ in range(8):
        WordClock(text, pace).finish(seconds)
    given = WordClock(text, pace).sounded(seconds)
    errors = [abs(w.start_s - 0.1 * text.index(w.text)) for w in given]
    assert len(given) >= 7 and max(errors) < 0.1


@pytest.mark.parametrize("at", [-5, 3, 99])
def test_times_that_make_no_sense_do_no_harm(at: int) -> None:
    """Before the text, behind it, backwards: words stay in order, and each comes once."""
    clock = WordClock("One two three.")
    given = [*clock.told(at, 5.0), *clock.told(8, 0.2), *clock.told(0, -1.0), *clock.finish(1.0)]
    assert [word.text for word in given] == ["One", "two", "three."]
    starts = [word.start_s for word in given]
    assert starts == sorted(starts) and all(word.duration_s >= 0 for word in given)
