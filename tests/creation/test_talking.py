"""A clip of a person who talks: the face in every frame, the sound, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.creation.drawn import DrawnFaceDetector, drawn
from wsavatar.avatars.format import AvatarError
from wsavatar.creation.talking import MOST_S, read_talking
from wsavatar.media.video_kinds import MP4, SoundFormat, kind_of
from wsavatar.media.video_writer import VideoWriter

W, H, FPS, RATE = 160, 128, 10, 8000
CENTRE = (W / 2, H * 0.42)


def quiet(doing: str, done: int, total: int) -> None:
    """Nobody watches."""


def write_clip(
    path: Path,
    seconds: float = 12,
    *,
    level: float | None = 0.3,
    hidden: float = 0.0,
    alpha: bool = False,
) -> Path:
    """A face that opens its mouth, with a tone of that level (None: without a sound track).

    It is not to be seen in the last part, ``hidden`` of the clip. With ``alpha`` the picture's
    corner is transparent.
    """
    kind = kind_of(path) or MP4
    count, rate = round(seconds * FPS), kind.sample_rate(RATE)
    sound = None if level is None else SoundFormat(rate, 1)
    step = rate // FPS
    times = np.arange(count * step) / rate
    tone = ((level or 0) * np.sin(2 * np.pi * 200 * times)).astype(np.float32)[:, None]
    empty = np.full((H, W, 3), 60, np.uint8)
    opacity = np.full((H, W, 1), 255, np.uint8)
    opacity[:9, :9] = 0
    with VideoWriter(
        path, width=W, height=H, fps=Fraction(FPS), crf=12, sound=sound, kind=kind, alpha=alpha
    ) as video:
        for number in range(count):
            seen = number < count * (1 - hidden)
            picture = drawn(W, H, CENTRE, 70, 0.1 * (number % 3)) if seen else empty
            shown = np.dstack([picture, opacity]) if alpha else picture
            video.write(shown, tone[number * step : (number + 1) * step] if sound else None)
    return path


def test_a_clip_is_read(tmp_path: Path) -> None:
    """Pictures, points and sound begin together and last as long; pictures can be had again."""
    clip = read_talking(write_clip(tmp_path / "a.mp4"), DrawnFaceDetector(), 16000, quiet)
    assert (clip.fps, clip.width, clip.height) == (FPS, W, H)
    assert clip.landmarks.shape == (120, 68, 2) and clip.seen.all()
    assert len(clip.audio) == 12 * 16000
    assert np.abs(clip.audio[16000:-16000]).max() == pytest.approx(0.3, abs=0.05)
    for _ in range(2):
        assert len(list(clip.pictures())) == 120
    gap = clip.landmarks[:, 66, 1] - clip.landmarks[:, 62, 1]
    assert np.corrcoef(gap, np.arange(120) % 3)[0, 1] > 0.9


def test_frames_without_a_face_are_marked(tmp_path: Path) -> None:
    """Their points are guessed."""
    clip = read_talking(
        write_clip(tmp_path / "a.mp4", hidden=0.25), DrawnFaceDetector(), 16000, quiet
    )
    assert 85 <= clip.seen.sum() <= 95 and np.isfinite(clip.landmarks).all()


def test_of_a_long_clip_the_beginning_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So time and memory have a limit, and the user is told."""
    assert MOST_S == 180
    monkeypatch.setattr("wsavatar.creation.talking.MOST_S", 11.0)
    clip = read_talking(write_clip(tmp_path / "a.mp4"), DrawnFaceDetector(), 16000, quiet)
    assert len(clip.seen) == len(list(clip.pictures())) == 110
    assert len(clip.audio) == 11 * 16000
    assert any("first" in note for note in clip.notes)


@pytest.mark.parametrize("late", [0.48, -0.32])
def test_sound_that_begins_later_than_the_pictures_stays_in_step(
    tmp_path: Path, late: float
) -> None:
    """Or earlier: both are on the file's clock, as recorders of screens and phones write it."""
    whole, path = write_clip(tmp_path / "whole.mkv"), tmp_path / "a.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as file:
        streams = {one: file.add_stream_from_template(one) for one in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                shift = late if packet.stream.type == "audio" else 0
                moved = round((shift + 1) / packet.time_base)
                packet.pts, packet.dts = packet.pts + moved, packet.dts + moved
                packet.stream = streams[packet.stream]
                file.mux(packet)
    clip = read_talking(path, DrawnFaceDetector(), 16000, quiet)
    assert len(clip.audio) == 12 * 16000
    loud = np.flatnonzero(np.abs(clip.audio) > 0.1) / 16000
    assert loud[0] == pytest.approx(max(late, 0), abs=0.03)
    assert loud[-1] == pytest.approx(12 + min(late, 0), abs=0.03)


def test_a_clip_with_transparent_parts_is_read(tmp_path: Path) -> None:
    """Its pictures have three channels, as the model wants them."""
    path = write_clip(tmp_path / "a.webm", 10, alpha=True)
    clip = read_talking(path, DrawnFaceDetector(), 16000, quiet)
    assert clip.seen.all() and next(clip.pictures()).shape == (H, W, 3)


def photo(path: Path) -> Path:
    cv2.imwrite(str(path.with_suffix(".png")), drawn(W, H, CENTRE, 70)[..., ::-1])
    return path.with_suffix(".png")


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "a photo": (photo, "is a photo; give a video"),
    "no sound": (lambda path: write_clip(path, level=None), "no audio stream; a clip with"),
    "silence": (lambda path: write_clip(path, level=0.0005), "its sound is silence"),
    "short": (lambda path: write_clip(path, 6), "has 6.0 s; at least 10 s"),
    "no face": (lambda path: write_clip(path, hidden=1.0), "seen in 0 % of the frames"),
    "hardly a face": (lambda path: write_clip(path, hidden=0.8), "seen in 20 % of the frames"),
    "missing": (lambda path: path, "no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_nothing_can_be_learned_from_is_refused(tmp_path: Path, case: str) -> None:
    """In one sentence, which names the file."""
    make, reason = BAD[case]
    with pytest.raises(AvatarError, match=reason):
        read_talking(make(tmp_path / "clip.mp4"), DrawnFaceDetector(), 16000, quiet)
