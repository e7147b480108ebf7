"""Texts that models write although nobody said them."""

from __future__ import annotations

import numpy as np
import pytest

from wsavatar.dialogue.asr import ASR_RATE
from wsavatar.dialogue.asr.guard import said, voice_ms

NOISE = 0.1 * np.random.default_rng(0).standard_normal(2 * ASR_RATE).astype(np.float32)


@pytest.mark.parametrize(
    "text",
    [
        "you",
        "You",
        "Thank you.",
        "Thanks for watching!",
        "Thank you very much.",
        " .",
        "♪♪♪",
        "",
        "Oh",
    ]
    + ["[BLANK_AUDIO]", "(wind blowing)"],
)
def test_what_models_write_for_noise_is_not_believed(text: str) -> None:
    """Of audio that has no voice."""
    assert said(text, NOISE) == ""


@pytest.mark.parametrize("text", ["Thank you.", "Okay.", "Thank you for watching."])
def test_the_same_words_are_believed_of_a_voice(text: str, sentence: np.ndarray) -> None:
    """People do say thank you."""
    assert said(text, sentence) == text


@pytest.mark.parametrize("text", ["Yes.", "Thank you, Ada.", "Call (555) 123.", "Mm-hmm.", "你"])
def test_other_words_need_no_proof(text: str) -> None:
    """They are not what models make up."""
    assert said(f" {text} ", NOISE) == text


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("\"'I'd like to tell you a long story.", "I'd like to tell you a long story."),
        ('"Hello," she said.', '"Hello," she said.'),
        ("'Hello.'", "'Hello.'"),
    ],
)
def test_a_quotation_that_never_ends_is_no_quotation(text: str, kept: str) -> None:
    """Its marks are left out; those of a quotation stay."""
    assert said(text, NOISE) == kept


def test_a_model_that_repeats_itself_is_not_believed() -> None:
    """A loop is dropped; words that people repeat are kept."""
    assert said("and so on " * 20, NOISE) == ""
    assert said("no no no no, not again and again and again", NOISE) != ""


def test_voice_is_measured(sentence: np.ndarray) -> None:
    """Of speech most of the time, of noise nothing, of less than a block nothing."""
    assert 1500 < voice_ms(sentence) <= 3000
    assert voice_ms(NOISE) == 0 and voice_ms(NOISE[:100]) == 0
