"""An avatar of one file: a photo or a video, and of nothing else."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.creation.drawn import DrawnFaceDetector, drawn, write_film
from wsavatar.avatars.format import AvatarError, read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.creation import AvatarRequest, CancelledError, Created, create_avatar
from wsavatar.creation.calm import mouth_opening
from wsavatar.media.video import read_video

W, H = 320, 256


def create(source: Path, **asked: object) -> Created:
    return create_avatar(
        source,
        source.parent / "avatars",
        DrawnFaceDetector(),
        AvatarRequest(**asked),  # type: ignore[arg-type]
    )


def photo(path: Path, *, size: float = 90, width: int = W, height: int = H) -> Path:
    Image.fromarray(drawn(width, height, (width / 2, height * 0.45), size)).save(path)
    return path


def clip(path: Path, *, size: float = 90) -> Path:
    return write_film(path, [drawn(W, H, (W / 2, H * 0.45), size)] * 8)


def animation(path: Path) -> Path:
    frames = [Image.fromarray(drawn(W, H, (W / 2 + i, H * 0.45), 90)) for i in range(8)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=40)
    return path


def test_a_photo_becomes_an_avatar(tmp_path: Path) -> None:
    """Six seconds of the person, with a name and an id from the file's name."""
    made = create(photo(tmp_path / "Anna Smith.png"))
    avatar = read_avatar_file(made.folder)
    assert (made.id, avatar.id, avatar.name) == ("anna-smith", "anna-smith", "Anna Smith")
    assert (avatar.width, avatar.height, avatar.fps, avatar.frame_count) == (W, H, 25, 150)


def test_the_border_of_a_photo_stands_still(tmp_path: Path) -> None:
    """No black and no moving edge comes in."""
    made = create(photo(tmp_path / "anna.png"))
    _, frames = read_video(made.folder / "idle.mp4")
    edge = np.concatenate([frames[:, 0], frames[:, -1], frames[:, :, 0], frames[:, :, -1]], axis=1)
    assert np.abs(edge.astype(int) - edge[0]).max() <= 6


def test_a_video_becomes_an_avatar(tmp_path: Path) -> None:
    """All of its frames, with the face's points in each."""
    pictures = [drawn(W, H, (140 + i, 115), 90) for i in range(40)]
    made = create(write_film(tmp_path / "eve.mp4", pictures), name="Eve")
    avatar = read_avatar_file(made.folder)
    assert (avatar.name, avatar.frame_count, avatar.fps) == ("Eve", 40, 25)
    points = read_landmarks(made.folder, avatar)
    np.testing.assert_allclose(points[:, 30, 0], 140 + np.arange(40), atol=1.5)


def test_a_video_of_a_calm_face_is_looked_at_half_as_often(tmp_path: Path) -> None:
    """Where hardly anything moves from a frame to the next but one, the points between are their
    mean; else every frame is looked at."""
    still = [drawn(W, H, (140 + i * 0.3, 115), 90) for i in range(40)]
    quick = [drawn(W, H, (140 + 3 * i, 115), 90) for i in range(40)]
    looks = {}
    for name, pictures in (("still", still), ("quick", quick)):
        detector = DrawnFaceDetector()
        film = write_film(tmp_path / f"{name}.mp4", pictures)
        folder = create_avatar(film, tmp_path / "avatars", detector, AvatarRequest()).folder
        points = read_landmarks(folder, read_avatar_file(folder))
        step = 0.3 if name == "still" else 3
        np.testing.assert_allclose(points[:, 30, 0], 140 + step * np.arange(40), atol=1.5)
        looks[name] = detector.pictures
    assert looks["quick"] - looks["still"] == 19


def test_a_replaced_avatar_keeps_who_it_is(tmp_path: Path) -> None:
    """New pictures; its name, voice, language, instructions and greeting stay."""
    source = clip(tmp_path / "anna.mp4")
    folder = create(source, name="Anna B.").folder
    words = {"voice": "nova", "language": "de", "instructions": "Short.", "greeting": "Hallo!"}
    file = folder / "avatar.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | words))
    with pytest.raises(AvatarError, match="exists already; choose another id, or replace it"):
        create(source, id="anna")
    create(clip(source, size=80), id="anna", overwrite=True, license="mine")
    avatar = read_avatar_file(folder)
    assert words == avatar.model_dump(include=set(words))
    assert (avatar.name, avatar.license) == ("Anna B.", "mine")


def test_ids_of_the_same_name_differ(tmp_path: Path) -> None:
    """A second file of a name becomes a second avatar."""
    source = clip(tmp_path / "anna.mp4")
    assert [create(source).id, create(source).id] == ["anna", "anna-2"]


@pytest.mark.parametrize("name", ["anna.png", "anna.gif", "anna.mp4"])
@pytest.mark.parametrize("step", [("look", 0), ("write", 3)])
def test_making_can_be_cancelled(tmp_path: Path, name: str, step: tuple[str, int]) -> None:
    """At the next frame, of any kind of file, and nothing is left."""
    cancelled = threading.Event()

    def progress(what: str, done: int, total: int) -> None:
        if (what, done) == step:
            cancelled.set()

    write = {"anna.png": photo, "anna.gif": animation, "anna.mp4": clip}[name]
    with pytest.raises(CancelledError):
        create_avatar(
            write(tmp_path / name),
            tmp_path / "avatars",
            DrawnFaceDetector(),
            AvatarRequest(),
            progress,
            cancelled=cancelled,
        )
    assert not list(tmp_path.glob("avatars/*"))


class SetSoon(threading.Event):
    """Set when it is looked at for the third time."""

    looks = 0

    def is_set(self) -> bool:
        self.looks += 1
        return self.looks > 2


def test_a_long_animation_can_be_cancelled_while_it_is_opened(tmp_path: Path) -> None:
    """It is decoded once to learn how long it is, before the first look at a face."""
    detector = DrawnFaceDetector()
    source = animation(tmp_path / "anna.gif")
    with pytest.raises(CancelledError):
        create_avatar(source, tmp_path / "avatars", detector, AvatarRequest(), cancelled=SetSoon())
    assert detector.pictures == 0


def test_a_person_who_talks_throughout_is_shown_at_rest(tmp_path: Path) -> None:
    """In the pictures and in the points, wherever the mouth is open; nothing else changes."""
    openings = ([0.0] * 5 + [0.1, 0.2, 0.25, 0.2, 0.1] * 2) * 5
    pictures = [drawn(W, H, (150 + i * 0.2, 115), 120, part) for i, part in enumerate(openings)]
    made = create(write_film(tmp_path / "eve.mp4", pictures))
    assert len(made.notes) == 1 and "closed with pictures of its rests" in made.notes[0]
    points = read_landmarks(made.folder, read_avatar_file(made.folder))
    _, frames = read_video(made.folder / "idle.mp4")
    assert len(points) == len(frames) == len(openings)
    assert mouth_opening(points).max() < 0.03
    for i, shown in enumerate(frames):
        middle = points[i, 60:68].mean(axis=0).astype(int)
        lips = shown[middle[1] - 6 : middle[1] + 7, middle[0] - 6 : middle[0] + 7]
        assert lips.max(axis=2).min() > 90  # nothing as dark as the inside of a mouth
        face = np.abs(shown[:110].astype(int) - pictures[i][:110])
        assert face.mean() < 3


def test_a_video_that_does_not_talk_is_left_as_it_is(tmp_path: Path) -> None:
    """Lips that part for a moment belong to the person."""
    openings = [0.0] * 60 + [0.2] * 4 + [0.0] * 61
    pictures = [drawn(W, H, (150, 115), 120, part) for part in openings]
    made = create(write_film(tmp_path / "eve.mp4", pictures))
    points = read_landmarks(made.folder, read_avatar_file(made.folder))
    assert mouth_opening(points).max() > 0.1
