"""A client's file: nothing that is said of it is believed, and nothing of it stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.avatar_jobs.fakes import FakeCreation, making
from tests.drawn_faces import face_video
from wsavatar.avatar_jobs import maker as maker_module
from wsavatar.avatar_jobs.maker import BusyError
from wsavatar.avatar_jobs.upload import clean_up, open_upload
from wsavatar.avatars.format import AvatarError
from wsavatar.avatars.writing import write_avatar
from wsavatar.config import AvatarSettings
from wsavatar.creation import AvatarRequest


@pytest.fixture
def settings(tmp_path: Path) -> AvatarSettings:
    return AvatarSettings(uploads_directory=tmp_path / "up", max_upload_mb=1, max_uploads=2)


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("anna.jpg", "anna.jpg"),
        ("../../etc/passwd", "passwd.bin"),
        ("..\\..\\boot.INI", "boot.bin"),
        ("/", "avatar.bin"),
        (".", "avatar.bin"),
        ("", "avatar.bin"),
        ("Zoë & Ωmega.MP4", "Zoë - Ωmega.mp4"),
        ("a\0b\n.p/ng", "ng.bin"),
        (".hidden.png", "hidden.png"),
        ("list.m3u8", "list.bin"),
        ("a%03d.jpg", "a-03d.jpg"),
        ("x" * 250 + ".jpeg", "x" * 50 + ".jpeg"),
        ("\U0001d49c" * 250 + ".jpeg", "\U0001d49c" * 50 + ".jpeg"),
        ("anna.jpg\n/../x.sh;rm", "x.bin"),
    ],
)
def test_a_name_is_never_a_path(settings: AvatarSettings, said: str, name: str) -> None:
    """The file lies in a new folder of its own in the uploads' directory, under a plain name."""
    upload = open_upload(settings, said, 3)
    assert settings.uploads_directory is not None
    assert upload.path.name == name
    assert upload.path.parent.parent == settings.uploads_directory
    assert upload.path.parent.name.startswith(".upload-")
    upload.discard()
    assert list(settings.uploads_directory.iterdir()) == []


def test_pieces_make_the_file(settings: AvatarSettings) -> None:
    """In order, without gaps; more than was announced, or less, is refused."""
    upload = open_upload(settings, "a.jpg", 10)
    assert upload.append(0, b"12345") == 5
    with pytest.raises(AvatarError, match="a piece is missing"):
        upload.append(6, b"7")
    with pytest.raises(AvatarError, match="only 5 of 10"):
        upload.complete()
    with pytest.raises(AvatarError, match="more bytes"):
        upload.append(5, b"678901")
    upload.append(5, b"67890")
    assert upload.complete().read_bytes() == b"1234567890"
    upload.discard()
    assert not upload.path.exists()


def test_size_and_number_are_limited(settings: AvatarSettings) -> None:
    """Before the first byte is sent."""
    with pytest.raises(AvatarError, match="200 MB, and 1 are allowed"):
        open_upload(settings, "film.mp4", 200 << 20)
    assert settings.uploads_directory is not None
    for id in ("one", "two"):
        (settings.uploads_directory / id).mkdir(parents=True)
    with pytest.raises(AvatarError, match="delete one"):
        open_upload(settings, "a.jpg", 10)


def test_a_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """In one sentence, without the server's paths."""
    (tmp_path / "file").write_text("")
    settings = AvatarSettings(uploads_directory=tmp_path / "file" / "uploads")
    with pytest.raises(AvatarError) as refused:
        open_upload(settings, "a.jpg", 10)
    assert str(tmp_path) not in str(refused.value)


def test_what_a_killed_server_left_is_removed_after_a_day(tmp_path: Path) -> None:
    """What is younger may be another server's."""
    for name in (".upload-old", ".deleted-old", ".upload-new", "anna", ".git"):
        (tmp_path / name).mkdir()
    left = killed_while_making(tmp_path)
    for name in (".upload-old", ".deleted-old", "anna", ".git", left):
        os.utime(tmp_path / name, (0, 0))
    clean_up(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".git", ".upload-new", "anna"]


def killed_while_making(directory: Path) -> str:
    """The name of the folder in which an avatar was being made."""
    seen: list[str] = []

    def look(folder: Path) -> None:
        shutil.copytree(folder.parent, folder.parent.with_name(f"{folder.parent.name}-left"))
        seen.append(f"{folder.parent.name}-left")

    frames, landmarks = face_video(128, 128, 1, size=60)
    write_avatar(directory, "bob", "Bob", frames, 25, landmarks, prepare=look)
    shutil.rmtree(directory / "bob")
    return seen[0]


async def test_clients_have_limits_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes, pixels and seconds are those of the settings; files at the same time are counted."""
    monkeypatch.setattr(maker_module, "MAX_UPLOADS", 1)
    create = FakeCreation()
    maker, _, _ = making(tmp_path, create, max_upload_megapixels=3, max_upload_s=7, max_upload_mb=2)
    upload = await maker.open_upload("anna.jpg", 4)
    with pytest.raises(BusyError):
        await maker.open_upload("bob.jpg", 4)
    upload.append(0, b"anna")
    await maker.make_of(upload, AvatarRequest(), lambda step: None)
    await maker.end_upload(upload)
    [limits] = create.limits
    assert (limits.file_bytes, limits.pixels, limits.seconds) == (2 << 20, 3_000_000, 7)
    await maker.end_upload(await maker.open_upload("bob.jpg", 4))
    assert sorted(path.name for path in (tmp_path / "uploads").iterdir()) == ["anna"]
    await maker.close()
