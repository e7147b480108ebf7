"""Avatars are listed, prepared once, and kept in bounded memory."""

from __future__ import annotations

import errno
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from tests.avatars.drawn_avatar import COUNT, CountingModel, H, W, copy_avatar, edit, store_in
from tests.drawn_faces import face_video
from wsavatar.avatars.avatar import cycle_index
from wsavatar.avatars.cache import FaceCache
from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.library import AvatarLibrary
from wsavatar.avatars.store import AvatarStore
from wsavatar.avatars.writing import write_avatar
from wsavatar.config import AvatarSettings
from wsavatar.faces.avatar_face import CELL, JAW_STEPS, in_cells
from wsavatar.faces.colours import with_colours
from wsavatar.media.video import read_video
from wsavatar.media.video_pictures import GROUP_FRAMES, VideoPictures
from wsavatar.media.video_writer import VideoWriter


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


def test_who_closes_the_store_does_not_wait_for_an_avatar(home: Path) -> None:
    """Preparing one, which takes seconds, ends at its next picture: a server that stops ends."""
    store, steps = store_in(home), list[int]()

    def close_at_the_second(done: int, total: int) -> None:
        steps.append(done)
        if done == 2:
            store.close()

    with pytest.raises(AvatarError, match="preparing 'ada' was stopped"):
        store.get("ada", close_at_the_second)
    assert steps == [1, 2] and COUNT > 2


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
    assert face.colours is not None and again.colours is not None
    looks = with_colours(in_cells(redrawn[-rows:]), face.colours)
    assert (face.jaw.looks[3, JAW_STEPS.index(0)] == looks).all()
    np.testing.assert_array_equal(face.colours, again.colours)
    for kept, restored in zip(face.jaw.arrays().values(), again.jaw.arrays().values(), strict=True):
        np.testing.assert_array_equal(kept, restored)
    plain = AvatarSettings(directory=home / "avatars", cache=home / "cache", detail=False)
    without = AvatarStore(plain, CountingModel()).get("ada").face
    assert without.jaw is None and without.colours is None


def test_a_grey_video_has_a_grey_mouth(home: Path) -> None:
    """Whatever colours the model draws it in."""
    frames, landmarks = face_video(W, H, 3, size=70)
    grey = [np.repeat(frame[..., 1:2], 3, axis=2) for frame in frames]
    write_avatar(home / "avatars", "grey", "Grey", grey, 25, landmarks)
    face = store_in(home).get("grey").face
    assert face.colours is not None and face.jaw is not None
    assert np.abs(face.colours).max() <= 1  # of the video's rounding
    assert np.ptp(face.jaw.looks, axis=4).max() <= 2


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


def test_without_a_cache_a_video_that_must_be_written_anew_says_so(home: Path) -> None:
    """The setting that helps is in the message."""
    (home / "file").touch()
    settings = AvatarSettings(directory=home / "avatars", cache=home / "file", decoded_mb=0)
    with (
        patch("wsavatar.media.video_pictures._LONGEST_GROUP", 1),
        pytest.raises(AvatarError, match=r"cannot be used for a copy \(Not a .*set avatars.cache"),
    ):
        AvatarLibrary(settings).idle_pictures("ada")


def test_an_avatar_that_is_replaced_is_prepared_anew(home: Path) -> None:
    """`prepare --force` while a server runs: new sessions have the new one, others go on with the
    old; a folder that cannot be read for a moment changes nothing."""
    store = store_in(home)
    old = store.get("ada")
    still = old.pictures[0].copy()
    description = home / "avatars" / "ada" / "avatar.json"
    whole = description.read_text()
    description.write_text("{")
    assert store.get("ada") is old
    description.write_text(whole)
    assert store.get("ada") is old
    frames, landmarks = face_video(W, H, COUNT, size=50)
    write_avatar(home / "avatars", "ada", "Ada", frames, 25, landmarks, overwrite=True)
    new = store.get("ada")
    assert new is store.get("ada") is not old
    assert (new.face.crop_boxes != old.face.crop_boxes).any()
    assert (old.pictures[0] == still).all() and (new.pictures[0] != still).any()


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


def test_the_cycle_runs_back_and_forth_without_a_jump() -> None:
    """Neighbouring frames of the cycle are neighbours in the video, for ever, at any length."""
    for count in (1, 2, 5):
        played = [cycle_index(i, count) for i in range(40)]
        assert set(played) == set(range(count))
        assert all(abs(a - b) <= 1 for a, b in zip(played, played[1:], strict=False))
        if count > 1:  # no end is shown twice
            assert all(a != b for a, b in zip(played, played[1:], strict=False))
