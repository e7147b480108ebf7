"""What was prepared is kept on the disk, and never believed where it is damaged or of something
else."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.avatars.drawn_avatar import COUNT, CountingModel, cache_files, edit, full_disk, store_in
from wsavatar.avatars.cache import FaceCache
from wsavatar.avatars.format import read_avatar_file
from wsavatar.faces.musetalk.prepare import restore_face
from wsavatar.resources import cache_directory, cache_fault


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


def test_an_unusable_cache_costs_time_only(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a usable cache the avatar is prepared all the same. Nothing is said here: the start
    has said it."""
    (home / "cache").write_text("a file where a directory should be")
    with caplog.at_level(logging.WARNING):
        assert store_in(home).get("ada").frame_count == COUNT
    assert not caplog.records


def test_files_that_cannot_be_read_are_not_called_damaged(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In a cache that can be used, a file that cannot be opened is said, and prepared again."""
    store_in(home).get("ada")
    (path,) = cache_files(home)
    path.unlink()
    path.mkdir()
    with caplog.at_level(logging.WARNING):
        assert store_in(home).get("ada").frame_count == COUNT
    assert "cannot be read" in caplog.text


def test_a_full_disk_costs_time_only(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a disk that was not full at the start it is said what does not fit; nothing half written
    stays."""
    assert not cache_fault(home / "cache" / "avatars")
    with full_disk(), caplog.at_level(logging.WARNING):
        assert store_in(home).get("ada").frame_count == COUNT
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


def test_old_files_that_another_process_deletes_are_no_error(
    home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One is gone between two looks at it; what was prepared is kept all the same."""
    store_in(home, CountingModel(fingerprint="1")).get("ada")
    (home / "cache" / "avatars" / "ada.gone.safetensors").symlink_to("nowhere")
    with caplog.at_level(logging.WARNING):
        store_in(home, CountingModel(fingerprint="2")).get("ada")
    assert caplog.records == []


def test_the_cache_is_in_the_xdg_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """XDG_CACHE_HOME where it is an absolute path, else ~/.cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert cache_directory() == Path("/elsewhere/wsavatar")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_directory() == Path.home() / ".cache" / "wsavatar"
