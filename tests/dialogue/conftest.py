"""What the tests of the modes share: a fake session and voice, and real speech."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from tests.dialogue.fakes import HEARD_RATE, FakeSession, FakeVoice


@pytest.fixture
def session() -> FakeSession:
    return FakeSession()


@pytest.fixture
def voice() -> FakeVoice:
    return FakeVoice()


@pytest.fixture(scope="module")
def speech(samples_dir: Path) -> np.ndarray:
    """60 s of English, 16 kHz."""
    audio, rate = sf.read(samples_dir / "eng.wav", dtype="float32")
    assert rate == HEARD_RATE
    return audio


@pytest.fixture(scope="module")
def sentence(speech: np.ndarray) -> np.ndarray:
    """3 s of speech without a long pause, from its first to its last loud sample."""
    return speech[4 * HEARD_RATE : 7 * HEARD_RATE]
