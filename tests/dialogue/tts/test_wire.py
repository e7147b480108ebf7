"""What a client sees of a voice: captions as they are written, and words where they are heard."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.dialogue.scripted_endpoint import Answer, pcm_tone, scripted_endpoint
from tests.helpers import Client, client, fake_engine, running
from wsavatar.config import AsrSettings, LlmSettings, Settings, TtsSettings
from wsavatar.dialogue import registry
from wsavatar.dialogue.engines import Engines

RATE = 24_000


async def said(text: str, tts: TtsSettings) -> Client:
    """A client that has heard a text to its end."""
    none = {"asr": AsrSettings(engine="none"), "llm": LlmSettings(engine="none")}
    engines = Engines(Settings(tts=tts, **none))
    engine = fake_engine(create_dialogue=partial(registry.create, engines), speech=engines)
    async with running(engine) as server, client(server, "?avatar=ada&mode=parrot") as line:
        await line.send("avatar.speak", text=text)
        done = await line.until("response.done")
        assert done["response"]["status"] == "completed"
        return line


def captions(line: Client) -> str:
    deltas = line.events("response.output_audio_transcript.delta")
    return "".join(one["delta"] for one in deltas)


async def test_captions_and_word_times_of_a_real_voice() -> None:
    """Markdown is not shown, numbers are as they were written; every word has its place in the
    audio, and there is sound at it."""
    text = "**Hello** [x](http://y), it costs $5.20 today.\n- Buy *two* now!"
    line = await said(text, TtsSettings(engines=("espeak",)))
    written = "Hello x, it costs $5.20 today.\n- Buy two now!"
    assert captions(line) == written
    done = line.events("response.output_audio_transcript.done")[0]
    assert done["transcript"] == written
    words = line.events("response.audio_timestamp.delta")
    assert [one["text"] for one in words] == [word for word in written.split() if word != "-"]
    assert [one["text"] for one in words if one["estimated"]] == []
    audio = np.frombuffer(line.audio(), "<i2").astype(np.float32) / 32768
    starts = [one["audio_offset_ms"] * RATE // 1000 for one in words]
    assert starts == sorted(starts) and starts[-1] < len(audio)
    for one, start in zip(words, starts, strict=True):
        sound = audio[start : start + one["audio_duration_ms"] * RATE // 1000]
        assert np.abs(sound).max() > 0.02, one["text"]
    assert "response.audio_timestamp.done" in line.kinds()


async def test_words_of_an_endpoint_are_estimated_and_marked() -> None:
    """It gives no times; the words are spread over each phrase's sound."""
    async with scripted_endpoint(speech=[Answer(pcm_tone(1.0))]) as endpoint:
        tts = TtsSettings(engines=("openai",), base_url=endpoint.url)
        line = await said("One two three four five six. Seven eight.", tts)
    words = line.events("response.audio_timestamp.delta")
    assert [one["text"] for one in words][:2] == ["One", "two"] and len(words) == 8
    assert all(one["estimated"] for one in words)
    assert words[6]["audio_offset_ms"] >= 1000  # in the second phrase, behind the pause


async def test_the_next_voice_speaks_where_one_is_down() -> None:
    """An endpoint that refuses everyone: the client hears the text all the same."""
    async with scripted_endpoint(speech=[Answer("no", status=503)]) as endpoint:
        tts = TtsSettings(engines=("openai", "espeak"), base_url=endpoint.url)
        line = await said("Hello there.", tts)
    assert len(line.audio()) > RATE and captions(line) == "Hello there."
