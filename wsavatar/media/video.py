"""Video files in: pictures as RGB arrays at a constant rate, through PyAV's own codecs.

This module owns what a file holds and when it is shown. It knows neither faces nor models. Nothing
a file claims is believed without a bound: sizes and counts are limited before memory is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from wsavatar.media.constant_rate import Shown, Timed, at_constant_rate
from wsavatar.media.container import open_container, reason
from wsavatar.media.frame import MAX_SIDE, FrameConverter, VideoError

__all__ = ["VideoError", "VideoInfo", "open_video", "read_video", "reading", "video_stream"]

MAX_FRAMES = 9000
MAX_DECODED_BYTES = 4 * 1024**3
_FRAMES_AT_FIRST = 64
"""Room for the frames of a file that does not say how many it has."""
_FASTEST, _SLOWEST = 240, 1
_LEAST_RATE = Fraction(1, 1001)
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
    start_s: Fraction = Fraction(0)
    """When the first picture is shown, on the clock that sound in the same file has too."""


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
    with ExitStack() as files:
        with reading(path):
            own = _rate(path)
            fps = min(max(own, Fraction(slowest)), Fraction(fastest))
            container, stream = files.enter_context(video_stream(path))
            converter = _converter(path, stream, max_side, alpha=alpha)
            decoded = _decoded(container, stream, converter, own, part_s)
            first = next(decoded, None)
        if first is None:
            raise VideoError(f"{path}: holds no frame that can be decoded")
        width, height = converter.size
        count = max(stream.frames, 0)
        info = VideoInfo(width, height, fps, count, converter.decoded_size, own, first.time_s)
        yield info, _told(path, at_constant_rate(chain([first], decoded), fps))


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """What FFmpeg and the disk say, as VideoError."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: cannot be read as video ({reason(error)})") from error


def _told(path: Path, shown: Iterator[Shown]) -> Iterator[Shown]:
    """The same; errors of reading are told, not those of whom it is read for."""
    with reading(path):
        yield from shown


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
    return max(measured.limit_denominator(1001), _LEAST_RATE)


def _converter(path: Path, stream: Any, max_side: int, *, alpha: bool) -> FrameConverter:
    stream.thread_type = "AUTO"
    stream.codec_context.options = {"max_pixels": str(MAX_SIDE**2)}
    if max(stream.width, stream.height) > MAX_SIDE:
        raise VideoError(
            f"{path}: {stream.width}x{stream.height} is over {MAX_SIDE} pixels a side; "
            "scale it down"
        )
    return FrameConverter(path, _pixel_aspect(path, stream), max_side, alpha=alpha)


def _decoded(
    container: Any,
    stream: Any,
    converter: FrameConverter,
    fps: Fraction,
    part_s: tuple[float, float] | None,
) -> Iterator[Timed]:
    """``fps``: of frames whose times the file does not say, such as a camera's raw stream."""
    start_s, end_s = part_s or (-math.inf, math.inf)
    origin_s = Fraction((stream.start_time or 0) * stream.time_base)
    time_s = origin_s - 1 / fps
    for frame in _frames_from(container, stream, origin_s + start_s):
        converter.check(frame)
        time_s = time_s + 1 / fps if frame.pts is None else Fraction(frame.pts * frame.time_base)
        since_s = time_s - origin_s
        if since_s < start_s - _TIME_TOLERANCE_S:
            continue
        if since_s >= end_s - _TIME_TOLERANCE_S:
            return
        duration_s = Fraction((frame.duration or 0) * (frame.time_base or 0))
        yield Timed(time_s, duration_s, partial(converter.picture, frame))


def _frames_from(container: Any, stream: Any, start_s: float) -> Iterator[Any]:
    """Decoded frames from the key frame before ``start_s`` on, or from the file's beginning."""
    begin = stream.start_time  # None: the file has no times, and nothing can be sought in it
    if begin is not None and start_s > begin * stream.time_base + _TIME_TOLERANCE_S:
        container.seek(int(start_s / stream.time_base), stream=stream)
        frames = _frames(container, stream)
        first = next(frames, None)
        if first is not None and first.time is not None and first.time <= start_s:
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
        raise VideoError(
            f"{path}: its pixels are {aspect.numerator}:{aspect.denominator} wide; "
            "write it with square ones"
        )
    return aspect
