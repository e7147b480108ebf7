"""Audio files in: every usual kind, odd headers, many channels, clear errors."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from wsavatar.media import audio_file
from wsavatar.media.audio_file import AudioFileError, read_audio
from wsavatar.media.video_kinds import SoundFormat
from wsavatar.media.video_writer import VideoWriter

RATE = 16_000


def tone(seconds: float, rate: int = RATE, channels: int = 1) -> np.ndarray:
    wave = 0.3 * np.sin(2 * np.pi * 220 * np.arange(round(seconds * rate)) / rate)
    return np.repeat(wave.astype(np.float32)[:, None], channels, axis=1)


def wav(data: bytes, claimed: int, channels: int = 1, bits: int = 16) -> bytes:
    """A WAV file at 16 kHz whose header says that its data are ``claimed`` bytes long."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, RATE, RATE * block, block, bits)
    riff = min(claimed + 36, 0xFFFFFFFF)
    head = b"RIFF" + struct.pack("<I", riff) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", claimed) + data


# -- every usual file -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.w64", "a.caf"])
def test_every_usual_audio_file_is_read(tmp_path: Path, name: str) -> None:
    """Rate, channels and length are the file's own."""
    soundfile.write(tmp_path / name, tone(0.5, 22_050, 2), 22_050)
    track = read_audio(tmp_path / name)
    assert (track.sample_rate, track.samples.shape[1]) == (22_050, 2)
    assert abs(len(track.samples) - 11_025) < 2500  # mp3 pads to its own frames
    assert 0.1 < np.abs(track.samples).max() <= 1


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_samples_are_those_of_the_file(tmp_path: Path, subtype: str) -> None:
    """Every sample, to the precision of the file."""
    soundfile.write(tmp_path / "a.wav", tone(0.2), RATE, subtype=subtype)
    step = {"PCM_U8": 1 / 128, "PCM_16": 1 / 32768}.get(subtype, 1e-6)
    made = read_audio(tmp_path / "a.wav").samples
    np.testing.assert_allclose(made, tone(0.2), atol=step)


def test_the_sound_of_a_video_is_read(tmp_path: Path) -> None:
    """m4a, mp4, webm."""
    path = tmp_path / "talk.mp4"
    samples = tone(0.4, 24_000)
    sound = SoundFormat(24_000, samples.shape[1])
    with VideoWriter(path, width=32, height=32, fps=Fraction(25), sound=sound) as video:
        for piece in np.split(samples, 10):
            video.write(np.zeros((32, 32, 3), np.uint8), piece)
    made = read_audio(path)
    assert made.sample_rate == 24_000
    assert np.abs(made.samples[2000:8000] - samples[2000:8000]).max() < 0.02


# -- many channels --------------------------------------------------------------------------------


def surround(channel: int, channels: int) -> np.ndarray:
    """Sound in one of the channels."""
    samples = np.zeros((1600, channels), np.float32)
    samples[:, channel] = tone(0.1)[:, 0]
    return samples


@pytest.mark.parametrize(
    ("channel", "left_db", "right_db"),
    [(0, 0, None), (1, None, 0), (2, -3, -3), (3, None, None), (4, -3, None), (5, None, -3)],
)
@pytest.mark.parametrize("name", ["says.flac", "says_not.wav"])
def test_surround_sound_is_mixed_by_the_standard(
    tmp_path: Path, name: str, channel: int, left_db: float | None, right_db: float | None
) -> None:
    """ITU-R BS.775: front as it is, centre and surrounds at -3 dB, no low-frequency effects.

    So too where the file does not say which of its six channels is which.
    """
    soundfile.write(tmp_path / name, surround(channel, 6), RATE)
    made = read_audio(tmp_path / name).samples
    assert made.shape == (1600, 2)
    for side, db in enumerate((left_db, right_db)):
        gain = 0.0 if db is None else 10 ** (db / 20)
        np.testing.assert_allclose(made[:, side], gain * tone(0.1)[:, 0], atol=2e-3)


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 7, 8, 9, 16, 32])
def test_any_number_of_channels_is_read(tmp_path: Path, channels: int) -> None:
    """No channel's sound is lost but the low-frequency effects', and none is cut off at 1."""
    quiet = []
    for channel in range(channels):
        soundfile.write(tmp_path / "a.wav", surround(channel, channels), RATE)
        made = read_audio(tmp_path / "a.wav").samples
        assert made.shape == (1600, 2)
        quiet.append(np.abs(made).max() < 0.15 * 0.3)
    assert sum(quiet) == (1 if channels in (6, 7, 8) else 0)
    soundfile.write(tmp_path / "a.wav", np.full((1600, channels), 0.9), RATE)
    assert 0.9 < np.abs(read_audio(tmp_path / "a.wav").samples).max() <= 1


# -- odd headers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("claimed", [0, 0xFFFFFFFF, 0x7FFFFFFF - 36, 999_999])
def test_a_wav_file_without_its_length_is_read_to_its_end(tmp_path: Path, claimed: int) -> None:
    """Programs that write WAV into a pipe cannot know it, and write 0 or the greatest number."""
    pcm = (tone(0.5) * 32767).astype("<i2")
    (tmp_path / "a.wav").write_bytes(wav(pcm.tobytes(), claimed))
    made = read_audio(tmp_path / "a.wav").samples
    assert np.array_equal(np.round(made * 32768).astype(int), pcm)


def test_half_a_sample_at_the_end_is_left_out(tmp_path: Path) -> None:
    """A recording that was cut anywhere is read up to its last whole sample."""
    pcm = (tone(0.5, channels=2) * 32767).astype("<i2").tobytes()
    (tmp_path / "a.wav").write_bytes(wav(pcm[:-3], len(pcm), channels=2))
    assert len(read_audio(tmp_path / "a.wav").samples) == len(tone(0.5)) - 1


def test_a_title_in_another_encoding_is_no_obstacle(tmp_path: Path) -> None:
    """Latin-1 in a WAV file's list of titles."""
    title = b"INAM" + struct.pack("<I", 6) + "café!\0".encode("latin-1")
    pcm = (tone(0.1) * 32767).astype("<i2").tobytes()
    whole = wav(pcm, len(pcm)) + b"LIST" + struct.pack("<I", 4 + len(title)) + b"INFO" + title
    (tmp_path / "a.wav").write_bytes(whole)
    assert len(read_audio(tmp_path / "a.wav").samples) == 1600


# -- errors ---------------------------------------------------------------------------------------


def test_bad_audio_says_what_is_wrong(tmp_path: Path) -> None:
    """No such file, not audio, no samples, not finite: each by its own name."""
    (tmp_path / "text.wav").write_text("this is not audio " * 50)
    (tmp_path / "nothing.wav").write_bytes(b"")
    soundfile.write(tmp_path / "silent.wav", np.zeros(0), RATE)
    broken = np.zeros(100)
    broken[40] = np.nan
    soundfile.write(tmp_path / "nan.wav", broken, RATE, subtype="FLOAT")
    with VideoWriter(tmp_path / "mute.mp4", width=32, height=32, fps=Fraction(25)) as video:
        video.write(np.zeros((32, 32, 3), np.uint8))
    for name, says in [
        ("missing.wav", "no such file"),
        ("text.wav", "cannot be read as audio"),
        ("nothing.wav", "cannot be read as audio"),
        ("silent.wav", "0 samples"),
        ("nan.wav", r"sample 40 \(at 0.003 s\) is nan"),
        ("mute.mp4", "no audio stream"),
    ]:
        with pytest.raises(AudioFileError, match=f"{name}.*({says})"):
            read_audio(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mp3", "a.flac"])
def test_what_can_be_decoded_of_a_damaged_file_is_read(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A file cut short is read up to there; of one with a hole, both sides; the log says so."""
    soundfile.write(tmp_path / name, tone(2.0, 44_100), 44_100)
    data = (tmp_path / name).read_bytes()
    half = len(data) // 2
    (tmp_path / name).write_bytes(data[:half])
    assert 0.8 < len(read_audio(tmp_path / name).samples) / 44_100 < 1.1
    junk = np.random.default_rng(0).bytes(3000)
    (tmp_path / name).write_bytes(data[:half] + junk + data[half:])
    assert len(read_audio(tmp_path / name).samples) / 44_100 > 1.5
    assert f"{name}: " in caplog.text and "damaged" in caplog.text


def test_the_longest_sound_is_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a header claims, what is decoded is counted."""
    monkeypatch.setattr(audio_file, "MAX_AUDIO_S", 1)
    soundfile.write(tmp_path / "long.flac", tone(2.1), RATE)
    with pytest.raises(AudioFileError, match=r"long\.flac: is over"):
        read_audio(tmp_path / "long.flac")


def ac3(*parts: tuple[str, int, int]) -> bytes:
    """Streams of (layout, channels, sample rate), half a second each, one after the other."""
    data = b""
    for layout, channels, rate in parts:
        encoder = av.CodecContext.create("ac3", "w")
        encoder.sample_rate, encoder.layout, encoder.format = rate, layout, "fltp"
        samples = tone(0.5, rate, channels).T
        frames = [
            av.AudioFrame.from_ndarray(np.ascontiguousarray(block), "fltp", layout)
            for block in np.split(samples, range(1536, samples.shape[1], 1536), axis=1)
        ]
        for frame in frames:
            frame.sample_rate = rate
        packets = [packet for frame in [*frames, None] for packet in encoder.encode(frame)]
        data += b"".join(map(bytes, packets))
    return data


def test_a_sample_rate_that_changes_is_named(tmp_path: Path) -> None:
    """At another rate the rest would be too high or too low, so it is refused."""
    (tmp_path / "two.ac3").write_bytes(ac3(("mono", 1, 48_000), ("mono", 1, 44_100)))
    with pytest.raises(AudioFileError, match=r"two\.ac3: .* from 48000 to 44100 Hz after 0\.5"):
        read_audio(tmp_path / "two.ac3")


def test_a_layout_that_changes_is_mixed(tmp_path: Path) -> None:
    """Mono, then 5.1, in one stream, as broadcasts have it: all of it is heard, as stereo."""
    (tmp_path / "two.ac3").write_bytes(ac3(("mono", 1, 48_000), ("5.1(side)", 6, 48_000)))
    made = read_audio(tmp_path / "two.ac3").samples
    assert made.shape[1] == 2 and 0.95 < len(made) / 48_000 < 1.1
    assert np.abs(made[12_000:]).min(axis=1).max() > 0.2  # in both halves
