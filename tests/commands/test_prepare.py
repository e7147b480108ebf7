"""The prepare command: an avatar of any photo or video, whole or not at all."""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from tests.avatars.drawn_avatar import cache_files, make_avatar
from tests.creation.drawn import DrawnFaceDetector, drawn, write_film
from tests.drawn_faces import draw_face, face_landmarks
from wsavatar.avatars.format import AvatarError, read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.commands import prepare
from wsavatar.commands.prepare import read_landmarks_file
from wsavatar.config import AvatarSettings, ModelSettings, Settings
from wsavatar.errors import WsavatarError
from wsavatar.faces.musetalk.random import write_random_model

W, H = 160, 128


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model")
    write_random_model(directory, size="mini")
    return directory


@pytest.fixture
def settings(tmp_path: Path, mini: Path) -> Settings:
    return Settings(
        model=ModelSettings(path=str(mini), devices=("cpu",), cpu_backend="torch"),
        avatars=AvatarSettings(directory=tmp_path / "avatars", cache=tmp_path / "cache"),
    )


def run(settings: Settings, *words: object) -> int:
    parser = argparse.ArgumentParser()
    prepare.add_arguments(parser)
    return prepare.run(parser.parse_args([str(word) for word in words]), settings)


def film(
    path: Path,
    times_ms: list[int],
    *,
    size: float = 70,
    pixel_aspect: int = 1,
    width: int = W,
) -> tuple[Path, Path]:
    """A face that moves to the right by 2 pixels a frame, and its landmarks in decoded pixels."""
    points = [face_landmarks((W / 2 - 20 + 2 * i, H * 0.45), size) for i in range(len(times_ms))]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=25, options={"crf": "8"})
        stream.width, stream.height, stream.pix_fmt = width, H, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect)
        for time_ms, face in zip(times_ms, points, strict=True):
            frame = av.VideoFrame.from_ndarray(draw_face(width, H, face), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    np.save(path.with_suffix(".npy"), np.array(points))
    return path, path.with_suffix(".npy")


def prepared(home: Path) -> list[str]:
    """The avatars of which the cache has a face."""
    return sorted(path.name.partition(".")[0] for path in cache_files(home))


def words(video: Path, landmarks: Path, *more: str) -> tuple[object, ...]:
    return (video, "--landmarks", landmarks, "--id", "eve", *more)


def test_landmarks_follow_the_pictures_of_a_varying_rate(
    tmp_path: Path, settings: Settings
) -> None:
    """One landmark a decoded frame; each picture of the avatar has those of its own frame."""
    times = [*range(0, 320, 40), *range(320, 960, 80)]
    assert run(settings, *words(*film(tmp_path / "a.mkv", times))) == 0
    folder = tmp_path / "avatars" / "eve"
    avatar = read_avatar_file(folder)
    points = read_landmarks(folder, avatar)
    assert avatar.frame_count / avatar.fps == pytest.approx(0.96, abs=0.08)
    for i, face in enumerate(points):
        number = round((float(face[30, 0]) - (W / 2 - 20)) / 2)
        assert abs(times[number] - 1000 * i / avatar.fps) <= 41


def test_landmarks_follow_the_pictures_of_wide_pixels(tmp_path: Path, settings: Settings) -> None:
    """Landmarks count in decoded pixels; the avatar has square ones."""
    video, landmarks = film(tmp_path / "a.mp4", [0, 40, 80], pixel_aspect=2)
    assert run(settings, *words(video, landmarks)) == 0
    folder = tmp_path / "avatars" / "eve"
    avatar = read_avatar_file(folder)
    assert (avatar.width, avatar.height) == (2 * W, H)
    wanted = np.load(landmarks) * (2, 1)
    np.testing.assert_allclose(read_landmarks(folder, avatar), wanted, atol=0.06)


def test_a_slow_video_is_shown_at_a_rate_that_avatars_have(
    tmp_path: Path, settings: Settings
) -> None:
    """Two frames a second become five, each shown longer."""
    assert run(settings, *words(*film(tmp_path / "a.mp4", [0, 500, 1000, 1500]))) == 0
    avatar = read_avatar_file(tmp_path / "avatars" / "eve")
    assert (avatar.fps, avatar.frame_count) == (5, 10)


@pytest.mark.parametrize("mistake", ["tiny face", "broken video", "no model"])
def test_a_failed_preparation_leaves_nothing(
    tmp_path: Path, settings: Settings, mistake: str
) -> None:
    """No folder that would then be listed as an avatar; the one to replace stays as it was."""
    good = film(tmp_path / "good.mp4", [0, 40, 80])
    video, landmarks = film(
        tmp_path / "bad.mp4", [0, 40, 80], size=24 if mistake == "tiny face" else 70
    )
    if mistake == "broken video":
        video.write_bytes(video.read_bytes()[:900])
    failing = settings
    if mistake == "no model":
        failing = settings.model_copy(update={"model": ModelSettings(path=str(tmp_path))})
    with pytest.raises(WsavatarError):
        run(failing, *words(video, landmarks))
    assert not (tmp_path / "avatars").exists() or not list((tmp_path / "avatars").iterdir())
    run(settings, *words(*good))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "avatars" / "eve").iterdir()}
    with pytest.raises(WsavatarError):
        run(failing, *words(video, landmarks, "--force"))
    assert [path.name for path in (tmp_path / "avatars").iterdir()] == ["eve"]
    now = {path.name: path.read_bytes() for path in (tmp_path / "avatars" / "eve").iterdir()}
    assert now == kept
    assert run(settings, *words(*good, "--force")) == 0


def test_mistakes_are_errors_before_the_work(tmp_path: Path, settings: Settings) -> None:
    """An id in use, a missing word and landmarks of another picture are errors before encoding."""
    video, landmarks = film(tmp_path / "a.mp4", [0, 40, 80])
    with pytest.raises(AvatarError, match="name its photo or video"):
        run(settings, "--landmarks", landmarks)
    with pytest.raises(AvatarError, match="go with one file"):
        run(settings, video, video, "--id", "eve")
    with pytest.raises(AvatarError, match="id '': small letters"):  # of a variable that is not set
        run(settings, video, "--id", "")
    with pytest.raises(AvatarError, match="id 'Eve Smith'"):
        run(settings, video, "--landmarks", landmarks, "--id", "Eve Smith")
    np.save(landmarks, np.load(landmarks) / (W, H))
    with pytest.raises(AvatarError, match=r"--landmarks: .*must be pixels"):
        run(settings, *words(video, landmarks))
    with pytest.raises(AvatarError, match=r"typo\.mp4: no such file"):
        run(settings, tmp_path / "typo.mp4")
    assert not list(tmp_path.glob("avatars/*"))


def test_landmarks_of_the_first_frames_cut_the_video(tmp_path: Path, settings: Settings) -> None:
    """As much of the video is taken as there are points for."""
    video, landmarks = film(tmp_path / "a.mp4", [0, 40, 80, 120, 160, 200])
    np.save(landmarks, np.load(landmarks)[:4])
    assert run(settings, *words(video, landmarks, "--name", "Eve")) == 0
    avatar = read_avatar_file(tmp_path / "avatars" / "eve")
    assert (avatar.name, avatar.frame_count, avatar.fps) == ("Eve", 4, 25.0)
    assert prepared(tmp_path) == ["eve"]
    with pytest.raises(AvatarError, match="exists"):
        run(settings, *words(video, landmarks))


def test_an_unreadable_video_is_not_said_to_be_unwritable(
    tmp_path: Path, settings: Settings
) -> None:
    """The error is of the file that has the fault, and names it once."""
    video, landmarks = film(tmp_path / "a.h264", list(range(0, 320, 40)))
    larger, _ = film(tmp_path / "b.h264", list(range(0, 320, 40)), width=2 * W)
    video.write_bytes(video.read_bytes() + larger.read_bytes())
    np.save(landmarks, np.concatenate([np.load(landmarks)] * 2))
    with pytest.raises(AvatarError) as caught:
        run(settings, *words(video, landmarks))
    said = f"{video}: its picture size changes from 160x128 to 320x128; cut it there"
    assert str(caught.value) == said


def test_a_landmarks_file_is_never_unpickled(tmp_path: Path) -> None:
    """A .npy of objects, a lying header, another shape or another kind of file is refused."""
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros((3, 2)))
    np.save(tmp_path / "complex.npy", np.zeros((3, 68, 2), complex))
    np.save(tmp_path / "named.npy", np.zeros((3, 68, 2), [("x", "f4")]))
    np.savez(tmp_path / "archive", np.zeros((3, 68, 2)))
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    good = tmp_path / "good.npy"
    np.save(good, np.zeros((3, 68, 2)))
    (tmp_path / "short.npy").write_bytes(good.read_bytes()[:-100])
    for name in ("objects", "flat", "complex", "named", "archive", "short", "missing"):
        with pytest.raises(AvatarError, match=name):
            read_landmarks_file(tmp_path / f"{name}.npy")
    assert read_landmarks_file(good).shape == (3, 68, 2)


def test_without_files_every_cache_is_filled(
    tmp_path: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """All avatars are ready for the next start; one that cannot be is named, and counts."""
    for name in ("ada", "bob"):
        make_avatar(tmp_path / "avatars", name)
    assert run(settings) == 0
    assert prepared(tmp_path) == ["ada", "bob"]
    (tmp_path / "avatars" / "bob" / "idle.mp4").write_bytes(b"broken")
    assert run(settings) == 1
    shown = capsys.readouterr()
    assert "1 of 2 avatars ready" in shown.out
    assert "idle.mp4" in shown.err


# -- with the detector --


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> DrawnFaceDetector:
    found = DrawnFaceDetector()
    monkeypatch.setattr("wsavatar.commands.prepare.load_landmarks", lambda settings: found)
    return found


def clip(path: Path, *, size: float = 70) -> Path:
    """A short video of a drawn face."""
    return write_film(path, [drawn(W, H, (80, 55), size)] * 4)


def test_one_file_becomes_an_avatar_that_is_ready(
    tmp_path: Path,
    settings: Settings,
    detector: DrawnFaceDetector,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Named after the file, prepared for the model; what to expect is said. A log gets no bars."""
    assert run(settings, clip(tmp_path / "Eve Smith.mp4"), "--extra-margin", "4") == 0
    avatar = read_avatar_file(tmp_path / "avatars" / "eve-smith")
    assert (avatar.name, avatar.extra_margin, avatar.frame_count) == ("Eve Smith", 4, 4)
    printed, logged = capsys.readouterr()
    assert not logged
    assert printed.startswith("eve-smith is ready: 160x128, 0.2 s, made in")
    assert "\n  The mouth is only 27 pixels wide" in printed
    assert len(list((tmp_path / "cache").rglob("eve-smith.*.safetensors"))) == 1


def test_several_files_and_one_that_cannot_be(
    tmp_path: Path,
    settings: Settings,
    detector: DrawnFaceDetector,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The others are made, files of one name get ids of their own, and the code is 1."""
    (tmp_path / "more").mkdir()
    bad = tmp_path / "notes.jpg"
    bad.write_text("Dear diary,")
    assert run(settings, clip(tmp_path / "a.mp4"), bad, clip(tmp_path / "more" / "a.mp4")) == 1
    assert sorted(path.name for path in (tmp_path / "avatars").iterdir()) == ["a", "a-2"]
    printed = capsys.readouterr()
    assert f"error: {bad}: cannot be read" in printed.err
    assert "2 of 3 avatars are ready" in printed.out


def test_force_makes_the_same_avatar_again(
    tmp_path: Path, settings: Settings, detector: DrawnFaceDetector
) -> None:
    """Of a better video; without it a second avatar is made."""
    run(settings, clip(tmp_path / "a.mp4"))
    run(settings, clip(tmp_path / "a.mp4", size=80), "--force")
    assert [path.name for path in (tmp_path / "avatars").iterdir()] == ["a"]
    run(settings, tmp_path / "a.mp4")
    assert sorted(path.name for path in (tmp_path / "avatars").iterdir()) == ["a", "a-2"]


def test_a_model_that_refuses_leaves_nothing(
    tmp_path: Path, settings: Settings, detector: DrawnFaceDetector
) -> None:
    """A face too small for the model's crop: no folder is left."""
    with pytest.raises(AvatarError, match="the face's crop is"):
        run(settings, clip(tmp_path / "a.mp4", size=22))
    assert not list((tmp_path / "avatars").iterdir())
