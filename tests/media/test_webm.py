"""WebM files: exact, transparent where asked for, and refused where a kind cannot do it."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from wsavatar.media.video import VideoError
from wsavatar.media.video_kinds import MP4, WEBM, SoundFormat, kind_of
from wsavatar.media.video_writer import VideoWriter

FPS = Fraction(25)
RATE = 48_000


def noise(seconds: float) -> np.ndarray:
    """Smooth noise, float32 [n, 2]: its place in a recording can be found."""
    random = np.random.default_rng(3).normal(0, 1, (round(seconds * RATE), 2))
    smooth = np.apply_along_axis(lambda x: np.convolve(x, np.ones(24) / 24, "same"), 0, random)
    return (0.8 * smooth / np.abs(smooth).max()).astype(np.float32)


def write(path: Path, pictures: np.ndarray, sound: np.ndarray, *, alpha: bool) -> None:
    height, width = pictures.shape[1:3]
    step = round(RATE / FPS)
    with VideoWriter(
        path,
        width=width,
        height=height,
        fps=FPS,
        sound=SoundFormat(RATE, 2),
        kind=WEBM,
        alpha=alpha,
    ) as video:
        for number, picture in enumerate(pictures):
            video.write(picture, sound[number * step : (number + 1) * step])


def test_a_webm_has_its_frames_and_its_sound_in_place(tmp_path: Path) -> None:
    """VP9 and Opus: every frame at its time, the sound neither shifted nor cut off."""
    sound = noise(1.2)
    pictures = np.zeros((30, 48, 64, 3), np.uint8)
    pictures[..., 1] = 8 * np.arange(30)[:, None, None]
    write(tmp_path / "a.webm", pictures, sound, alpha=False)
    with av.open(str(tmp_path / "a.webm")) as file:
        assert file.streams.video[0].codec_context.name.endswith("vp9")
        assert file.streams.audio[0].codec_context.name == "opus"
        frames = list(file.decode(video=0))
    times = [round(float(frame.time), 3) for frame in frames]
    assert times == [round(number / 25, 3) for number in range(30)]
    levels = [frame.to_ndarray(format="rgb24")[24, 32, 1] for frame in frames]
    assert np.abs(np.array(levels, int) - 8 * np.arange(30)).max() < 8
    with av.open(str(tmp_path / "a.webm")) as file:
        heard = list(file.decode(audio=0))
    start = round(float(heard[0].time) * RATE)
    heard_left = np.concatenate([frame.to_ndarray()[0] for frame in heard])
    padded = np.concatenate([np.zeros(max(0, start)), heard_left[max(0, -start) :]])
    assert abs(len(padded) - len(sound)) < 2000
    count = min(len(padded), len(sound))
    spectrum = np.fft.rfft(padded[:count], 2 * count) * np.conj(
        np.fft.rfft(sound[:count, 0], 2 * count)
    )
    offset = int(np.fft.irfft(spectrum).argmax())
    assert min(offset, 2 * count - offset) <= RATE // 1000  # a millisecond


def test_a_webm_can_be_transparent(tmp_path: Path) -> None:
    """Its alpha channel is that of the pictures."""
    pictures = np.full((10, 64, 64, 4), 200, np.uint8)
    pictures[:, :, :32, 3], pictures[:, :, 32:, 3] = 0, 255
    write(tmp_path / "a.webm", pictures, noise(0.4), alpha=True)
    with av.open(str(tmp_path / "a.webm")) as file:
        stream = file.streams.video[0]
        decoder = av.CodecContext.create("libvpx-vp9", "r")  # FFmpeg's own leaves out the alpha
        decoder.extradata = stream.codec_context.extradata
        frames = [
            frame
            for packet in file.demux(stream)
            if packet.size
            for frame in decoder.decode(packet)
        ]
    assert len(frames) == 10
    alpha = frames[5].to_ndarray(format="rgba")[..., 3]
    assert alpha[:, :24].max() < 10 and alpha[:, 40:].min() > 245


def test_what_a_kind_cannot_do_is_refused(tmp_path: Path) -> None:
    """A transparent MP4, and Opus at 44.1 kHz, before anything is written."""
    size = {"width": 32, "height": 32, "fps": FPS}
    with pytest.raises(VideoError, match="mp4 file cannot be transparent"):
        VideoWriter(tmp_path / "a.mp4", **size, alpha=True)
    with pytest.raises(VideoError, match="cannot have sound at 44100 Hz"):
        VideoWriter(tmp_path / "a.webm", **size, kind=WEBM, sound=SoundFormat(44_100, 1))
    assert (MP4.sample_rate(44_100), MP4.sample_rate(7999), WEBM.sample_rate(44_100)) == (
        44_100,
        48_000,
        48_000,
    )
    assert [kind_of(Path(name)) for name in ("a.MP4", "a.webm", "a.avi")] == [MP4, WEBM, None]
