"""What making videos took: for people, and as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wsavatar.videos.maker import Made

__all__ = ["Failed", "Summary"]


@dataclass(frozen=True, slots=True)
class Failed:
    """A video that could not be made, and why."""

    output: str
    error: str


@dataclass(frozen=True, slots=True)
class Summary:
    """Of the videos of one call. ``stages_s``: what the devices' stages took in all, in seconds
    (`wsavatar.render.stages`); of what runs at the same time, each one's time counts."""

    results: Sequence[Made | Failed]
    wall_s: float
    stages_s: Mapping[str, float]

    @property
    def made(self) -> list[Made]:
        return [one for one in self.results if isinstance(one, Made)]

    @property
    def failed(self) -> list[Failed]:
        return [one for one in self.results if isinstance(one, Failed)]

    def to_dict(self) -> dict[str, Any]:
        """As JSON: ``real_time_factor`` is seconds of work for a second of video."""
        made = self.made
        frames, seconds = sum(one.frame_count for one in made), sum(one.seconds for one in made)
        return {
            "videos": [_entry(one) for one in self.results],
            "made": len(made),
            "failed": len(self.failed),
            "frames": frames,
            "video_s": round(seconds, 3),
            "wall_s": round(self.wall_s, 3),
            "frames_per_s": _ratio(frames, self.wall_s),
            "real_time_factor": _ratio(self.wall_s, seconds),
            "stages_s": {
                "sound": round(sum(one.sound_s for one in made), 3),
                **self.stages_s,
                "file": round(sum(one.write_s for one in made), 3),
            },
        }

    def __str__(self) -> str:
        """Two lines: how fast, and which stages took how long."""
        said = self.to_dict()
        stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in said["stages_s"].items())
        count = f"{said['made']} video{'' if said['made'] == 1 else 's'}"
        if said["failed"]:
            count += f" ({said['failed']} failed)"
        return (
            f"{count}: {said['frames']} frames, {said['video_s']:.2f} s, in {said['wall_s']:.1f} s"
            f" ({said['frames_per_s']:.1f} frames/s, real-time factor "
            f"{said['real_time_factor']:.2f})\nseconds per stage: {stages}"
        )


def _entry(one: Made | Failed) -> dict[str, Any]:
    if isinstance(one, Failed):
        return {"output": one.output, "error": one.error}
    return {
        "output": str(one.path),
        "avatar": one.avatar_id,
        "frames": one.frame_count,
        "video_s": round(one.seconds, 3),
        "wall_s": round(one.wall_s, 3),
        "frames_per_s": _ratio(one.frame_count, one.wall_s),
        "real_time_factor": _ratio(one.wall_s, one.seconds),
    }


def _ratio(a: float, b: float) -> float:
    return round(a / b, 4) if b else 0.0
