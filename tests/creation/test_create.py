"""An avatar of one file: a photo or a video, and of nothing else."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.creation.drawn import DrawnFaceDetector, drawn, write_film
from wsavatar.avatars.format import AvatarError, read_avatar_file, read_landmarks
from wsavatar.creation import AvatarRequest, CancelledError, Created, create_avatar
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
    with pytest.raises(AvatarError, match="exists already"):
        create(source, id="anna")
    create(clip(source, size=80), id="anna", overwrite=True, license="mine")
    avatar = read_avatar_file(folder)
    assert words == avatar.model_dump(include=set(words))
    assert (avatar.name, avatar.license) == ("Anna B.", "mine")


def test_ids_of_the_same_name_differ(tmp_path: Path) -> None:
    """A second file of a name becomes a second avatar."""
    source = clip(tmp_path / "anna.mp4")
    assert [create(source).id, create(source).id] == ["anna", "anna-2"]


def test_making_can_be_cancelled(tmp_path: Path) -> None:
    """At the next frame, and nothing is left."""
    cancelled = threading.Event()

    def progress(what: str, done: int, total: int) -> None:
        if (what, done) == ("write", 3):
            cancelled.set()

    with pytest.raises(CancelledError):
        create_avatar(
            photo(tmp_path / "anna.png"),
            tmp_path / "avatars",
            DrawnFaceDetector(),
            AvatarRequest(),
            progress,
            cancelled=cancelled,
        )
    assert not list((tmp_path / "avatars").iterdir())
