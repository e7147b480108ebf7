"""Video files in and out: pictures as RGB arrays, H.264 and AAC through PyAV's own codecs.

This module owns containers, timestamps and colour tags. It knows neither faces nor models. Nothing
a file claims is believed without a bound: sizes and counts are limited before memory is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import ColorRange, Colorspace

from wsavatar.media.container import open_container
from wsavatar.media.frame import MAX_SIDE, SWS_ACCURATE, FrameConverter, VideoError
from wsavatar.media.video_kinds import MP4, SoundFormat, VideoKind

__all__ = [
    "AudioTrack",
    "Shown",
    "Timed",
    "VideoError",
    "VideoInfo",
    "VideoWriter",
    "at_constant_rate",
    "open_video",
    "read_video",
    "video_stream",
]

MAX_FRAMES = 9000
MAX_DECODED_BYTES = 4 * 1024**3
_FRAMES_AT_FIRST = 64
"""Room for the frames of a file that does not say how many it has."""
_BT709 = 1  # primaries, transfer and matrix carry the same number in H.264 (ITU-T H.273)
_FASTEST, _SLOWEST = 240, 1
_MAX_PIXEL_ASPECT = 8
_DECLARED_RATE_TOLERANCE = 0.1
_TIME_TOLERANCE_S = 0.001


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video as it is shown: upright, in square pixels, at a constant rate.

    ``frame_count`` is what the file says of its frames; 0: it does not say. ``decoded_size`` is
    (width, height) of the upright frames before the pixel aspect was applied: the pixels that
    another decoder counts in.
    """

    width: int
    height: int
    fps: Fraction
    frame_count: int
    decoded_size: tuple[int, int]
    file_fps: Fraction
    """The file's own frames a second; ``fps``, if that is within the asked range."""


class Shown(NamedTuple):
    """What is shown for one period of the constant rate: the ``number``-th frame of the file (from
    0), uint8 [H, W, 3] RGB."""

    number: int
    picture: np.ndarray


class Timed(NamedTuple):
    """A frame of a file: its time, None where the file does not say; and how to get its picture."""

    time_s: Fraction | None
    duration_s: Fraction
    take: Callable[[], np.ndarray]


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """Sound for a video: float32 [n, channels] in [-1, 1], one or two channels."""

    samples: np.ndarray
    sample_rate: int

    @property
    def seconds(self) -> Fraction:
        return Fraction(len(self.samples), self.sample_rate)


@contextmanager
def open_video(
    path: Path,
    *,
    slowest: int = _SLOWEST,
    fastest: int = _FASTEST,
    max_side: int = MAX_SIDE,
    part_s: tuple[float, float] | None = None,
    alpha: bool = False,
) -> Iterator[tuple[VideoInfo, Iterator[Shown]]]:
    """Open a video; give its facts and an iterator of what is shown, at a constant rate.

    The rate is the file's own, or its mean where it varies, and from ``slowest`` to ``fastest``.
    Period ``i`` shows the frame whose presentation time is nearest to ``i / fps``; so every frame
    of a video of constant rate is shown once. Only what is shown is converted to RGB.

    ``max_side``: larger pictures are scaled down to it. ``part_s``: from and to which second; what
    comes before is not decoded as far as the file's key frames allow. ``alpha``: pictures of a
    video that has an alpha channel are uint8 [H, W, 4], their colours before grey as without.

    Raises VideoError where the file is missing, is no video, breaks off or exceeds the limits.
    """
    if not path.is_file():
        raise VideoError(f"{path}: {'is no file' if path.exists() else 'no such file'}")
    try:
        own = _rate(path)
        fps = min(max(own, Fraction(slowest)), Fraction(fastest))
        with video_stream(path) as (container, stream):
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"max_pixels": str(MAX_SIDE**2)}
            if max(stream.width, stream.height) > MAX_SIDE:
                raise VideoError(
                    f"{path}: {stream.width}x{stream.height} is over {MAX_SIDE} pixels a side"
                )
            converter = FrameConverter(path, _pixel_aspect(path, stream), max_side, alpha=alpha)
            decoded = _decoded(container, stream, converter, part_s)
            first = next(decoded, None)
            if first is None:
                raise VideoError(f"{path}: holds no frame that can be decoded")
            width, height = converter.size
            info = VideoInfo(width, height, fps, stream.frames, converter.decoded_size, own)
            yield info, at_constant_rate(chain([first], decoded), fps)
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be read as video ({error.strerror or error})") from error


def read_video(path: Path, *, max_frames: int = MAX_FRAMES) -> tuple[VideoInfo, np.ndarray]:
    """Decode a whole video (or its first ``max_frames``) to uint8 [n, H, W, 3] RGB.

    Raises VideoError as `open_video` does, and where the pictures would take over 4 GiB.
    """
    with open_video(path) as (info, shown):
        limit = MAX_DECODED_BYTES // (info.width * info.height * 3)
        room = min(info.frame_count or _FRAMES_AT_FIRST, max_frames, limit)
        pictures = np.empty((room, info.height, info.width, 3), np.uint8)
        count = 0
        for _, picture in islice(shown, max_frames):
            if count == limit:
                raise VideoError(
                    f"{path}: over {limit} frames of {info.width}x{info.height} do not fit the "
                    f"{MAX_DECODED_BYTES >> 30} GiB limit; shorten it or scale it down"
                )
            if count == len(pictures):  # more than the file says
                pictures = np.concatenate([pictures, np.empty_like(pictures)])
            pictures[count] = picture
            count += 1
    return replace(info, frame_count=count), pictures[:count]


@contextmanager
def video_stream(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first video stream that is no cover picture."""
    with open_container(path) as container:
        for stream in container.streams.video:
            if not stream.disposition & Disposition.attached_pic:
                yield container, stream
                return
        raise VideoError(f"{path}: holds no video stream")


def _rate(path: Path) -> Fraction:
    """Frames a second: what the file says, or, where its times say otherwise, their mean."""
    with video_stream(path) as (container, stream):
        # A Fraction in PyAV up to 18, a class of its own in 19.
        rate = stream.average_rate or stream.guessed_rate or 25
        declared = Fraction(rate.numerator, rate.denominator)
        packets = islice(container.demux(stream), MAX_FRAMES)
        times = [packet.pts for packet in packets if packet.pts is not None]
        span = (max(times) - min(times)) * stream.time_base if times else 0
    if not span:
        return declared
    measured = Fraction(len(times) - 1) / Fraction(span)
    if abs(declared / measured - 1) <= _DECLARED_RATE_TOLERANCE:
        return declared
    return measured.limit_denominator(1001)


def at_constant_rate(frames: Iterable[Timed], fps: Fraction) -> Iterator[Shown]:
    """For each period of the rate the frame that is nearest in time."""
    half = 1 / (2 * fps)
    period = 0
    start = held_s = Fraction(0)
    duration_s = Fraction(0)
    held: Callable[[], Shown] | None = None
    for number, frame in enumerate(frames):
        time_s = number / fps if frame.time_s is None else frame.time_s
        if held is None:
            start = time_s
        else:
            middle_s = (held_s + time_s - start) / 2
            while period / fps <= middle_s:
                yield held()
                period += 1
        held, held_s, duration_s = _once(number, frame), time_s - start, frame.duration_s
    duration_s = duration_s or 1 / fps
    end_s = held_s + duration_s - min(half, duration_s / 2)
    while held is not None and period / fps <= end_s:
        yield held()
        period += 1


def _once(number: int, frame: Timed) -> Callable[[], Shown]:
    """Converts a frame when it is first shown."""
    return cache(lambda: Shown(number, frame.take()))


def _decoded(
    container: Any, stream: Any, converter: FrameConverter, part_s: tuple[float, float] | None
) -> Iterator[Timed]:
    start_s, end_s = part_s or (0.0, math.inf)
    origin_s = (stream.start_time or 0) * stream.time_base
    for frame in _frames_from(container, stream, origin_s + start_s):
        converter.check(frame)
        time_s = None if frame.pts is None else Fraction(frame.pts * frame.time_base)
        since_s = math.inf if time_s is None else float(time_s - origin_s)
        if part_s and since_s < start_s - _TIME_TOLERANCE_S:
            continue
        if part_s and since_s >= end_s - _TIME_TOLERANCE_S:
            return
        yield Timed(
            time_s,
            Fraction((frame.duration or 0) * frame.time_base) if frame.time_base else Fraction(0),
            partial(converter.picture, frame),
        )


def _frames_from(container: Any, stream: Any, start_s: float) -> Iterator[Any]:
    """Decoded frames from the key frame before ``start_s`` on, or from the file's beginning."""
    if start_s > (stream.start_time or 0) * stream.time_base + _TIME_TOLERANCE_S:
        container.seek(int(start_s / stream.time_base), stream=stream)
        frames = _frames(container, stream)
        first = next(frames, None)
        if first is not None and (first.time is None or first.time <= start_s):
            yield first
            yield from frames
            return
        container.seek(0)  # a file without an index was met behind its key frame
    yield from _frames(container, stream)


def _frames(container: Any, stream: Any) -> Iterator[Any]:
    """Decoded frames. FFmpeg's own VP8 and VP9 leave out the alpha that a WebM file may have."""
    name = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if name is None or stream.metadata.get("alpha_mode") != "1":
        yield from container.decode(stream)
        return
    context: Any = av.CodecContext.create(name, "r")
    for packet in container.demux(stream):
        yield from context.decode(packet if packet.size else None)


def _pixel_aspect(path: Path, stream: Any) -> Fraction:
    """Width of a pixel over its height."""
    ratio = stream.sample_aspect_ratio
    if not ratio:
        return Fraction(1)
    aspect = Fraction(ratio.numerator, ratio.denominator)
    if not 1 / _MAX_PIXEL_ASPECT <= aspect <= _MAX_PIXEL_ASPECT:
        raise VideoError(f"{path}: its pixels are {aspect.numerator}:{aspect.denominator} wide")
    return aspect


class VideoWriter:
    """Writes one file of a `VideoKind`, 4:2:0, with exact counts and timestamps.

    Frame ``i`` is at ``i / fps``. Odd sizes get one repeated row or column, which 4:2:0 needs.
    Colours are BT.709, limited range, and say so, or a browser would have to guess. The index
    stands first, so the file plays while it is still being fetched. Sound is written as the
    pictures advance, so that the muxer never has to hold one back for the other. There is a key
    frame every ``group_frames``, or, with 0, where the encoder sees fit.

    Use as a context manager; where the block raises, the file is closed but incomplete.
    """

    def __init__(
        self,
        path: Path,
        *,
        width: int,
        height: int,
        fps: Fraction,
        crf: int | None = None,
        group_frames: int = 0,
        sound: SoundFormat | None = None,
        kind: VideoKind = MP4,
        alpha: bool = False,
    ) -> None:
        if not (2 <= width <= MAX_SIDE and 2 <= height <= MAX_SIDE):
            raise VideoError(f"{path}: cannot write pictures of {width}x{height}")
        if alpha and not kind.has_alpha:
            raise VideoError(f"{path}: a {kind.container} file cannot be transparent")
        self._path = path
        self._kind = kind
        self._alpha = alpha
        self._size = (height, width)
        self._fps = fps
        self._frame_count = 0
        self._sound = sound
        self._samples_sent = 0
        try:
            self._container = av.open(
                str(path),
                mode="w",
                format=kind.container,
                options=kind.container_options(sound),
            )
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{path}: cannot be written ({error})") from error
        self._video_stream = self._add_video(kind.crf if crf is None else crf, group_frames)
        self._audio_stream = self._add_audio(sound) if sound is not None else None

    def _add_video(self, crf: int, group_frames: int) -> Any:
        options = {"crf": str(crf), **self._kind.video_options}
        if group_frames:
            options["g"] = str(group_frames)
        stream: Any = self._container.add_stream(
            self._kind.video_codec, rate=self._fps, options=options
        )
        height, width = self._size
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = self._pixels
        context = stream.codec_context
        context.time_base = 1 / self._fps
        context.color_range = ColorRange.MPEG
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        return stream

    def _add_audio(self, sound: SoundFormat) -> Any:
        if sound.channels not in (1, 2):
            raise VideoError(f"{self._path}: sound has one channel or two, not {sound.channels}")
        if sound.sample_rate not in self._kind.sample_rates:
            raise VideoError(f"{self._path}: cannot have sound at {sound.sample_rate} Hz")
        stream: Any = self._container.add_stream(self._kind.audio_codec, rate=sound.sample_rate)
        stream.layout = "mono" if sound.channels == 1 else "stereo"
        stream.bit_rate = self._kind.audio_bit_rate
        return stream

    @property
    def _pixels(self) -> str:
        return "yuva420p" if self._alpha else "yuv420p"

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            self.finish()
        else:
            self.abandon()

    def finish(self) -> None:
        """Write what is still held back, and close the file. Raises VideoError."""
        is_whole = False
        try:
            if self._audio_stream is not None:
                self._mux(self._audio_stream, None)
            self._mux(self._video_stream, None)
            is_whole = True
        finally:
            self._close(is_whole)

    def abandon(self) -> None:
        """Close the file as it is, incomplete."""
        self._close(is_whole=False)

    @property
    def frame_count(self) -> int:
        return self._frame_count

    def write(self, picture: np.ndarray, sound: np.ndarray | None = None) -> None:
        """Append one uint8 [H, W, 3] RGB frame of the size given at the start; with alpha,
        [H, W, 4], not premultiplied.

        And the sound that goes with it, float32 [n, channels] in [-1, 1].
        """
        depth = 4 if self._alpha else 3
        if picture.shape != (*self._size, depth) or picture.dtype != np.uint8:
            raise VideoError(f"{self._path}: frame is {picture.dtype} {picture.shape}")
        height, width = self._size
        if height % 2 or width % 2:
            picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        rgb = av.VideoFrame.from_ndarray(
            np.ascontiguousarray(picture), format="rgba" if self._alpha else "rgb24"
        )
        frame = rgb.reformat(
            format=self._pixels,
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=SWS_ACCURATE,
        )
        frame.pts = self._frame_count
        frame.time_base = 1 / self._fps
        self._mux(self._video_stream, frame)
        self._frame_count += 1
        if sound is not None and len(sound):
            self._write_sound(sound)

    def _write_sound(self, samples: np.ndarray) -> None:
        sound = self._sound
        if sound is None or samples.shape[1:] != (sound.channels,):
            raise VideoError(f"{self._path}: sound is {samples.shape}, the file has {sound}")
        planar = np.ascontiguousarray(samples.T, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(
            np.clip(planar, -1, 1),
            format="fltp",
            layout="mono" if sound.channels == 1 else "stereo",
        )
        frame.sample_rate = sound.sample_rate
        frame.pts = self._samples_sent
        frame.time_base = Fraction(1, sound.sample_rate)
        self._mux(self._audio_stream, frame)
        self._samples_sent += len(samples)

    def _close(self, is_whole: bool) -> None:
        """Close the file. Where it is not whole another error says why, and is not covered up."""
        try:
            self._container.close()
        except (av.FFmpegError, OSError) as error:
            if is_whole:
                raise VideoError(f"{self._path}: cannot be written ({error})") from error

    def _mux(self, stream: Any, frame: Any) -> None:
        try:
            self._container.mux(stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self._path}: cannot be written ({error})") from error
