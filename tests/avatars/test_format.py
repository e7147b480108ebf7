"""The avatar's folder is trusted only as far as it was checked, and written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.avatars.drawn_avatar import COUNT, H, W, edit, full_disk, make_avatar, store_in
from tests.drawn_faces import face_video
from wsavatar.avatars.format import AvatarError, read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.avatars.writing import rename_avatar, write_avatar
from wsavatar.media.video import read_video


def test_what_is_written_is_what_is_read(drawn: Path) -> None:
    """Facts come back exactly, landmarks to a tenth of a pixel, pictures nearly lossless."""
    avatar = read_avatar_file(drawn)
    facts = (avatar.id, avatar.name, avatar.width, avatar.height, avatar.fps, avatar.frame_count)
    assert facts == ("ada", "Ada", W, H, 25.0, COUNT)
    frames, landmarks = face_video(W, H, COUNT, size=70)
    assert np.abs(read_landmarks(drawn, avatar) - landmarks).max() <= 0.051
    info, pictures = read_video(drawn / avatar.video)
    assert (info.fps, len(pictures)) == (25, COUNT)
    error = pictures.astype(float) - np.stack(list(frames))
    assert np.sqrt((error**2).mean()) < 3
    assert np.abs(error.mean(axis=(0, 1, 2))).max() < 0.7  # no colour shift


def test_landmarks_may_stand_inside_avatar_json(home: Path) -> None:
    """One file fewer, where someone prefers it."""
    folder = home / "avatars" / "ada"
    edit(folder, landmarks=json.loads((folder / "landmarks.json").read_text("utf-8")))
    (folder / "landmarks.json").unlink()
    assert read_landmarks(folder, read_avatar_file(folder)).shape == (COUNT, 68, 2)
    assert store_in(home).get("ada").frame_count == COUNT


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"format": 2}, "format"),
        ({"id": "bob"}, "folder's name"),
        ({"id": "../ada"}, "id"),
        ({"video": "../../secret.mp4"}, "video"),
        ({"video": "/etc/passwd"}, "video"),
        ({"landmarks": "..\\x.json"}, "landmarks"),
        ({"width": 10**9}, "width"),
        ({"width": 161}, "width"),
        ({"frame_count": 10**6}, "frame_count"),
        ({"fps": 0}, "fps"),
        ({"name": ""}, "name"),
        ({"colour": "red"}, "colour"),
        ({"landmarks": [[[0, 0]] * 67]}, "landmarks"),
        ({"voice": "x" * 201}, "voice"),
        ({"language": "English"}, "language"),
        ({"language": "../en"}, "language"),
        ({"instructions": "x" * 10_001}, "instructions"),
        ({"greeting": "x" * 1001}, "greeting"),
        ({"greeting": ["Hello"]}, "greeting"),
    ],
)
def test_a_wrong_field_is_named(home: Path, changes: dict[str, object], says: str) -> None:
    """Limits hold and unknown keys fail; the message says which field of which file."""
    edit(home / "avatars" / "ada", **changes)
    with pytest.raises(AvatarError, match=r"avatar\.json.*" + says):
        read_avatar_file(home / "avatars" / "ada")


@pytest.mark.parametrize(
    "text",
    ["", "[1]", "{", '{"fps": NaN}', "[" * 100_000, "\ud800".encode("utf-8", "surrogatepass")],
)
def test_a_file_that_is_not_our_json_is_an_error(home: Path, text: str | bytes) -> None:
    """Garbage of any kind ends in AvatarError, never in a crash."""
    path = home / "avatars" / "ada" / "avatar.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(AvatarError):
        read_avatar_file(path.parent)


@pytest.mark.parametrize(
    "points",
    ["[]", "{}", "[[[1, 2]]]", "not json", "[[" + ",".join(["[NaN, 1]"] * 68) + "]]"],
)
def test_bad_landmarks_are_an_error(home: Path, points: str) -> None:
    """The wrong count, shape or number is named before anything is computed from it."""
    (home / "avatars" / "ada" / "landmarks.json").write_text(points)
    with pytest.raises(AvatarError, match="landmarks"):
        store_in(home).get("ada")


def test_a_link_may_not_lead_out_of_the_folder(home: Path) -> None:
    """A symbolic link in an avatar's folder gives no access to other files."""
    folder = home / "avatars" / "ada"
    secret = home / "secret.mp4"
    secret.write_bytes((folder / "idle.mp4").read_bytes())
    (folder / "idle.mp4").unlink()
    (folder / "idle.mp4").symlink_to(secret)
    with pytest.raises(AvatarError, match="outside the avatar"):
        store_in(home).idle_video("ada")


def test_a_video_that_is_not_as_described_is_an_error(home: Path) -> None:
    """avatar.json and the video must agree in size, count and rate."""
    edit(home / "avatars" / "ada", width=W + 2)
    with pytest.raises(AvatarError, match="is 160x128.*says 162x128"):
        store_in(home).get("ada")


def test_a_broken_video_is_an_error(home: Path) -> None:
    """A video cut short is reported with its name."""
    video = home / "avatars" / "ada" / "idle.mp4"
    video.write_bytes(video.read_bytes()[:900])
    with pytest.raises(AvatarError, match=r"idle\.mp4"):
        store_in(home).get("ada")


def test_writing_refuses_what_reading_would(tmp_path: Path) -> None:
    """A bad id, a wrong count or an existing avatar is refused, and nothing is left behind."""
    frames, landmarks = face_video(W, H, 3, size=70)
    with pytest.raises(AvatarError, match="id"):
        write_avatar(tmp_path, "../x", "X", frames, 25, landmarks)
    with pytest.raises(AvatarError, match="3 frames, but 2"):
        write_avatar(tmp_path, "x", "X", frames, 25, landmarks[:2])
    with pytest.raises(AvatarError, match="at least one"):
        write_avatar(tmp_path, "x", "X", [], 25, landmarks)
    assert list(tmp_path.iterdir()) == []
    make_avatar(tmp_path, "x")
    with pytest.raises(AvatarError, match="exists"):
        make_avatar(tmp_path, "x")


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """Of the file that the avatar would have, not of the hidden one in which it was written. An
    avatar that is to be replaced, or renamed, stays as it was."""
    with full_disk(), pytest.raises(AvatarError) as caught:
        make_avatar(tmp_path, "x")
    assert str(caught.value) == f"{tmp_path}/x/idle.mp4: cannot be written (File too large)"
    assert list(tmp_path.iterdir()) == []
    folder = make_avatar(tmp_path, "x")
    edit(folder, description="long " * 300)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    with full_disk(), pytest.raises(AvatarError, match="cannot be written"):
        rename_avatar(folder, "Eve")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
