"""Which modes there are."""

from __future__ import annotations

import pytest

from tests.dialogue.fakes import FakeSession, config, until_over
from wsavatar.config import Settings, TtsSettings
from wsavatar.dialogue import registry
from wsavatar.dialogue.base import SPEECH_RATE
from wsavatar.dialogue.engines import Engines
from wsavatar.dialogue.mirror import Mirror
from wsavatar.dialogue.parrot import Parrot

ESPEAK = Engines(Settings(tts=TtsSettings(engines=("espeak",))))


@pytest.mark.parametrize(("mode", "kind"), [("mirror", Mirror), ("parrot", Parrot)])
async def test_the_modes_there_are(session: FakeSession, mode: str, kind: type) -> None:
    """`mirror` and `parrot`, each ready to speak with the offline voice."""
    dialogue = registry.create(ESPEAK, mode, session, config())
    assert isinstance(dialogue, kind)
    await dialogue.speak("Hello.")
    response = await until_over(session)
    assert response.status == "completed" and len(response.said) > SPEECH_RATE // 4
    await dialogue.close()


@pytest.mark.parametrize("mode", ["karaoke", ""])
def test_a_mode_that_is_not_there_is_a_clear_error(session: FakeSession, mode: str) -> None:
    """The error names the modes that work now."""
    with pytest.raises(registry.DialogueError, match="chat, mirror, parrot, upstream") as caught:
        registry.create(ESPEAK, mode, session, config())
    assert caught.value.code == "unsupported_mode"
