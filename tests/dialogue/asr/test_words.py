"""Which words of successive readings are final."""

from __future__ import annotations

import pytest

from wsavatar.dialogue.asr.words import Agreement, continuation


def deltas(*readings: str) -> list[str]:
    agreement, sent = Agreement(), [""]
    for reading in readings:
        sent.append(agreement.add(reading))
    return [now[len(before) :] for before, now in zip(sent, sent[1:], strict=False)]


def test_words_that_two_readings_agree_on_are_stable() -> None:
    """From the beginning on, up to the first that differs."""
    assert deltas(
        "it was", "it was the vest", "it was the best of", "it was the best of times"
    ) == [
        "",
        "it was",
        " the",
        " best of",
    ]


def test_marks_and_case_are_those_of_the_reading_that_went_on() -> None:
    """The full stop that ends every partial reading is not sent before the next word."""
    assert deltas("It was.", "It was the best.", "It was the best, of times.") == [
        "",
        "It was",
        " the best",
    ]
    assert deltas("a b.", "A b, c.", "A b, c d")[1:] == ["A b", ", c"]


def test_stable_words_are_not_taken_back() -> None:
    """A reading that contradicts them changes nothing, until others agree on more."""
    assert deltas("a b", "a b c", "x", "a b c", "a b c d") == ["", "a b", "", "", " c"]


def test_scripts_without_blanks_are_cut_between_characters() -> None:
    """Each ideograph is a word."""
    assert deltas("你好吗", "你好啊", "你好啊朋友")[1:] == ["你好", "啊"]


def test_an_empty_reading_agrees_on_nothing() -> None:
    """And marks alone are no words."""
    assert deltas("", "...", "hello", "", "hello") == ["", "", "", "", ""]


@pytest.mark.parametrize(
    ("sent", "text", "rest"),
    [
        ("", "Hello.", "Hello."),
        ("Hello", "Hello, world.", ", world."),
        ("hello", "Hello, world.", ", world."),
        ("Hello, world", "Hello world.", "."),
        ("Hello.", "Hello.", ""),
        ("Hello.", "Hello. Bye", " Bye"),
        ("Hello there", "Hello", ""),
        ("Goodbye", "Hello", ""),
        ("你好", "你好。", "。"),
        ("a", "", ""),
    ],
)
def test_the_rest_of_a_text_follows_the_words_that_were_sent(
    sent: str, text: str, rest: str
) -> None:
    """Whatever their case and marks; nothing, where the words are others."""
    assert continuation(sent, text) == rest
