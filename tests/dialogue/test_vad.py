"""Voice activity: speech is found, noise is not, and cutting the stream changes nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from safetensors.torch import load_file

from wsavatar.dialogue.silero import BLOCK_SAMPLES, SileroStream, weights_path
from wsavatar.dialogue.turns import TurnAudio, TurnBegan, TurnEnded, Turns
from wsavatar.dialogue.vad import SpeechStarted, SpeechStopped, VadEvent, VoiceActivity
from wsavatar.media.audio import resample

RATE = 16_000


@pytest.fixture(scope="module")
def speech(samples_dir: Path) -> np.ndarray:
    """60 s of English speech with its pauses."""
    audio, rate = sf.read(samples_dir / "eng.wav", dtype="float32")
    assert rate == RATE
    return audio


def heard(audio: np.ndarray, cuts: list[int] | None = None, **options: int) -> list[VadEvent]:
    vad = VoiceActivity(**options)  # type: ignore[arg-type]
    return [event for part in np.split(audio, cuts or []) for event in vad.push(part)]


def silence(seconds: float) -> np.ndarray:
    return np.zeros(int(seconds * RATE), np.float32)


def noises() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    time = np.arange(6 * RATE) / RATE
    white = random.standard_normal(len(time))
    clicks = np.zeros(len(time))
    clicks[:: RATE // 3] = 0.9
    sounds = {
        "silence": np.zeros(len(time)),
        "faint white noise": white * 0.01,
        "loud white noise": white * 0.3,
        "brown noise": np.cumsum(white) * 0.003,
        "a constant": np.full(len(time), 0.4),
        "a tone": 0.5 * np.sin(2 * np.pi * 440 * time),
        "mains hum": 0.3 * np.sign(np.sin(2 * np.pi * 50 * time)),
        "clicks": clicks,
        "a rising tone": 0.5 * np.sin(2 * np.pi * (100 * time + 150 * time**2)),
    }
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


@pytest.mark.parametrize("name", noises())
def test_what_is_no_voice_is_not_heard(name: str) -> None:
    """Silence, noise, hum, tones and clicks begin no turn."""
    assert heard(noises()[name]) == []


def test_speech_is_found_where_it_is(speech: np.ndarray) -> None:
    """Put into silence, a sentence is found to a tenth of a second, padding before it."""
    talk = speech[int(np.argmax(np.abs(speech) > 0.05)) :][: 3 * RATE]
    events = heard(np.concatenate([silence(2), talk, silence(2)]), prefix_padding_ms=300)
    assert isinstance(events[0], SpeechStarted) and isinstance(events[-1], SpeechStopped)
    assert 1550 <= events[0].audio_start_ms <= 1800
    assert events[-1].voice_end_ms <= 5250
    assert events[-1].audio_end_ms - events[-1].voice_end_ms == pytest.approx(500, abs=32)


def test_speech_is_found_in_noise(speech: np.ndarray) -> None:
    """At 10 dB over white noise the same turn is found."""
    talk = speech[4 * RATE : 8 * RATE]
    level = np.sqrt(np.mean(talk**2)) * 10 ** (-10 / 20)
    audio = np.concatenate([silence(2), talk, silence(2)])
    noise = np.random.default_rng(1).standard_normal(len(audio)).astype(np.float32) * level
    events = heard(audio + noise)
    assert isinstance(events[0], SpeechStarted) and isinstance(events[-1], SpeechStopped)
    assert 1500 <= events[0].audio_start_ms <= 2000


@pytest.mark.parametrize("seed", range(3))
def test_cutting_the_stream_changes_nothing(speech: np.ndarray, seed: int) -> None:
    """Chunks of one sample or of a second: the same events, to the millisecond."""
    audio = speech[2 * RATE : 8 * RATE]
    cuts = sorted(np.random.default_rng(seed).integers(0, len(audio), 200).tolist())
    assert heard(audio, cuts, silence_ms=200) == heard(audio, silence_ms=200) != []


def test_events_alternate_and_never_overlap(speech: np.ndarray) -> None:
    """Started, stopped, started, …; padding does not reach back into the turn before."""
    events = heard(speech, silence_ms=100, prefix_padding_ms=2000)
    assert len(events) >= 4
    ends = 0
    for index, event in enumerate(events):
        if index % 2 == 0:
            assert isinstance(event, SpeechStarted) and event.audio_start_ms >= ends
        else:
            assert isinstance(event, SpeechStopped)
            ends = event.audio_end_ms


def test_a_longer_silence_makes_fewer_turns(speech: np.ndarray) -> None:
    """`silence_ms` decides which pause ends a turn."""
    assert len(heard(speech, silence_ms=100)) > len(heard(speech, silence_ms=1000))


def test_hysteresis_and_onset() -> None:
    """One loud block begins nothing; dips to just below the threshold end nothing."""
    levels = iter([0.9, 0.1] + [0.9, 0.9] + [0.4] * 30 + [0.1] * 4)
    vad = VoiceActivity(0.5, 0, 100, probability=lambda block: next(levels))
    events = vad.push(np.zeros(38 * BLOCK_SAMPLES, np.float32))
    assert events == [SpeechStarted(64), SpeechStopped(audio_end_ms=38 * 32, voice_end_ms=34 * 32)]


# What the network made of Chromium's microphone as it opened in a quiet room, block by block.
OPENING = [0.02, 0.58, 0.52, 0.41, 0.27, 0.21, 0.19, 0.15, 0.15, 0.13]


def test_a_microphone_that_opens_begins_no_turn(speech: np.ndarray) -> None:
    """From nothing to the room's noise at once: that is no voice, however it is cut."""
    levels = iter(OPENING + [0.1] * 90)
    vad = VoiceActivity(probability=lambda block: next(levels))
    assert vad.push(np.zeros(100 * BLOCK_SAMPLES, np.float32)) == []
    room = 5.5 * speech[36463:][:RATE]  # one that did pass for a voice
    for lead in range(0, BLOCK_SAMPLES, 16):
        assert heard(np.concatenate([np.zeros(lead, np.float32), room])[: RATE // 3]) == []


def test_who_speaks_at_once_is_heard_from_the_first_sample(speech: np.ndarray) -> None:
    """A stream that begins with speech is one whole turn, also without padding."""
    talk = speech[int(np.argmax(np.abs(speech) > 0.05)) :][: 2 * RATE]
    turns = Turns(VoiceActivity(prefix_padding_ms=0), RATE)
    events = [event for part in np.split(talk, 20) for event in turns.push(part)]
    start = events[0]
    assert isinstance(start, TurnBegan) and start.audio_start_ms <= 64
    said = np.concatenate([event.samples for event in events if isinstance(event, TurnAudio)])
    np.testing.assert_array_equal(said, talk[start.audio_start_ms * RATE // 1000 :])


@pytest.mark.parametrize("rate", [8_000, 24_000, 48_000])
def test_a_turn_is_what_came_in_at_any_rate(speech: np.ndarray, rate: int) -> None:
    """Voice is found at 16 kHz, but a turn's audio is the stream's own, without a gap."""
    start = int(np.argmax(np.abs(speech) > 0.05))
    talk = np.concatenate([speech[start : start + 3 * RATE], np.zeros(RATE, np.float32)])
    stream = resample(np.concatenate([np.zeros(RATE, np.float32), talk]), RATE, rate)
    turns = Turns(VoiceActivity(), rate, start_ms=5000)
    events = [event for part in np.array_split(stream, 41) for event in turns.push(part)]
    assert isinstance(events[0], TurnBegan) and isinstance(events[-1], TurnEnded)
    first = (events[0].audio_start_ms - 5000) * rate // 1000
    last = (events[-1].audio_end_ms - 5000) * rate // 1000
    said = np.concatenate([event.samples for event in events if isinstance(event, TurnAudio)])
    np.testing.assert_array_equal(said, stream[first : first + len(said)])
    assert abs(first + len(said) - last) <= rate // 1000
    assert 0.5 < first / rate < 1.2 and last / rate > 4


def test_a_turn_goes_on_through_a_change_of_rate(speech: np.ndarray) -> None:
    """The format may change in the middle of a turn: one turn, on one timeline."""
    start = int(np.argmax(np.abs(speech) > 0.05))
    talk = np.concatenate([speech[start : start + 2 * RATE], np.zeros(RATE, np.float32)])
    turns = Turns(VoiceActivity(), RATE)
    events = list(turns.push(talk[:RATE]))
    turns.change_rate(48_000)
    events += turns.push(resample(talk[RATE:], RATE, 48_000))
    kinds = [type(event) for event in events if not isinstance(event, TurnAudio)]
    assert kinds == [TurnBegan, TurnEnded]
    ended = events[-1]
    assert isinstance(ended, TurnEnded) and 2000 < ended.audio_end_ms < 3000


def test_a_turn_that_ends_as_the_rate_changes_is_not_lost() -> None:
    """What the detector finds in the resampler's last samples is told with the next audio."""
    for cut in range(0, BLOCK_SAMPLES, 16):
        levels = iter([0.0] * 10 + [0.9] * 10 + [0.0] * 60)
        vad = VoiceActivity(silence_ms=320, probability=lambda block, levels=levels: next(levels))
        turns = Turns(vad, 24_000)
        events = turns.push(np.zeros((29 * BLOCK_SAMPLES + cut) * 3 // 2, np.float32))
        turns.change_rate(48_000)
        events += turns.push(np.zeros(12 * BLOCK_SAMPLES, np.float32))
        assert [type(one) for one in events].count(TurnEnded) == 1


@pytest.mark.parametrize("voiced", [10, 20])
def test_a_clear_after_a_change_of_rate_keeps_begin_and_end_in_pairs(voiced: int) -> None:
    """Whatever was found as the rate changed: each turn that began has one end."""
    for cut in range(0, BLOCK_SAMPLES, 32):
        for blocks in (11, 12, 29, 30):
            levels = iter([0.0] * 10 + [0.9] * voiced + [0.0] * 60)
            probability = lambda block, levels=levels: next(levels)  # noqa: E731
            vad = VoiceActivity(silence_ms=320, probability=probability)
            turns = Turns(vad, 24_000)
            events = turns.push(np.zeros((blocks * BLOCK_SAMPLES + cut) * 3 // 2, np.float32))
            turns.change_rate(48_000)
            events += turns.clear()
            kinds = [type(one) for one in events if not isinstance(one, TurnAudio)]
            assert kinds in ([], [TurnBegan, TurnEnded])


def test_a_clear_ends_the_turn_and_forgets_it(speech: np.ndarray) -> None:
    """What came before a clear is in no turn; whoever speaks on begins a new one."""
    start = int(np.argmax(np.abs(speech) > 0.05))
    talk = speech[start : start + 3 * RATE]
    turns = Turns(VoiceActivity(), RATE)
    turns.push(talk[: 2 * RATE])
    assert turns.clear() == [TurnEnded(2000)]
    events = turns.push(talk[2 * RATE :])
    assert isinstance(events[0], TurnBegan) and events[0].audio_start_ms >= 2000
    assert turns.clear() != [] and turns.clear() == []


def test_while_the_avatar_speaks_a_turn_needs_more_voice() -> None:
    """Six blocks of voice (192 ms) begin no turn that must last 200 ms; seven do."""
    for voiced, begins in ((1, False), (6, False), (7, True)):
        levels = iter([0.0] * 10 + [0.9] * voiced + [0.0] * 40)
        vad = VoiceActivity(probability=lambda block, levels=levels: next(levels))
        events = vad.push(np.zeros((50) * BLOCK_SAMPLES, np.float32), min_voice_ms=200)
        assert bool(events) == begins


def test_the_network_is_the_one_its_weights_were_made_for(speech: np.ndarray) -> None:
    """torch's own layers with the same weights give the same probabilities."""
    weights = load_file(weights_path())
    lstm = torch.nn.LSTMCell(128, 128)
    lstm.load_state_dict(
        {k.removeprefix("lstm_cell."): v for k, v in weights.items() if k.startswith("lstm_cell")}
    )
    functional, state, stream = torch.nn.functional, None, SileroStream()
    padded = torch.from_numpy(np.concatenate([np.zeros(64, np.float32), speech]))
    with torch.no_grad():
        for start in range(0, 60 * BLOCK_SAMPLES, BLOCK_SAMPLES):
            x = functional.pad(padded[None, None, start : start + 576], (0, 64), mode="reflect")
            x = functional.conv1d(x, weights["stft_conv.weight"], stride=128)
            x = (x[:, :129] ** 2 + x[:, 129:] ** 2).sqrt()
            for layer, stride in ((1, 1), (2, 2), (3, 2), (4, 1)):
                w, b = weights[f"conv{layer}.weight"], weights[f"conv{layer}.bias"]
                x = functional.conv1d(x, w, b, stride=stride, padding=1).relu()
            state = lstm(x[:, :, 0], state)
            x = functional.conv1d(
                state[0].relu()[..., None], weights["final_conv.weight"], weights["final_conv.bias"]
            )
            ours = stream.probability(speech[start : start + BLOCK_SAMPLES])
            assert ours == pytest.approx(float(x.sigmoid()), abs=1e-4)


@pytest.mark.parametrize("hz", [100, 250, 300, 440])
@pytest.mark.parametrize("level_db", [-20, -6])
def test_a_hum_that_begins_does_not_interrupt(hz: int, level_db: int) -> None:
    """The network takes some blocks of it for a voice, but is sure of none."""
    hum = 10 ** (level_db / 20) * np.sin(2 * np.pi * hz * np.arange(2 * RATE) / RATE)
    audio = np.concatenate([silence(1), hum.astype(np.float32)])
    assert VoiceActivity().push(audio, min_voice_ms=96) == []


def test_a_voice_that_is_not_sure_interrupts_later() -> None:
    """Seven blocks do, where three of a sure voice do."""
    for level, blocks in ((0.9, 3), (0.6, 7)):
        for voiced in (blocks - 1, blocks):
            levels = iter([0.0] * 10 + [level] * voiced + [0.0] * 10)
            vad = VoiceActivity(probability=lambda block, levels=levels: next(levels))
            events = vad.push(np.zeros(20 * BLOCK_SAMPLES, np.float32), min_voice_ms=96)
            assert bool(events) == (voiced == blocks)


@pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
def test_speech_interrupts_within_a_tenth_and_a_half(speech: np.ndarray, rate: int) -> None:
    """In packets of 20 ms, at any rate: 160 ms after the first loud 10 ms of each of ten phrases,
    and after 130 ms in the mean."""
    late_ms = []
    for phrase in phrases_of(speech)[:10]:
        stream = resample(np.concatenate([silence(1), phrase]), RATE, rate)
        turns = Turns(VoiceActivity(), rate)
        step = rate // 50
        for start in range(0, len(stream), step):
            if turns.push(stream[start : start + step], min_voice_ms=96):
                late_ms.append(1000 * (start + step) / rate - 1000)
                break
    assert len(late_ms) == 10
    assert max(late_ms) <= 160 and np.mean(late_ms) <= 130


def phrases_of(speech: np.ndarray) -> list[np.ndarray]:
    """Speech from its first loud 10 ms after each pause of 250 ms, a second and a half of it."""
    blocks = speech[: len(speech) // 160 * 160].reshape(-1, 160)
    levels = np.sqrt(np.mean(blocks**2, axis=1))
    loud = np.flatnonzero(levels > np.percentile(levels, 90) * 10 ** (-25 / 20))
    begins = loud[np.flatnonzero(np.diff(loud, prepend=-100) > 25)]
    return [speech[160 * at :][: 3 * RATE // 2] for at in begins]
