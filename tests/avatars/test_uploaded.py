"""Avatars that clients made: beside the configured ones, and theirs to rename and delete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.avatars.drawn_avatar import CountingModel, cache_files, copy_avatar, edit
from wsavatar.avatars.format import AvatarError, read_avatar_file
from wsavatar.avatars.library import AvatarLibrary
from wsavatar.avatars.store import AvatarStore
from wsavatar.config import AvatarSettings
from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.render.remote.avatars import RemoteAvatars


@pytest.fixture
def places(tmp_path: Path, drawn: Path) -> AvatarSettings:
    """``zoe`` is configured, ``ada`` and ``bob`` were uploaded."""
    copy_avatar(drawn, tmp_path / "avatars" / "zoe")
    for id in ("ada", "bob"):
        copy_avatar(drawn, tmp_path / "uploads" / id)
    return AvatarSettings(
        directory=tmp_path / "avatars",
        uploads_directory=tmp_path / "uploads",
        cache=tmp_path / "cache",
    )


def test_both_directories_are_listed_and_read(places: AvatarSettings) -> None:
    """One list by name; it says which avatars may be changed."""
    library = AvatarLibrary(places)
    assert [(one.id, one.removable) for one in library.list()] == [
        ("ada", True),
        ("bob", True),
        ("zoe", False),
    ]
    assert len(library.idle_pictures("bob")) == library.read("zoe").frame_count
    assert library.poster("bob") == library.idle_video("bob").with_name("poster.jpg")


def test_the_default_of_the_bundled_avatars_has_the_bundled_voice() -> None:
    """Without a network a face speaks with a voice that fits it."""
    library = AvatarLibrary(AvatarSettings())
    assert "en_US-joe-medium" in library.read(library.default_id).voice


def test_an_upload_does_not_become_the_default(places: AvatarSettings, tmp_path: Path) -> None:
    """A name that sorts first changes nothing for others; without another avatar it is taken."""
    assert AvatarLibrary(places).default_id == "zoe"
    (tmp_path / "none").mkdir()
    alone = places.model_copy(update={"directory": tmp_path / "none"})
    assert AvatarLibrary(alone).default_id == "ada"


def test_of_two_with_one_id_the_configured_counts(places: AvatarSettings, drawn: Path) -> None:
    """Nobody can put another face in place of a configured avatar."""
    assert places.directory is not None
    copy_avatar(drawn, places.directory / "ada")
    edit(places.directory / "ada", description="configured")
    library = AvatarLibrary(places)
    assert library.read("ada").description == "configured"
    assert [one.removable for one in library.list() if one.id == "ada"] == [False]


def test_a_new_name_is_written_and_the_rest_stays(places: AvatarSettings) -> None:
    """Also one that is not ASCII; a name that is too long changes nothing."""
    library = AvatarLibrary(places)
    before = library.read("ada")
    library.rename("ada", "Ánna Ω")
    assert library.read("ada") == before.model_copy(update={"name": "Ánna Ω"})
    for wrong in ("", "x" * 101):
        with pytest.raises(AvatarError, match="name"):
            library.rename("ada", wrong)
    assert library.read("ada").name == "Ánna Ω"


def test_the_list_follows_the_files(
    places: AvatarSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed file is read anew, a broken one left out; what did not change is not read again."""
    library = AvatarLibrary(places)
    assert [one.name for one in library.list()] == ["Ada", "Bob", "Zoe"]
    assert places.uploads_directory is not None
    edit(places.uploads_directory / "bob", name="Robert")
    (places.uploads_directory / "ada" / "avatar.json").write_text("{")
    assert [one.name for one in library.list()] == ["Robert", "Zoe"]
    read: list[Path] = []
    monkeypatch.setattr("wsavatar.avatars.library.read_avatar_file", read.append)
    with pytest.raises(AttributeError):
        library.list()  # the broken one is looked at again
    assert [folder.name for folder in read] == ["ada"]


def test_deleting_leaves_nothing_of_the_face(places: AvatarSettings) -> None:
    """Not its folder, not what was computed of it; and its id is never another face's."""
    store = AvatarStore(places, CountingModel())
    shown = store.get("ada")
    store.get("bob")
    assert places.cache is not None and places.uploads_directory is not None
    assert len(cache_files(places.cache.parent)) == 2
    store.delete("ada")
    assert [path.name for path in places.uploads_directory.iterdir()] == ["bob"]
    assert [path.name[:4] for path in cache_files(places.cache.parent)] == ["bob."]
    assert shown.frame_count == len(shown.pictures), "a session that shows it goes on"
    with pytest.raises(AvatarError, match="no avatar 'ada'"):
        store.get("ada")
    assert store.taken() == {"ada", "bob", "zoe"}


@dataclass
class Interrupted(CountingModel):
    """While it prepares an avatar, somebody deletes it."""

    delete: Callable[[], None] = lambda: None

    def prepare(self, *args: Any, **options: Any) -> AvatarFace:
        face = super().prepare(*args, **options)
        self.delete()
        return face


def test_an_avatar_may_be_deleted_while_it_is_prepared(places: AvatarSettings) -> None:
    """Nothing of its face comes back, neither in memory nor on the disk."""
    model = Interrupted()
    store = AvatarStore(places, model)
    model.delete = lambda: store.delete("ada")
    for _ in range(2):
        with pytest.raises(AvatarError, match="'ada'"):
            store.get("ada")
    assert places.cache is not None and not cache_files(places.cache.parent)


@pytest.mark.parametrize("id", ["zoe", "nobody", "../uploads/ada", "", "ADA"])
def test_what_a_client_did_not_make_stays(places: AvatarSettings, id: str) -> None:
    """The configured avatars, unknown ids and paths are refused in one sentence."""
    library = AvatarLibrary(places)
    for change in (library.delete, lambda one: library.rename(one, "Eve")):
        with pytest.raises(AvatarError) as refused:
            change(id)
        assert "\n" not in str(refused.value)
    assert [one.name for one in library.list()] == ["Ada", "Bob", "Zoe"]


def test_the_default_avatar_cannot_be_deleted(places: AvatarSettings) -> None:
    """Every new session needs one."""
    library = AvatarLibrary(places.model_copy(update={"default": "ada"}))
    with pytest.raises(AvatarError, match="default"):
        library.delete("ada")
    library.delete("bob")
    assert library.read("ada")


def test_a_server_of_processes_forgets_it_too(places: AvatarSettings) -> None:
    """It is not said to be prepared any more."""
    asked: list[str] = []
    avatars = RemoteAvatars(places, lambda avatar: asked.append(avatar.id))
    avatars.get("ada")
    avatars.delete("ada")
    with pytest.raises(AvatarError):
        avatars.get("ada")
    assert asked == ["ada"]


def test_a_link_cannot_lead_out_of_the_folder(places: AvatarSettings, tmp_path: Path) -> None:
    """A folder that is a link is deleted as a link: what it points at stays."""
    assert places.directory is not None and places.uploads_directory is not None
    (places.uploads_directory / "eve").symlink_to(places.directory / "zoe")
    AvatarLibrary(places).delete("eve")
    assert read_avatar_file(places.directory / "zoe").name == "Zoe"


def test_the_preview_is_what_the_model_sees(places: AvatarSettings) -> None:
    """The crop of the first picture; without a model, the face's landmarks bound it."""
    store = AvatarStore(places, CountingModel())
    prepared = store.get("ada")
    x1, y1, x2, y2 = prepared.face.crop_boxes[0]
    expected = prepared.pictures[0][y1:y2, x1:x2].mean(axis=(0, 1))
    for avatars, within in ((store, 3), (AvatarLibrary(places), 30)):
        picture = cv2.imdecode(np.frombuffer(avatars.preview("ada"), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (192, 192, 3)
        assert np.abs(picture[..., ::-1].mean(axis=(0, 1)) - expected).max() < within
