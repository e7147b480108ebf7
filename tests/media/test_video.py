"""Video files in: shown at a constant rate, upright, in square pixels, whatever the file holds."""

from __future__ import annotations

import gc
import struct
import subprocess
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from wsavatar.media.frame import BACKGROUND, FrameConverter
from wsavatar.media.video import VideoError, open_video, read_video

W, H = 64, 48


def picture(number: int, width: int = W, height: int = H) -> np.ndarray:
    """Its brightness says which it is."""
    return np.full((height, width, 3), 20 + 5 * number, np.uint8)


def numbers(frames: np.ndarray) -> list[int]:
    return [round((float(frame.mean()) - 20) / 5) for frame in frames]


def write(
    path: Path,
    times_ms: Sequence[float],
    *,
    rate: int = 25,
    pixel_aspect: Fraction | None = None,
    size: tuple[int, int] = (W, H),
) -> Path:
    """A video whose frames are shown at these times."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": "8"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90_000)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for number, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame.pts, frame.time_base = round(time_ms * 90), Fraction(1, 90_000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


# -- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.ts"])
@pytest.mark.parametrize("fps", [Fraction(25), Fraction(30), Fraction(30_000, 1001)], ids=str)
def test_a_video_of_constant_rate_is_shown_frame_by_frame(
    tmp_path: Path, name: str, fps: Fraction
) -> None:
    """Each frame once, also where the container rounds times to milliseconds or starts late."""
    times = [1000 + float(1000 * i / fps) for i in range(30)]
    info, frames = read_video(write(tmp_path / name, times, rate=round(fps)))
    assert numbers(frames) == list(range(30))
    assert abs(info.fps / fps - 1) < 0.002


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_varying_rate_keeps_its_times(tmp_path: Path, name: str) -> None:
    """A frame that was shown for 400 ms is shown for 400 ms: the nearest in time, at the mean rate.

    A camera in the dark, or a screen recorder, makes such files.
    """
    times = [*range(0, 400, 40), *range(400, 1200, 100), *range(1200, 1600, 40)]
    info, frames = read_video(write(tmp_path / name, times))
    assert 17 <= info.fps <= 19
    for i, number in enumerate(numbers(frames)):
        late = abs(float(i / info.fps) * 1000 - times[number])
        assert late <= min(abs(float(i / info.fps) * 1000 - time) for time in times) + 1
    assert abs(len(frames) / info.fps - Fraction(1600, 1000)) <= Fraction(60, 1000)


def test_a_long_still_is_held(tmp_path: Path) -> None:
    """A gap of 2 s between two frames takes 2 s."""
    times = [0, 40, 80, 2080, 2120, 2160]
    info, frames = read_video(write(tmp_path / "a.mkv", times))
    seen = numbers(frames)
    assert abs(seen.count(2) + seen.count(3) - 2 * info.fps) <= 2
    assert info.fps < 5


def test_frames_say_which_of_the_file_they_are(tmp_path: Path) -> None:
    """So that landmarks of the file's frames can follow; the rate may be given limits."""
    path = write(tmp_path / "a.mp4", range(0, 2000, 200), rate=5)
    with open_video(path, slowest=10) as (info, shown):
        seen = [(number, numbers(rgb[None])[0]) for number, rgb in shown]
    assert info.fps == 10 and len(seen) == 20
    assert all(number == drawn for number, drawn in seen)
    with open_video(write(tmp_path / "b.mp4", range(0, 200, 5), rate=200), fastest=50) as (
        info,
        shown,
    ):
        assert info.fps == 50 and [number for number, _ in shown] == list(range(0, 40, 4))


def test_a_file_that_states_no_rate_gets_its_measured_one(tmp_path: Path) -> None:
    """A browser's recording (WebM) says 1000 frames/s, or nothing."""
    path = tmp_path / "a.webm"
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libvpx", rate=1000)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(31):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = round(number * 1000 / 30), Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    info, frames = read_video(path)
    assert abs(info.fps - 30) < 0.1 and numbers(frames) == list(range(31))


@pytest.mark.parametrize("fastest", [6, 240])
def test_a_raw_stream_has_the_time_that_its_rate_says(tmp_path: Path, fastest: int) -> None:
    """A camera's .h264 file has no times, and nothing can be sought in it; parts of it are read."""
    path = write(tmp_path / "a.h264", range(0, 1600, 40))
    with open_video(path, fastest=fastest) as (info, shown):
        assert abs(len(list(shown)) / info.fps - Fraction(16, 10)) <= 1 / info.fps
    with open_video(path, part_s=(0.4, 0.8)) as (_, shown):
        assert numbers(np.stack([picture for _, picture in shown])) == list(range(10, 20))


def test_a_frame_an_hour_is_a_rate(tmp_path: Path) -> None:
    """However slow a video is, its rate is a number that one can divide by."""
    with open_video(write(tmp_path / "a.mkv", [0, 4_000_000])) as (info, _):
        assert 0 < info.file_fps < Fraction(1, 1000) and info.fps == 1


# -- picture --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixel_aspect", "shown"),
    [(Fraction(4, 3), (85, 48)), (Fraction(1, 2), (64, 96)), (Fraction(1), (64, 48))],
)
def test_pixels_become_square(
    tmp_path: Path, pixel_aspect: Fraction, shown: tuple[int, int]
) -> None:
    """As a player shows it, without loss; the size before is given too."""
    info, frames = read_video(write(tmp_path / "a.mp4", [0, 40, 80], pixel_aspect=pixel_aspect))
    assert (info.width, info.height) == shown and info.decoded_size == (W, H)
    assert frames.shape == (3, shown[1], shown[0], 3) and numbers(frames) == [0, 1, 2]


def test_portrait_video_with_wide_pixels_stands_upright(tmp_path: Path) -> None:
    """The aspect is that of the stored picture, before it is turned."""
    path = write(tmp_path / "a.mp4", [0, 40], pixel_aspect=Fraction(2))
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(
        ">9i", 0, 0x10000, 0, -0x10000, 0, 0, H << 16, 0, 0x40000000
    )
    path.write_bytes(data)
    info, _ = read_video(path)
    assert (info.width, info.height) == (H, 2 * W) and info.decoded_size == (H, W)


def test_frames_with_unknown_side_data_are_read() -> None:
    """FFmpeg adds kinds that PyAV cannot name; the rotation is known all the same."""

    class Frame:
        width, height, rotation = W, H, -90

        @property
        def side_data(self) -> object:
            raise ValueError("31 is not a valid Type")

    converter = FrameConverter(Path("a.mp4"), Fraction(1), 4096)
    converter.check(Frame())
    assert converter.size == (H, W)


def test_frames_that_were_shown_are_freed_at_once(tmp_path: Path) -> None:
    """Not when the garbage collector comes: a hundred frames of 1080p are 300 MB."""
    path = write(tmp_path / "a.mp4", [40 * number for number in range(25)])
    gc.collect()
    gc.disable()
    try:
        with open_video(path) as (_, shown):
            shown_count = sum(1 for _ in shown)
        alive = sum(type(one) is av.VideoFrame for one in gc.get_objects())
    finally:
        gc.enable()
    assert shown_count == 25 and alive <= 4


def test_an_absurd_pixel_aspect_is_refused(tmp_path: Path) -> None:
    """The file and the value are named."""
    path = write(tmp_path / "a.mp4", [0, 40], pixel_aspect=Fraction(1, 20))
    with pytest.raises(VideoError, match=r"a\.mp4: its pixels are 1:20 wide"):
        read_video(path)


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    """Music with a cover holds no video."""
    cover, music = tmp_path / "a.png", tmp_path / "a.mp3"
    make = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i"]
    try:
        subprocess.run([*make, "color=s=64x64", "-frames:v", "1", str(cover)], check=True)
        subprocess.run(
            [*make, "sine=d=1", "-i", str(cover), "-map", "0", "-map", "1", str(music)], check=True
        )
    except (FileNotFoundError, subprocess.CalledProcessError):
        pytest.skip("no ffmpeg")
    with pytest.raises(VideoError, match="no video stream"):
        read_video(music)


def test_a_mirrored_video_is_shown_as_in_a_player(tmp_path: Path) -> None:
    """The display matrix of a front camera: left and right are exchanged, nothing is turned."""
    path = write(tmp_path / "a.mp4", [0, 40])
    half = np.zeros((H, W, 3), np.uint8)
    half[:, : W // 2] = 200
    path = write_pictures(tmp_path / "a.mp4", [half, half])
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 44
    data[matrix : matrix + 36] = struct.pack(
        ">9i", -0x10000, 0, 0, 0, 0x10000, 0, W << 16, 0, 0x40000000
    )
    path.write_bytes(data)
    _, frames = read_video(path)
    assert frames[0, 10, 5].max() < 20 and frames[0, 10, W - 5].min() > 180


def write_pictures(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    transfer: int | None = None,
) -> Path:
    """A video of RGB or RGBA pictures; HDR where a transfer characteristic is given."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if transfer is not None:
            context = stream.codec_context
            context.color_trc, context.color_primaries, context.colorspace = transfer, 9, 9
            context.color_range = 1
        stream.codec_context.max_b_frames = 0  # two pictures are too few to put in another order
        for number, one in enumerate(pictures):
            layout = {4: "rgba", 3: "rgb48le" if one.dtype == np.uint16 else "rgb24"}
            frame = av.VideoFrame.from_ndarray(one, format=layout[one.shape[2]])
            frame = frame.reformat(format=pix_fmt, dst_colorspace=9 if transfer else None)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("transfer", "code"), [(16, 0.5081), (18, 0.5)])
def test_hdr_is_shown_on_a_screen_without(tmp_path: Path, transfer: int, code: float) -> None:
    """100 nits of PQ, and half of HLG's signal, are a bright grey, neither pale nor burnt out."""
    grey = np.full((H, W, 3), round(code * 65535), np.uint16)
    path = write_pictures(
        tmp_path / "a.mkv", [grey] * 2, codec="libx265", pix_fmt="yuv420p10le", transfer=transfer
    )
    _, frames = read_video(path)
    wanted = 186 if transfer == 16 else 137
    np.testing.assert_allclose(frames[0, 20, 20], wanted, atol=4)


@pytest.mark.parametrize(
    ("name", "codec", "pix_fmt"),
    [("a.webm", "libvpx-vp9", "yuva420p"), ("a.mov", "qtrle", "argb"), ("a.mov", "png", "rgba")],
)
def test_what_is_transparent_becomes_grey(
    tmp_path: Path, name: str, codec: str, pix_fmt: str
) -> None:
    """In VP9 too, whose alpha is a stream of its own."""
    picture = np.zeros((H, W, 4), np.uint8)
    picture[:, : W // 2] = (60, 160, 60, 255)
    path = write_pictures(tmp_path / name, [picture] * 3, codec=codec, pix_fmt=pix_fmt)
    info, frames = read_video(path)
    assert len(frames) == 3 and info.fps == 25
    np.testing.assert_allclose(frames[1, 20, 10], (60, 160, 60), atol=8)
    np.testing.assert_allclose(frames[1, 20, W - 6], BACKGROUND, atol=8)
    with open_video(path, alpha=True) as (_, shown):
        layered = next(shown).picture
    assert (layered[..., :3] == frames[0]).all()
    assert layered[20, 10, 3] > 250 and layered[20, W - 6, 3] < 5


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
    ],
    ids=["list of files", "playlist"],
)
@pytest.mark.parametrize("name", ["a.mp4", "a.m3u8", "a.ffconcat"])
def test_a_file_cannot_make_another_be_read(tmp_path: Path, name: str, text: str) -> None:
    """A list of files is an error, not a video of the files beside it."""
    write(tmp_path / "other.mp4", [0, 40])
    (tmp_path / name).write_text(text)
    with pytest.raises(VideoError, match=r"cannot be read as video \((its format|Invalid data)"):
        read_video(tmp_path / name)


def test_errors_of_whom_it_is_read_for_are_their_own(tmp_path: Path) -> None:
    """A disk that is full where pictures are written to is not said of the file that is read."""
    path = write(tmp_path / "a.mp4", [0, 40])
    with pytest.raises(OSError, match="No space left"), open_video(path) as (_, shown):
        next(shown)
        raise OSError(28, "No space left on device")


def test_large_videos_are_scaled(tmp_path: Path) -> None:
    """While they are converted, and the size before is given too."""
    path = write(tmp_path / "a.mp4", [0, 40], size=(320, 160))
    with open_video(path, max_side=100) as (info, shown):
        assert next(shown).picture.shape == (50, 100, 3)
    assert (info.width, info.height, info.decoded_size) == (100, 50, (320, 160))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts"])
def test_a_part_of_a_video_is_read(tmp_path: Path, name: str) -> None:
    """From the frame at its start to the one before its end, as exact as the frames are."""
    path = write(tmp_path / name, [500 * number for number in range(40)], rate=2)
    for first, last in ((2, 6), (20, 24)):
        with open_video(path, part_s=(first / 2, last / 2)) as (info, shown):
            found = [picture for _, picture in shown]
        assert info.fps == 2 and numbers(np.stack(found)) == list(range(first, last))


def test_what_is_no_video_is_an_error(tmp_path: Path) -> None:
    """Missing, empty, text or sound alone: VideoError with the name."""
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mp4").write_text("hello")
    soundfile.write(tmp_path / "sound.wav", np.zeros(800), 8000)
    for name in ("missing.mp4", "empty.mp4", "text.mp4", "sound.wav"):
        with pytest.raises(VideoError, match=name):
            read_video(tmp_path / name)


def test_a_video_that_claims_to_be_too_large_is_not_decoded(tmp_path: Path) -> None:
    """The error has the size."""
    path = write(tmp_path / "a.mkv", [0, 40], size=(4160, 64))
    with pytest.raises(VideoError, match=r"a\.mkv: 4160x64 is over 4096"):
        read_video(path)
