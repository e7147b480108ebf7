"""The kinds of video files that are written: container, codecs and their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["KINDS", "MP4", "WEBM", "SoundFormat", "VideoKind", "kind_of"]


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """Of the sound that goes with a written video: one channel or two."""

    sample_rate: int
    channels: int


@dataclass(frozen=True, slots=True)
class VideoKind:
    """``crf``: the quality where none is asked for. ``sample_rates``: those that the sound's codec
    has, the one for others last."""

    container: str
    video_codec: str
    video_options: Mapping[str, str]
    crf: int
    audio_codec: str
    audio_bit_rate: int
    sample_rates: tuple[int, ...]
    has_alpha: bool = False
    """Whether a file may have an alpha channel."""
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        return f".{self.container}"

    def sample_rate(self, wanted: int) -> int:
        """The sample rate of a file whose sound has the rate ``wanted``."""
        return wanted if wanted in self.sample_rates else self.sample_rates[-1]

    def container_options(self, sound: SoundFormat | None) -> dict[str, str]:
        options = dict(self.options)
        if self.container == "mp4" and sound is not None:
            # Durations in whole samples; the default rounds them to milliseconds.
            options["movie_timescale"] = str(sound.sample_rate)
        return options


MP4 = VideoKind(
    "mp4",
    "libx264",
    {"preset": "faster"},  # a third less time than medium, as large, 1 dB less at 42 to 46
    18,
    "aac",
    192_000,
    (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 64000, 88200, 96000, 48000),
    options={"movflags": "+faststart"},
)
# Without a bit rate the quality holds; alternate reference frames have no alpha.
WEBM = VideoKind(
    "webm",
    "libvpx-vp9",
    {"b": "0", "deadline": "good", "cpu-used": "5", "row-mt": "1", "auto-alt-ref": "0"},
    24,
    "libopus",
    128_000,
    (48000,),
    has_alpha=True,
)
KINDS = {kind.suffix: kind for kind in (MP4, WEBM)}


def kind_of(path: Path) -> VideoKind | None:
    """By the name's suffix; None: there is no such kind."""
    return KINDS.get(path.suffix.lower())
