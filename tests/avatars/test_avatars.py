"""Avatars: a folder is trusted only as far as it was checked, and prepared only once."""

from __future__ import annotations

import argparse
import errno
import json
import logging
import os
import resource
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from tests.drawn_faces import face_video
from wsavatar.avatars.avatar import cycle_index
from wsavatar.avatars.cache import FaceCache
from wsavatar.avatars.format import (
    AvatarError,
    AvatarFile,
    read_avatar_file,
    read_landmarks,
    write_avatar,
)
from wsavatar.avatars.library import AvatarLibrary
from wsavatar.avatars.store import AvatarStore
from wsavatar.commands import prepare as prepare_command
from wsavatar.commands.prepare import read_landmarks_file
from wsavatar.config import AvatarSettings, Settings
from wsavatar.faces.avatar_face import CELL, JAW_STEPS, AvatarFace, in_cells
from wsavatar.faces.base import Progress
from wsavatar.faces.musetalk.prepare import prepare_face, prepared_key, restore_face
from wsavatar.faces.musetalk.spec import CropMargin, ModelSpec
from wsavatar.faces.musetalk.tuning import Tuning, read_tuning
from wsavatar.media.video import read_video
from wsavatar.media.video_pictures import GROUP_FRAMES, VideoPictures
from wsavatar.media.video_writer import VideoWriter
from wsavatar.resources import cache_directory
from wsavatar.speech.chunker import FeatureGrid

W, H, COUNT = 160, 128, 6


@dataclass
class CountingModel:
    """Encodes a crop as the mean of its blocks, and counts: all a store asks of a model."""

    fingerprint: str = "a"
    frames_seen: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def spec(self) -> ModelSpec:
        return ModelSpec(
            version="v15",
            crop_size=64,
            latent_channels=3,
            latent_size=8,
            layers=2,
            dim=4,
            grid=FeatureGrid(),
            extra_margin=CropMargin(pixels=10),
            fingerprint=self.fingerprint,
        )

    def prepared_key(self, *, detail: bool) -> str:
        return prepared_key(self.spec, detail=detail)

    def prepare(
        self,
        avatar: AvatarFile,
        pictures: Sequence[np.ndarray],
        landmarks: np.ndarray,
        progress: Progress | None = None,
        *,
        detail: bool,
        tuning: Tuning | None = None,
    ) -> AvatarFace:
        with self.lock:
            self.frames_seen += len(pictures)
        return prepare_face(
            avatar, pictures, landmarks, self, progress, detail=detail, tuning=tuning
        )

    def read_tuning(self, data: bytes) -> Tuning:
        return read_tuning(data, self.spec)

    def restore(self, avatar: AvatarFile, arrays: Mapping[str, np.ndarray]) -> AvatarFace:
        return restore_face(avatar, arrays, self.spec)

    def encode_crops(self, crops: np.ndarray) -> np.ndarray:
        blocks = crops.reshape(len(crops), 8, 8, 8, 8, 3).mean(axis=(2, 4))
        latents = np.moveaxis(blocks, 3, 1) / 255
        return np.concatenate([latents, latents], axis=1).astype(np.float16)

    def redraw(self, latents: np.ndarray) -> np.ndarray:
        """A coarse VAE: what is left of a crop is the means of its 8x8 squares."""
        blocks = np.moveaxis(latents[:, 3:].astype(np.float32), 1, 3) * 255
        return blocks.round().astype(np.uint8).repeat(8, axis=1).repeat(8, axis=2)


def make_avatar(directory: Path, avatar_id: str = "ada", name: str = "Ada") -> Path:
    frames, landmarks = face_video(W, H, COUNT, size=70)
    return write_avatar(directory, avatar_id, name, frames, 25, landmarks, "drawn", "MIT")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One written avatar, to copy from: encoding video is the slow part."""
    return make_avatar(tmp_path_factory.mktemp("drawn"))


@pytest.fixture
def home(tmp_path: Path, drawn: Path) -> Path:
    """A directory of avatars with one of them, ``ada``, in it."""
    copy_avatar(drawn, tmp_path / "avatars" / "ada")
    return tmp_path


def copy_avatar(source: Path, target: Path) -> None:
    target.mkdir(parents=True)
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    edit(target, id=target.name, name=target.name.title())


def edit(folder: Path, **changes: object) -> None:
    path = folder / "avatar.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes))


def store_in(home: Path, model: Any = None, **options: Any) -> AvatarStore:
    settings = AvatarSettings(directory=home / "avatars", cache=home / "cache")
    return AvatarStore(settings, model or CountingModel(), **options)


def cache_files(home: Path) -> list[Path]:
    return sorted((home / "cache").rglob("*.safetensors"))


# -- the folder -----------------------------------------------------------------------------------


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


# -- the store ------------------------------------------------------------------------------------


def test_the_list_shows_fit_avatars_and_reports_the_others_once(
    home: Path, drawn: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad folder does not hide others; its fault is logged once, not at every request."""
    copy_avatar(drawn, home / "avatars" / "bob")
    copy_avatar(drawn, home / "avatars" / "zoe")
    edit(home / "avatars" / "bob", fps=1000)
    (home / "avatars" / ".building").mkdir()
    store = store_in(home)
    with caplog.at_level(logging.WARNING):
        lists = [[info.id for info in store.list()] for _ in range(3)]
    assert lists == [["ada", "zoe"]] * 3
    assert sum("bob" in record.message for record in caplog.records) == 1
    assert store.default_id == "ada"


def test_a_folder_that_may_not_be_looked_into_does_not_hide_others(
    home: Path, drawn: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another user's avatar is left out, and its fault is logged."""
    copy_avatar(drawn, home / "avatars" / "bob")
    stat = Path.stat

    def forbidden(self: Path, **options: bool) -> os.stat_result:
        if self.parent.name == "bob":  # as the system says it to whom it does not belong
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", forbidden)
    assert [info.id for info in store_in(home).list()] == ["ada"]
    assert "bob/avatar.json: cannot be read (Permission denied)" in caplog.text


@pytest.mark.parametrize("avatar_id", ["bob", "", "../ada", "ada\n", "a" * 500, "ada/../ada", "."])
def test_an_unknown_avatar_names_the_known_ones(home: Path, avatar_id: str) -> None:
    """Whatever a client sends as an id becomes an error, never a path."""
    store = store_in(home)
    for ask in (store.get, store.idle_video, store.poster):
        with pytest.raises(AvatarError, match="known: ada"):
            ask(avatar_id)


def test_a_prepared_avatar_fits_its_contract(home: Path) -> None:
    """Shapes, types and boxes are as documented in `AvatarFace`, and arrays are read-only."""
    avatar = store_in(home).get("ada")
    face = avatar.face
    assert np.stack(avatar.pictures).shape == (COUNT, H, W, 3)
    assert (face.inputs.shape, face.inputs.dtype) == ((COUNT, 6, 8, 8), np.float16)
    for i, mask in enumerate(face.masks):
        left, top, right, bottom = face.paste_boxes[i]
        assert (mask.dtype, mask.shape) == (np.uint8, (bottom - top, right - left))
    x, y, w, h = avatar.region
    assert 0 <= x < x + w <= W and 0 <= y < y + h <= H
    assert face.jaw is not None
    arrays = (avatar.pictures[0], face.inputs, face.crop_boxes, face.masks[0])
    for array in (*arrays, *face.jaw.arrays().values()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_many_threads_prepare_once(home: Path) -> None:
    """Sessions that start together share one preparation and one avatar in memory."""
    model = CountingModel()
    store = store_in(home, model)
    with ThreadPoolExecutor(8) as pool:
        avatars = list(pool.map(store.get, ["ada"] * 8))
    assert model.frames_seen == COUNT
    assert all(avatar is avatars[0] for avatar in avatars)


def test_how_the_face_moves_with_its_jaw_is_kept(home: Path) -> None:
    """At rest the jaw looks as the model draws the crop; the disk cache gives the same again, and
    whoever does not want it has none."""
    avatar = store_in(home).get("ada")
    face, again = avatar.face, store_in(home).get("ada").face
    assert face.jaw is not None and again.jaw is not None
    redrawn = CountingModel().redraw(face.inputs[3:4])[0]
    rows = face.jaw.away.shape[2] * CELL
    assert (face.jaw.looks[3, JAW_STEPS.index(0)] == in_cells(redrawn[-rows:])).all()
    for kept, restored in zip(face.jaw.arrays().values(), again.jaw.arrays().values(), strict=True):
        np.testing.assert_array_equal(kept, restored)
    plain = AvatarSettings(directory=home / "avatars", cache=home / "cache", detail=False)
    assert AvatarStore(plain, CountingModel()).get("ada").face.jaw is None


def test_pictures_of_a_large_avatar_are_decoded_when_wanted(home: Path) -> None:
    """Above the limit its pictures, and what a model prepares of them, are the same bit for bit."""
    settings = AvatarSettings(directory=home / "avatars", cache=home / "other", decoded_mb=0)
    small, large = store_in(home).get("ada"), AvatarStore(settings, CountingModel()).get("ada")
    assert isinstance(large.pictures, VideoPictures)
    assert large.region == small.region and large.frame_count == COUNT
    np.testing.assert_array_equal(np.stack(large.pictures), np.stack(small.pictures))
    for name, array in small.face.arrays().items():
        np.testing.assert_array_equal(array, large.face.arrays()[name])


def test_a_large_video_with_few_key_frames_is_written_anew(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, beside the prepared avatars; its pictures are 50 dB from the video's or nearer. It goes
    when the avatar goes, or has another video."""
    avatars = home / "avatars"
    settings = AvatarSettings(directory=avatars, cache=home / "cache", decoded_mb=0)
    plain = np.stack(store_in(home).get("ada").pictures)
    kept = avatars / "ada" / "idle.mp4"
    with VideoWriter(kept, width=W, height=H, fps=Fraction(25), crf=0) as video:
        for number in range(COUNT):
            video.write(plain[number])
    with patch("wsavatar.media.video_pictures._LONGEST_GROUP", GROUP_FRAMES):
        with caplog.at_level(logging.WARNING):
            avatar = AvatarStore(settings, CountingModel()).get("ada")
        assert "written anew, once" in caplog.text
        caplog.clear()
        AvatarStore(settings, CountingModel()).get("ada")
        assert not caplog.text
        edit(avatars / "ada", frame_count=COUNT - 1)
        with pytest.raises(AvatarError, match=f"{COUNT} frames at 25.0/s; avatar.json says"):
            AvatarLibrary(settings).idle_pictures("ada")
    assert isinstance(avatar.pictures, VideoPictures)
    _, frames = read_video(kept)
    for one, true in zip(avatar.pictures, frames, strict=True):
        error = np.mean((one.astype(np.float32) - true) ** 2)
        assert 10 * np.log10(255**2 / error) > 50
    copies = list((home / "cache" / "avatars").glob("*.mp4"))
    assert [path.name.partition(".")[0] for path in copies] == ["ada"]
    FaceCache(home / "cache").forget("ada")
    assert not copies[0].exists()


def test_memory_holds_what_was_used_last(home: Path, drawn: Path) -> None:
    """Beyond its budget the store forgets the least recently used, and can load it again."""
    for name in ("bob", "zoe"):
        copy_avatar(drawn, home / "avatars" / name)
    one = store_in(home).get("ada")
    size = one.nbytes
    store = store_in(home, memory_bytes=int(2.5 * size))
    ada, bob = store.get("ada"), store.get("bob")
    assert store.get("ada") is ada
    store.get("zoe")
    assert store.get("ada") is ada
    assert store.get("bob") is not bob


# -- the disk cache -------------------------------------------------------------------------------


def test_the_second_start_computes_nothing(home: Path) -> None:
    """What was prepared once is read back bit for bit."""
    first = store_in(home).get("ada")
    model = CountingModel()
    second = store_in(home, model).get("ada")
    assert model.frames_seen == 0
    np.testing.assert_array_equal(np.stack(first.pictures), np.stack(second.pictures))
    kept, read = first.face.arrays(), second.face.arrays()
    assert list(kept) == list(read)
    for name, array in kept.items():
        np.testing.assert_array_equal(array, read[name])
    assert first.region == second.region


def test_another_model_or_an_edited_avatar_is_prepared_anew(home: Path) -> None:
    """Nothing stale is used: the key holds the model and all that the pictures depend on."""
    store_in(home).get("ada")
    other = CountingModel(fingerprint="b")
    store_in(home, other).get("ada")
    edit(home / "avatars" / "ada", bbox_shift=3)
    edited = CountingModel()
    store_in(home, edited).get("ada")
    assert (other.frames_seen, edited.frames_seen) == (COUNT, COUNT)
    assert len(cache_files(home)) == 3


def test_an_avatar_that_speaks_otherwise_is_not_prepared_anew(home: Path) -> None:
    """Its words are no part of its pictures: they may be edited, and are read at each start."""
    store_in(home).get("ada")
    words = {"voice": "en-GB-Alice", "language": "en-GB", "greeting": "Hello!"}
    edit(home / "avatars" / "ada", **words, instructions="Be brief.", license="CC0")
    model = CountingModel()
    again = store_in(home, model).get("ada")
    assert model.frames_seen == 0 and len(cache_files(home)) == 1
    assert (again.voice, again.language) == ("en-GB-Alice", "en-GB")
    assert (again.greeting, again.instructions) == ("Hello!", "Be brief.")


def test_old_caches_do_not_pile_up(home: Path) -> None:
    """Of one avatar the newest four are kept."""
    for number in range(7):
        store_in(home, CountingModel(fingerprint=str(number))).get("ada")
    assert len(cache_files(home)) == 4


def damage_cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def damage_bit(data: bytes) -> bytes:
    middle = len(data) * 3 // 4
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


def damage_empty(_: bytes) -> bytes:
    return b""


def damage_foreign(_: bytes) -> bytes:
    import pickle

    return pickle.dumps({"latents": 1})


@pytest.mark.parametrize("damage", [damage_cut, damage_bit, damage_empty, damage_foreign])
def test_a_damaged_cache_is_rebuilt_with_a_warning(
    home: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Cut short, one bit flipped, empty or foreign: never used, reported, replaced."""
    good = store_in(home).get("ada")
    (path,) = cache_files(home)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    model = CountingModel()
    with caplog.at_level(logging.WARNING):
        again = store_in(home, model).get("ada")
    assert model.frames_seen == COUNT
    assert any("damaged" in record.message for record in caplog.records)
    np.testing.assert_array_equal(good.face.inputs, again.face.inputs)
    assert path.read_bytes() == whole


def test_a_cache_under_a_wrong_name_is_not_believed(home: Path, drawn: Path) -> None:
    """A file moved to another key's name is for something else, and is ignored."""
    store_in(home).get("ada")
    (path,) = cache_files(home)
    spec = CountingModel().spec
    avatar = read_avatar_file(home / "avatars" / "ada")
    cache = FaceCache(home / "cache")
    key = path.name.split(".")[1]
    restore = partial(restore_face, avatar, spec=spec)
    assert cache.load("ada", key, restore) is not None
    path.rename(cache.path("ada", "0" * 32))
    assert cache.load("ada", "0" * 32, restore) is None
    cache.path("ada", "0" * 32).rename(path)
    other = partial(restore_face, avatar, spec=replace(spec, latent_size=16))
    assert cache.load("ada", key, other) is None


def test_disk_errors_cost_time_only(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a writable cache the avatar is prepared all the same, and the log says so."""
    (home / "cache").write_text("a file where a directory should be")
    with caplog.at_level(logging.WARNING):
        assert store_in(home).get("ada").frame_count == COUNT
    assert any("cannot be written" in record.message for record in caplog.records)


def test_a_full_disk_costs_time_only(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What does not fit into the cache is prepared at each start; nothing half written stays."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))
    try:
        with caplog.at_level(logging.WARNING):
            assert store_in(home).get("ada").frame_count == COUNT
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert any("cannot be written" in record.message for record in caplog.records)
    assert not list((home / "cache" / "avatars").iterdir())


def test_concurrent_preparers_do_not_clash(home: Path) -> None:
    """Several processes' worth of stores at once: all succeed, one whole file remains."""
    with ThreadPoolExecutor(6) as pool:
        avatars = list(pool.map(lambda _: store_in(home).get("ada"), range(6)))
    assert all((avatar.face.inputs == avatars[0].face.inputs).all() for avatar in avatars)
    assert len(cache_files(home)) == 1
    assert [p.name for p in (home / "cache" / "avatars").iterdir()] == [cache_files(home)[0].name]
    model = CountingModel()
    store_in(home, model).get("ada")
    assert model.frames_seen == 0


def test_the_cache_is_in_the_xdg_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_CACHE_HOME where it is an absolute path, else ~/.cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_directory() == Path("/elsewhere/wsavatar")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == Path.home() / ".cache" / "wsavatar"


# -- the command ----------------------------------------------------------------------------------


def prepare(home: Path, *words: object) -> int:
    """Runs ``prepare`` as the command line would."""
    parser = argparse.ArgumentParser()
    prepare_command.add_arguments(parser)
    avatars = AvatarSettings(directory=home / "avatars", cache=home / "cache")
    return prepare_command.run(
        parser.parse_args([str(w) for w in words]), Settings(avatars=avatars)
    )


@pytest.fixture
def command_model(monkeypatch: pytest.MonkeyPatch) -> CountingModel:
    model = CountingModel()
    monkeypatch.setattr("wsavatar.commands.prepare.load_face", lambda settings: model)
    return model


def test_prepare_makes_an_avatar_of_a_video(
    home: Path, tmp_path: Path, command_model: CountingModel
) -> None:
    """A video and its landmarks become a folder the store can use, cut to the landmarks."""
    landmarks = face_video(W, H, COUNT, size=70)[1][:4]
    np.save(tmp_path / "points.npy", landmarks)
    video = home / "avatars" / "ada" / "idle.mp4"
    words = (video, "--landmarks", tmp_path / "points.npy", "--id", "eve")
    assert prepare(home, *words, "--name", "Eve") == 0
    assert command_model.frames_seen == 4
    eve = store_in(home).get("eve")
    assert (eve.name, eve.frame_count, eve.fps) == ("Eve", 4, 25.0)
    with pytest.raises(AvatarError, match="exists"):
        prepare(home, *words)


def test_prepare_without_arguments_fills_every_cache(
    home: Path, drawn: Path, command_model: CountingModel, capsys: pytest.CaptureFixture[str]
) -> None:
    """All avatars are ready for the next start; one that cannot be is named, and counts."""
    copy_avatar(drawn, home / "avatars" / "bob")
    assert prepare(home) == 0
    assert command_model.frames_seen == 2 * COUNT
    assert {path.name.split(".")[0] for path in cache_files(home)} == {"ada", "bob"}
    (home / "avatars" / "bob" / "idle.mp4").write_bytes(b"broken")
    assert prepare(home) == 1
    shown = capsys.readouterr()
    assert "1 of 2 avatars ready" in shown.out
    assert "idle.mp4" in shown.err


# -- the cycle ------------------------------------------------------------------------------------


def test_the_cycle_runs_back_and_forth_without_a_jump() -> None:
    """Neighbouring frames of the cycle are neighbours in the video, for ever, at any length."""
    for count in (1, 2, 5):
        played = [cycle_index(i, count) for i in range(40)]
        assert set(played) == set(range(count))
        assert all(abs(a - b) <= 1 for a, b in zip(played, played[1:], strict=False))
        if count > 1:  # no end is shown twice
            assert all(a != b for a, b in zip(played, played[1:], strict=False))
