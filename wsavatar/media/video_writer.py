"""Video files out: pictures and sound to H.264 and AAC, or VP9 and Opus, by PyAV's own codecs.

This module owns encoding, timestamps and colour tags. It knows neither faces nor models.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from wsavatar.media.container import reason
from wsavatar.media.frame import MAX_SIDE, SWS_ACCURATE, VideoError
from wsavatar.media.video_kinds import MP4, SoundFormat, VideoKind

__all__ = ["VideoWriter"]

_BT709 = 1  # primaries, transfer and matrix carry the same number in H.264 (ITU-T H.273)


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
            raise VideoError(f"{path}: cannot be written ({reason(error)})") from error
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
                raise VideoError(f"{self._path}: cannot be written ({reason(error)})") from error

    def _mux(self, stream: Any, frame: Any) -> None:
        try:
            self._container.mux(stream.encode(frame))
        except (av.FFmpegError, OSError) as error:
            raise VideoError(f"{self._path}: cannot be written ({reason(error)})") from error
