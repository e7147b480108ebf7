"""Texts that nobody said: what models write for noise, and where they lose their way."""

from __future__ import annotations

import re
import zlib

import numpy as np
from numpy.typing import NDArray

from wsavatar.dialogue.silero import BLOCK_SAMPLES, SileroStream

from .base import ASR_RATE

__all__ = ["said", "voice_ms"]

_LOOP_BYTES, _LOOP_RATIO = 60, 2.4
"""A text that is compressed by more than this says the same over and over. Speech does not."""
_SOUND = re.compile(r"\s*(\[[^\]]*\]|\([^)]*\))\s*")
"""A whole text in brackets: the name of a sound, as in subtitles."""
_HALLUCINATED = re.compile(
    r"\W*(thank(s| you)( so| very)?( much)?( for (watching|listening))?|you|bye( bye)?|okay|oh|so)?"
    r"\W*",
    re.IGNORECASE,
)
"""What Whisper and Moonshine write for noise, after the subtitles that they learned from."""
_OPEN_QUOTE = re.compile(r"[\"'“‘]+\s*(?!.*[\"'”’](\W|$))", re.DOTALL)
"""A quotation that begins a text and never ends: Moonshine writes such marks before long turns."""
_VOICE_MS = 250
"""Such words are believed with this much voice: "Thank you" has 600 ms, "you" 380, a cough none."""

Samples = NDArray[np.float32]


def said(text: str, samples: Samples) -> str:
    """What of a text is believed to be said in float32 mono at ASR_RATE."""
    text = re.sub("[♪♫]+", "", text).strip()
    if opened := _OPEN_QUOTE.match(text):
        text = text[opened.end() :]
    if _SOUND.fullmatch(text) or _is_loop(text):
        return ""
    if _HALLUCINATED.fullmatch(text) and voice_ms(samples) < _VOICE_MS:
        return ""
    return text


def voice_ms(samples: Samples) -> int:
    """How much voice there is in float32 mono at ASR_RATE, by Silero's network. Blocks: 10 ms for
    a second of audio."""
    stream = SileroStream()
    blocks = range(0, len(samples) - BLOCK_SAMPLES + 1, BLOCK_SAMPLES)
    voiced = sum(stream.probability(samples[at : at + BLOCK_SAMPLES]) > 0.5 for at in blocks)
    return voiced * BLOCK_SAMPLES * 1000 // ASR_RATE


def _is_loop(text: str) -> bool:
    raw = text.encode()
    return len(raw) > _LOOP_BYTES and len(raw) / len(zlib.compress(raw)) > _LOOP_RATIO
