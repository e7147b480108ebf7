"""Pictures of a video file, decoded when they are wanted: little memory for long, large videos.

A video is a row of groups that begin with a key frame and are decoded by themselves. A picture's
group is decoded as a whole, and the groups that were used last are kept as the decoder gives them;
so playing forward and backward decodes each picture once. This module knows neither avatars nor
what is drawn into a picture.
"""

from __future__ import annotations

import os
import threading
import weakref
from bisect import bisect_right
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.filter import Graph

from wsavatar.media.frame import to_rgb
from wsavatar.media.pictures import Pictures, Region
from wsavatar.media.video import VideoError, VideoInfo, open_video, video_stream

__all__ = ["GROUP_FRAMES", "UnfitVideoError", "VideoPictures"]

GROUP_FRAMES = 4
"""Between key frames of videos that are written to be read here: a jump to a picture costs at most
so many. Such a file is about a third larger than one with few key frames."""
_LONGEST_GROUP = 16
_KEPT_BYTES = 64 * 2**20
_KEPT_GROUPS = 2
_MARGIN = 8
"""Around a region: conversion to RGB looks at neighbours. With it, the pixels are the same."""


class UnfitVideoError(VideoError):
    """Pictures cannot be taken from a video in any order; the message says why."""


class _Packet(NamedTuple):
    place: int
    size: int
    pts: int


@dataclass(frozen=True, slots=True)
class _Group:
    first: int
    """Index of its first picture."""
    packets: tuple[_Packet, ...]
    """In the order of decoding."""


class VideoPictures(Pictures):
    """The pictures of the video at ``path``, as `wsavatar.media.video.open_video` shows them.

    The file is read whenever pictures are wanted, so it must not be written to; it may be removed
    or replaced by another. Raises UnfitVideoError for one with few key frames, a varying rate, or
    pictures that are turned or scaled to be shown; VideoError for what is no video, and so does a
    picture that cannot be read.
    """

    def __init__(self, path: Path) -> None:
        with open_video(path) as (info, shown):
            first = next(shown).picture
        self._path = path
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)
        self._codec, self._extradata, self._groups = self._index(info)
        self._starts = [group.first for group in self._groups]
        self._count = sum(len(group.packets) for group in self._groups)
        self.info = replace(info, frame_count=self._count)
        self._guard = threading.Lock()
        self._kept: OrderedDict[int, Future[list[av.VideoFrame]]] = OrderedDict()
        group_bytes = 2 * info.width * info.height * max(len(one.packets) for one in self._groups)
        self._most_kept = max(_KEPT_GROUPS, _KEPT_BYTES // group_bytes)
        self._kept_bytes = self._most_kept * group_bytes
        whole = self.picture(0)
        if whole.shape != first.shape or (whole != first).any():  # turned, scaled, other colours
            raise self._unfit("its pictures are not shown as they are stored")

    @property
    def nbytes(self) -> int:
        return self._kept_bytes

    def __len__(self) -> int:
        return self._count

    def picture(self, index: int) -> np.ndarray:
        return to_rgb(self._frame(index)).to_ndarray()

    def part(self, index: int, region: Region) -> np.ndarray:
        x, y, w, h = region
        frame = self._frame(index)
        # On whole samples of colour, of which there is one for two pixels each way.
        left, top = (max(0, edge - _MARGIN) // 2 * 2 for edge in (x, y))
        right, bottom = ((edge + _MARGIN + 1) // 2 * 2 for edge in (x + w, y + h))
        right, bottom = min(right, frame.width), min(bottom, frame.height)
        cut = to_rgb(_cropped(frame, left, top, right - left, bottom - top)).to_ndarray()
        return np.ascontiguousarray(cut[y - top : y - top + h, x - left : x - left + w])

    # Decoding.

    def _frame(self, index: int) -> av.VideoFrame:
        number = bisect_right(self._starts, index) - 1
        with self._guard:
            kept = self._kept.get(number)
            if is_new := kept is None:
                kept = self._kept[number] = Future()
                while len(self._kept) > self._most_kept:
                    self._kept.popitem(last=False)
            else:
                self._kept.move_to_end(number)
        if is_new:
            try:
                kept.set_result(self._decode(self._groups[number]))
            except Exception as error:
                with self._guard:
                    self._kept.pop(number, None)
                kept.set_exception(error)
        return kept.result()[index - self._starts[number]]

    def _decode(self, group: _Group) -> list[av.VideoFrame]:
        context: Any = av.CodecContext.create(self._codec, "r")
        context.extradata = self._extradata
        context.thread_count = 1  # those who ask are threads
        frames = []
        try:
            for place, size, pts in group.packets:
                packet = av.Packet(os.pread(self._file, size, place))
                packet.pts = pts
                frames += context.decode(packet)
            frames += context.decode(None)
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self._path}: cannot be read as video ({error})") from error
        if len(frames) != len(group.packets):
            raise VideoError(f"{self._path}: was written to while it was read")
        return frames

    # The index.

    def _index(self, info: VideoInfo) -> tuple[str, bytes | None, list[_Group]]:
        """The codec, its parameters, and all groups. Raises VideoError for an unfit file."""
        groups: list[list[_Packet]] = []
        with video_stream(self._path) as (container, stream):
            for packet in container.demux(stream):
                if not packet.size:
                    continue
                if packet.pts is None or packet.pos is None or packet.pos < 0:
                    raise self._unfit("it has frames without a time or a place")
                if os.pread(self._file, packet.size, packet.pos) != bytes(packet):
                    raise self._unfit("its frames are not stored as they are decoded")
                if packet.is_keyframe:
                    groups.append([])
                if not groups or len(groups[-1]) == _LONGEST_GROUP:
                    raise self._unfit(f"over {_LONGEST_GROUP} frames between two key frames")
                groups[-1].append(_Packet(packet.pos, packet.size, packet.pts))
            codec = stream.codec_context
            name, extradata = codec.name, codec.extradata
            self._check_times(groups, info.fps, Fraction(stream.time_base))
        first, indexed = 0, []
        for group in groups:
            indexed.append(_Group(first, tuple(group)))
            first += len(group)
        return name, extradata, indexed

    def _check_times(self, groups: list[list[_Packet]], fps: Fraction, unit: Fraction) -> None:
        """Groups follow each other, and every frame is shown once, at a constant rate."""
        times = [pts for group in groups for pts in sorted(packet.pts for packet in group)]
        if any(group[0].pts != min(packet.pts for packet in group) for group in groups):
            raise self._unfit("some frames need those of the group before")
        for index, pts in enumerate(times):
            if abs((pts - times[0]) * unit * fps - index) >= Fraction(1, 4):
                raise self._unfit("its frame rate is not constant")

    def _unfit(self, why: str) -> UnfitVideoError:
        return UnfitVideoError(
            f"{self._path}: pictures cannot be taken from it in any order: {why}"
        )


def _cropped(frame: av.VideoFrame, x: int, y: int, width: int, height: int) -> av.VideoFrame:
    """A part of a frame, without a copy; its colours are placed as in the frame."""
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 25)
    )
    crop = graph.add("crop", f"{width}:{height}:{x}:{y}:exact=1")
    sink = graph.add("buffersink")
    source.link_to(crop)
    crop.link_to(sink)
    graph.configure()
    graph.push(frame)
    cropped = graph.pull()
    assert isinstance(cropped, av.VideoFrame)
    return cropped
