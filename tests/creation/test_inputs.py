"""Whatever file is given: an avatar, or one sentence that names the file and says what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.creation.drawn import DrawnFaceDetector, drawn, write_film
from tests.drawn_faces import face_landmarks
from wsavatar.avatars.format import AvatarError, read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.creation import (
    AvatarRequest,
    Created,
    SourceLimits,
    UnfitFileError,
    create_avatar,
)
from wsavatar.creation import source as source_module
from wsavatar.creation.notes import covered_note
from wsavatar.creation.source import Source
from wsavatar.landmarks.base import Face
from wsavatar.media.video import VideoError, read_video

W, H = 320, 256
GREY = np.full((H, W, 3), 90, np.uint8)


def create(source: Path, limits: SourceLimits | None = None, **asked: object) -> Created:
    request = AvatarRequest(**asked)  # type: ignore[arg-type]
    directory = source.parent / "avatars"
    return create_avatar(source, directory, DrawnFaceDetector(), request, limits=limits)


def face(x: float = W / 2, size: float = 90, opening: float = 0.0) -> np.ndarray:
    return drawn(W, H, (x, 115), size, opening)


def two_faces() -> np.ndarray:
    """A large one on the left, a small one on the right."""
    picture = drawn(W, H, (100, 115), 90)
    picture[:, 190:] = drawn(W, H, (250, 115), 60)[:, 190:]
    return picture


# -- what can --


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        for packet in (*stream.encode(frame), *stream.encode(None)):
            file.mux(packet)


def cut_off(path: Path) -> None:
    write_film(path, [face()] * 10)
    path.write_bytes(path.read_bytes()[:900])


def animated(path: Path, picture: np.ndarray) -> None:
    """A GIF of that picture and a brighter one."""
    frames = [Image.fromarray(picture), Image.fromarray(np.minimum(picture, 250) + 5)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "text.jpg": (lambda path: path.write_text("Dear diary,"), "cannot be read"),
    "empty.mp4": (lambda path: path.write_bytes(b""), "is empty"),
    "phone.jpg": (
        lambda path: path.write_bytes(b"\0\0\0\x18ftypheic" + bytes(400)),
        "is HEIC, which is not read here; pip install pillow-heif, or save it as JPEG",
    ),
    "folder.png": (lambda path: path.mkdir(), "is a folder; name the photo or video in it"),
    "missing.png": (lambda path: None, "no such file"),
    "sound.mp4": (sound_only, "holds no video stream"),
    "cut.mp4": (cut_off, "cannot be read as a photo or a video"),
    "wall.png": (lambda path: Image.fromarray(GREY).save(path), "no face was found; take a"),
    "wall.mp4": (lambda path: write_film(path, [GREY] * 10), "no face was found; take a"),
    "wall.gif": (lambda path: animated(path, GREY), "no face was found; take a"),
    "long.png": (
        lambda path: Image.new("RGB", (5000, 200)).save(path),
        "is 1280x51 pixels once it is scaled down; an avatar has at least 128",
    ),
    "tiny.gif": (
        lambda path: animated(path, face()[:100, 100:220]),
        "is 120x100 pixels; an avatar has at least 128",
    ),
    "half.png": (
        lambda path: Image.fromarray(face()[120:]).save(path),
        "the head is tilted too far, or hardly in the picture; turn the picture until",
    ),
    "tiny.png": (
        lambda path: Image.fromarray(face()[:100, 100:220]).save(path),
        "is 120x100 pixels; an avatar has at least 128",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_unfit_files_are_one_sentence(tmp_path: Path, name: str) -> None:
    """It names the file, once; and nothing is left in the directory. What is in the file never
    becomes an avatar; other faults may pass."""
    make, message = BAD[name]
    make(tmp_path / name)
    with pytest.raises(AvatarError) as caught:
        create(tmp_path / name)
    text = str(caught.value)
    assert text.startswith(str(tmp_path / name)) and text.count(name) == 1
    assert message in text and "\n" not in text
    may_pass = name in ("phone.jpg", "folder.png", "missing.png")
    assert isinstance(caught.value, UnfitFileError) is not may_pass
    assert not [path for path in tmp_path.glob("avatars/*")]


def test_a_fault_of_the_system_is_not_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too many open files, for one, pass: the file may be tried again."""

    def fails(path: Path, **options: object) -> None:
        raise VideoError(f"{path}: cannot be read") from OSError(errno.EMFILE, "Too many files")

    path = write_film(tmp_path / "a.mp4", [face()] * 4)
    monkeypatch.setattr(source_module, "open_video", fails)
    with pytest.raises(AvatarError, match="cannot be read") as caught:
        create(path)
    assert not isinstance(caught.value, UnfitFileError)


class WideOnly(DrawnFaceDetector):
    """Sees nothing in a picture that stands on its side."""

    def find(self, picture: np.ndarray, /) -> list[Face]:
        return super().find(picture) if picture.shape[1] > picture.shape[0] else []


@pytest.mark.parametrize("quarters", [1, 3])
def test_a_photo_that_lies_on_its_side_is_not_without_a_face(tmp_path: Path, quarters: int) -> None:
    """The error says to turn it."""
    source = tmp_path / "anna.png"
    Image.fromarray(np.rot90(face(), quarters)).save(source)
    with pytest.raises(AvatarError, match="turn the picture upright"):
        create_avatar(source, tmp_path / "avatars", WideOnly(), AvatarRequest())


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    """The command that changes it is in the message."""
    path = tmp_path / "a.png"
    Image.fromarray(face()).save(path)
    path.chmod(0)
    with pytest.raises(AvatarError, match="may not be read; .*chmod"):
        create(path)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (SourceLimits(file_bytes=500), "over 0.0005 MB"),
        (SourceLimits(seconds=1.0), r"is longer than 1 s; cut it"),
    ],
)
def test_limits_are_the_servers_to_choose(
    tmp_path: Path, limits: SourceLimits, message: str
) -> None:
    """Of the file's size and the video's length."""
    path = write_film(tmp_path / "a.mp4", [face()] * 40)
    with pytest.raises(AvatarError, match=message):
        create(path, limits)


# -- what can --


def test_of_several_faces_the_largest(tmp_path: Path) -> None:
    """And it is said; another can be asked for, and one that is not there is an error."""
    path = write_film(tmp_path / "two.mp4", [two_faces()] * 8)
    for number, x in ((None, 100), (1, 100), (2, 250)):
        made = create(path, face=number)
        points = read_landmarks(made.folder, read_avatar_file(made.folder))
        assert abs(points[:, 30, 0].mean() - x) < 5
        taken = "the largest was" if number is None else f"number {number} was"
        other = 1 if number == 2 else 2
        assert f"2 faces: {taken} taken; --face {other} takes the other." in made.notes
    with pytest.raises(AvatarError, match=r"there are 2 faces in it, so --face 3 is not there"):
        create(path, face=3)


class Forgetful(DrawnFaceDetector):
    """Finds faces in the first few pictures, and then none any more."""

    def find(self, picture: np.ndarray, /) -> list[Face]:
        return super().find(picture) if self.pictures < 2 else []


def test_a_face_that_is_lost_is_not_a_wrong_number(tmp_path: Path) -> None:
    """Who asked for no number of a face is not told of one."""
    path = write_film(tmp_path / "a.mp4", [face()] * 8)
    with pytest.raises(AvatarError, match=r"a\.mp4: no face was found; take a"):
        create_avatar(path, tmp_path / "avatars", Forgetful(), AvatarRequest())


def test_a_face_that_is_hidden_for_a_moment(tmp_path: Path) -> None:
    """Its points lie between those before and after; the pictures are the video's own."""
    pictures = [GREY if 20 <= i < 25 else face(140 + i) for i in range(50)]
    made = create(write_film(tmp_path / "a.mp4", pictures))
    points = read_landmarks(made.folder, read_avatar_file(made.folder))
    np.testing.assert_allclose(points[:, 30, 0], 140 + np.arange(50), atol=1.5)
    _, frames = read_video(made.folder / "idle.mp4")
    assert np.abs(frames[22].astype(int) - GREY).max() < 6


def test_a_face_that_goes_away(tmp_path: Path) -> None:
    """The avatar ends before, with no frame that has no face."""
    pictures = [face(140 + i) if i < 40 else GREY for i in range(90)]
    made = create(write_film(tmp_path / "a.mp4", pictures))
    assert 36 <= read_avatar_file(made.folder).frame_count <= 40


def test_the_calm_part_of_a_long_video(tmp_path: Path) -> None:
    """Six seconds of rest between talking; they are named in a note."""
    pictures = [
        face(opening=0.0 if 80 <= i < 140 else 0.06 + 0.06 * np.sin(2 * i)) for i in range(220)
    ]
    made = create(write_film(tmp_path / "a.mp4", pictures, fps=10))
    avatar = read_avatar_file(made.folder)
    assert 5 <= avatar.frame_count / avatar.fps <= 6.5
    note = made.notes[0]
    assert note.startswith("Took 0:0") and "of 0:22.0: the mouth and the head are calmest" in note


def test_what_to_expect_of_a_small_open_mouth(tmp_path: Path) -> None:
    """It is made, and both are said."""
    path = tmp_path / "a.png"
    Image.fromarray(face(size=70, opening=0.12)).save(path)
    notes = " ".join(create(path).notes)
    assert "pixels wide and will look soft" in notes and "The mouth is open" in notes


def test_what_to_expect_of_a_smile(tmp_path: Path) -> None:
    """Teeth between the lips are an open mouth; lips that touch are not."""
    for opening, is_open in ((0.02, True), (0.0, False)):
        Image.fromarray(face(size=110, opening=opening)).save(tmp_path / "a.png")
        assert any("mouth is open" in note for note in create(tmp_path / "a.png").notes) == is_open


def test_what_to_expect_of_a_covered_mouth() -> None:
    """A mask over the mouth is said; dark and noisy pictures have lips."""
    noise = np.random.default_rng(5).normal(0, 3, (H, W, 1))
    seen = face(size=110)
    masked = seen.copy()
    middle = face_landmarks((W / 2, 115), 110)[48:68].mean(axis=0).astype(int)
    masked[middle[1] - 22 : middle[1] + 22, middle[0] - 45 : middle[0] + 45] = (200, 205, 210)
    pictures = {"seen": seen, "dark": seen * 0.35, "masked": masked}
    for name, picture in pictures.items():
        found = Face(face_landmarks((W / 2, 115), 110), 0.9)
        note = covered_note(np.clip(picture + noise, 0, 255).astype(np.uint8), found)
        assert bool(note) == (name == "masked")


def test_a_face_at_the_border(tmp_path: Path) -> None:
    """It is made, the eyes do not blink where there is no room above them, and it is said."""
    Image.fromarray(face()[:, W // 2 - 40 :]).save(tmp_path / "a.png")
    [note] = [one for one in create(tmp_path / "a.png").notes if "out of the picture" in one]
    assert note.startswith("The face reaches out of the picture")


def test_an_animated_picture_is_a_video(tmp_path: Path) -> None:
    """A GIF of a person."""
    frames = [Image.fromarray(face(150 + i)) for i in range(12)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    avatar = read_avatar_file(create(tmp_path / "a.gif").folder)
    assert (avatar.fps, avatar.frame_count) == (10, 12)


@pytest.mark.parametrize(("count", "frames"), [(1, 150), (3, 3)])
def test_a_video_of_one_frame_is_a_picture(tmp_path: Path, count: int, frames: int) -> None:
    """A still that only a decoder of videos reads; three frames are a short video."""
    made = create(write_film(tmp_path / "a.mp4", [two_faces()] * count))
    assert read_avatar_file(made.folder).frame_count == frames
    assert len([note for note in made.notes if "2 faces" in note]) == 1


def test_a_large_picture_is_scaled(tmp_path: Path) -> None:
    """To 1280 pixels."""
    Image.new("RGB", (2560, 2048)).save(tmp_path / "a.jpg")
    assert Source(tmp_path / "a.jpg", SourceLimits()).still().shape == (1024, 1280, 3)
