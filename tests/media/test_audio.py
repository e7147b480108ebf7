"""What a session may rely on about samples: nothing is lost, nothing is added, no seams."""

from __future__ import annotations

import numpy as np
import pytest

from wsavatar.media.audio import AudioError, InputBuffer, Resampler, decode, encode, resample


def tone(rate: int, seconds: float = 1.0, hz: float = 440.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate).astype(np.float32) * 0.5


# -- encodings ------------------------------------------------------------------------------------


def test_pcm16_goes_there_and_back() -> None:
    """Every one of the 65536 values survives, bit for bit."""
    every = np.arange(-32768, 32768, dtype="<i2").tobytes()
    assert encode(decode(every, "audio/pcm"), "audio/pcm") == every


def test_loud_samples_are_clipped_not_wrapped() -> None:
    """Beyond full scale is full scale."""
    pcm = np.frombuffer(encode(np.array([2.0, -2.0, 1.0], np.float32), "audio/pcm"), "<i2")
    assert pcm.tolist() == [32767, -32768, 32767]


@pytest.mark.parametrize("count", [1, 3, 4801])
def test_half_a_sample_is_an_error(count: int) -> None:
    """An odd number of PCM16 bytes is refused, with a code for programs."""
    with pytest.raises(AudioError) as caught:
        decode(bytes(count), "audio/pcm")
    assert caught.value.code == "odd_byte_count" and str(count) in str(caught.value)


def test_g711_takes_any_number_of_bytes() -> None:
    """A byte is a sample there."""
    assert len(decode(bytes(7), "audio/pcmu")) == 7


@pytest.mark.parametrize(
    ("encoding", "code", "value"),
    [
        # ITU-T G.711, tables 1a/2a, in the 16-bit scaling that every codec uses.
        ("audio/pcmu", 0x00, -32124),
        ("audio/pcmu", 0x80, 32124),
        ("audio/pcmu", 0x7F, 0),
        ("audio/pcmu", 0xFF, 0),
        ("audio/pcmu", 0x70, -120),
        ("audio/pcmu", 0xCE, 988),
        ("audio/pcma", 0x2A, -32256),
        ("audio/pcma", 0xAA, 32256),
        ("audio/pcma", 0x55, -8),
        ("audio/pcma", 0xD5, 8),
        ("audio/pcma", 0x80, 5504),
    ],
)
def test_g711_codes_follow_the_standard(encoding: str, code: int, value: int) -> None:
    """Known codes of both laws have their known values."""
    assert round(float(decode(bytes([code]), encoding)[0]) * 32768) == value  # type: ignore[arg-type]


@pytest.mark.parametrize("encoding", ["audio/pcmu", "audio/pcma"])
def test_g711_codes_survive_decoding_and_encoding(encoding: str) -> None:
    """All 256 codes come back, but u-law's negative zero, which is zero."""
    every = bytes(range(256))
    back = encode(decode(every, encoding), encoding)  # type: ignore[arg-type]
    changed = {code for code in range(256) if back[code] != code}
    assert changed == ({0x7F} if encoding == "audio/pcmu" else set())


@pytest.mark.parametrize("encoding", ["audio/pcmu", "audio/pcma"])
def test_g711_is_within_half_a_step(encoding: str) -> None:
    """Both laws keep every int16 short of clipping within 1/32 of itself, or 8 near zero."""
    pcm = np.arange(-32_000, 32_001)
    samples = (pcm / 32768).astype(np.float32)
    heard = decode(encode(samples, encoding), encoding) * 32768  # type: ignore[arg-type]
    assert (np.abs(heard - pcm) <= np.maximum((np.abs(pcm) + 132) / 32, 8)).all()


# -- resampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [(24_000, 16_000), (48_000, 24_000), (8_000, 16_000)])
@pytest.mark.parametrize("seed", range(3))
def test_resampling_has_no_seams(rates: tuple[int, int], seed: int) -> None:
    """However a stream is cut, down to single samples, the result is the whole's."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal(rates[0]).astype(np.float32) * 0.1
    cuts = np.sort(random.integers(0, len(noise), 60))
    stream = Resampler(*rates)
    parts = [stream.push(part) for part in np.split(noise, cuts)] + [stream.flush()]
    np.testing.assert_allclose(np.concatenate(parts), resample(noise, *rates), atol=1e-6)


@pytest.mark.parametrize("rates", [(24_000, 16_000), (16_000, 24_000), (22_050, 24_000)])
def test_resampling_keeps_time_and_pitch(rates: tuple[int, int]) -> None:
    """A second stays a second, and a tone the same tone, in phase."""
    out = resample(tone(rates[0]), *rates)
    assert abs(len(out) - rates[1]) <= 1
    inner = slice(rates[1] // 10, rates[1] * 9 // 10)
    np.testing.assert_allclose(out[inner], tone(rates[1])[inner], atol=2e-3)


def test_a_resampler_can_be_used_again() -> None:
    """After `flush`, or `reset`, nothing of the old stream is heard in the new."""
    stream = Resampler(24_000, 16_000)
    first = np.concatenate([stream.push(tone(24_000)), stream.flush()])
    stream.push(np.ones(1000, np.float32))
    stream.reset()
    second = np.concatenate([stream.push(tone(24_000)), stream.flush()])
    np.testing.assert_array_equal(first, second)


def test_equal_rates_change_nothing() -> None:
    """No filter, no delay."""
    samples = tone(16_000)
    assert resample(samples, 16_000, 16_000) is not None
    np.testing.assert_array_equal(resample(samples, 16_000, 16_000), samples)


# -- the input buffer -----------------------------------------------------------------------------


def test_the_buffer_gives_back_what_it_was_given() -> None:
    """In order, and once."""
    buffer = InputBuffer(16_000, 1.0)
    buffer.append(np.arange(3, dtype=np.float32))
    buffer.append(np.arange(3, 5, dtype=np.float32))
    assert buffer.take().tolist() == [0, 1, 2, 3, 4]
    assert (len(buffer), buffer.take().tolist()) == (0, [])


def test_a_full_buffer_refuses_and_keeps_what_it_has() -> None:
    """Nothing is dropped in silence: the append fails as a whole, the audio before it stays."""
    buffer = InputBuffer(1_000, 1.0)
    buffer.append(np.ones(900, np.float32))
    with pytest.raises(AudioError) as caught:
        buffer.append(np.ones(101, np.float32))
    assert caught.value.code == "buffer_full" and len(buffer) == 900
    buffer.append(np.ones(100, np.float32))
    assert len(buffer.take()) == 1_000


@pytest.mark.parametrize("keep", [0, 1, 3, 4, 7, 100])
def test_only_the_newest_can_be_kept(keep: int) -> None:
    """During silence a session keeps only the prefix padding."""
    buffer = InputBuffer(16_000, 1.0)
    for start in (0, 3, 4):
        buffer.append(np.arange(start, start + 3, dtype=np.float32))
    buffer.keep_last(keep)
    whole = [0, 1, 2, 3, 4, 5, 4, 5, 6]
    kept = whole[max(0, 9 - keep) :]
    assert len(buffer) == len(kept)
    assert buffer.take().tolist() == kept
