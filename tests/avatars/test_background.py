"""An avatar before another background: a colour, a picture, or nothing at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.avatars.drawn_avatar import COUNT, CountingModel, H, W, make_avatar
from tests.drawn_faces import face_video
from wsavatar.avatars.background import BackgroundError, Backgrounds
from wsavatar.avatars.format import AvatarError, read_avatar_file
from wsavatar.avatars.landmarks import read_landmarks
from wsavatar.avatars.library import AvatarLibrary
from wsavatar.avatars.person_masks import MaskMaker
from wsavatar.avatars.store import AvatarStore
from wsavatar.avatars.writing import write_avatar
from wsavatar.config import AvatarSettings, Settings
from wsavatar.serve.assembly import load_renderer

GREEN = (0, 177, 64)


def heads(pictures: Sequence[np.ndarray], landmarks: np.ndarray) -> Iterator[np.ndarray]:
    """Masks as a network gives them: the drawn head, with a soft edge."""
    for picture, points in zip(pictures, landmarks, strict=True):
        middle, size = points.mean(axis=0), float(np.ptp(points[:17, 0]))
        mask = np.zeros(picture.shape[:2], np.uint8)
        centre = (int(middle[0]), int(middle[1] - 0.1 * size))
        cv2.ellipse(mask, centre, (int(0.55 * size), int(0.75 * size)), 0, 0, 360, 255, -1)
        yield cv2.GaussianBlur(mask, (5, 5), 0)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with one avatar, ``ada``."""
    home = tmp_path_factory.mktemp("home")
    make_avatar(home / "avatars")
    return home


def store_in(
    home: Path, make: Callable[..., Iterable[np.ndarray]] | None = heads, **options: object
) -> AvatarStore:
    settings = AvatarSettings(
        **{"directory": home / "avatars", "cache": home / "cache", **options}  # type: ignore[arg-type]
    )
    return AvatarStore(settings, CountingModel(), MaskMaker("drawn", make) if make else None)


def test_an_avatar_stands_before_a_colour(home: Path) -> None:
    """Its background is that colour in every picture, and the face is as it was."""
    store = store_in(home)
    avatar, plain = store.get("ada", background="#00B140"), store.get("ada")
    assert (avatar.background, plain.background) == ("#00b140", "original")
    assert avatar.region == plain.region
    for picture, own in zip(avatar.pictures, plain.pictures, strict=True):
        assert (picture[:5, :5] == GREEN).all() and (picture[-5:] == GREEN).all()
        assert (picture[50:70, 70:90] == own[50:70, 70:90]).all()
    assert (store.idle_pictures("ada", "#00b140")[3] == avatar.pictures[3]).all()


def test_a_mouth_has_the_pixels_of_its_picture(home: Path) -> None:
    """So a mouth that is sent alone fits into the idle picture that a client has."""
    for background in ("#00b140", "transparent"):
        pictures = store_in(home).get("ada", background=background).pictures
        for x, y, w, h in ((48, 32, 64, 80), (0, 0, 40, 40), (100, 90, 60, 38)):
            part = pictures.part(2, (x, y, w, h))
            assert (part == pictures[2][y : y + h, x : x + w]).all()


def test_a_transparent_avatar_has_an_alpha_channel(home: Path) -> None:
    """And nothing of its room is left under it."""
    picture = store_in(home).get("ada", background="transparent").pictures[0]
    assert picture.shape == (H, W, 4)
    assert picture[50:70, 70:90, 3].min() == 255 and picture[:5, :5].max() == 0


def test_a_picture_covers_the_background(tmp_path: Path, home: Path) -> None:
    """Scaled without distortion, its middle is shown; it is what all get unless they ask."""
    wide = np.zeros((100, 400, 3), np.uint8)
    wide[:, 200:] = (200, 100, 0)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    store = store_in(home, background=str(tmp_path / "wide.png"))
    avatar = store.get("ada")
    assert avatar.background == "picture"
    assert avatar.pictures[0][10, 5].max() < 8
    assert np.abs(avatar.pictures[0][10, -5].astype(int) - (200, 100, 0)).max() < 8
    assert (store.idle_pictures("ada")[0] == avatar.pictures[0]).all()
    assert store.get("ada", background="original").background == "original"


def test_masks_are_made_once_and_kept_on_the_disk(tmp_path: Path) -> None:
    """For all backgrounds, and for the next start; for the original one none are made."""
    made: list[int] = []

    def counted(pictures: Sequence[np.ndarray], landmarks: np.ndarray) -> Iterator[np.ndarray]:
        made.append(len(pictures))
        return heads(pictures, landmarks)

    make_avatar(tmp_path / "avatars")
    store = store_in(tmp_path, counted)
    store.get("ada")
    assert not made
    first = store.get("ada", background="#112233")
    assert store.get("ada", background="#112233") is first
    store.get("ada", background="transparent")
    again = store_in(tmp_path, counted).get("ada", background="#112233")
    assert made == [COUNT]
    assert (again.pictures[1] == first.pictures[1]).all()


def test_a_search_for_a_person_holds_nobody_up(tmp_path: Path) -> None:
    """It has a thread of its own, of a low priority; who asks meanwhile gets the same search, and
    avatars whose person is known are there at once."""
    for name in ("ada", "bob"):
        make_avatar(tmp_path / "avatars", name)
    store_in(tmp_path).get("bob", background="#00b140")
    begun, go, niceness = threading.Event(), threading.Event(), []

    def slowly(pictures: Sequence[np.ndarray], landmarks: np.ndarray) -> Iterator[np.ndarray]:
        niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        for number, mask in enumerate(heads(pictures, landmarks)):
            if number == 2:
                begun.set()
                go.wait(20)
            yield mask

    store = store_in(tmp_path, slowly)
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert store.cut_out("ada", "original") is None
    search = store.cut_out("ada", "#00b140")
    assert search is not None and begun.wait(20)
    assert store.cut_out("ada", "transparent") is search
    assert store.finding("ada") == (2, COUNT) and store.finding("bob") is None
    assert store.still("ada", "#00b140") is None
    assert store.cut_out("bob", "#00b140") is None
    assert store.get("bob", background="transparent").background == "transparent"
    go.set()
    search.result(20)
    assert store.cut_out("ada", "#112233") is None and store.finding("ada") is None
    assert niceness[0] > own or own > 0


def test_a_server_that_stops_does_not_wait_for_searches(tmp_path: Path) -> None:
    """The one that runs ends at its next picture, those that wait do not begin."""
    for name in ("ada", "bob"):
        make_avatar(tmp_path / "avatars", name)
    begun, go = threading.Event(), threading.Event()

    def slowly(pictures: Sequence[np.ndarray], landmarks: np.ndarray) -> Iterator[np.ndarray]:
        for mask in heads(pictures, landmarks):
            begun.set()
            assert go.wait(20)
            yield mask

    store = store_in(tmp_path, slowly)
    running, waiting = store.cut_out("ada", "#00b140"), store.cut_out("bob", "#00b140")
    assert running is not None and waiting is not None and begun.wait(20)
    store.close()
    go.set()
    with pytest.raises(AvatarError, match="stopped"):
        running.result(20)
    assert waiting.cancelled()


def test_a_person_that_was_not_found_is_not_looked_for_again(tmp_path: Path) -> None:
    """Until the next start: each time would take as long, for the same answer."""
    asked: list[int] = []

    def nothing(pictures: Sequence[np.ndarray], landmarks: np.ndarray) -> Iterator[np.ndarray]:
        asked.append(len(pictures))
        return _empty(pictures, landmarks)

    make_avatar(tmp_path / "avatars")
    store = store_in(tmp_path, nothing)
    for _ in range(2):
        with pytest.raises(BackgroundError, match="cannot be told from it in frame 0"):
            store.get("ada", background="transparent")
    with pytest.raises(BackgroundError, match="cannot be told from it in frame 0"):
        store.cut_out("ada", "#00b140")
    assert asked == [COUNT]


def test_an_avatar_that_was_replaced_has_no_masks_of_the_old_one(tmp_path: Path) -> None:
    """The person in the new pictures is somewhere else. Who shows the old ones goes on with
    them."""
    make_avatar(tmp_path / "avatars")
    running = store_in(tmp_path)
    old = running.get("ada", background="transparent")
    still = old.pictures[0]
    settings = AvatarSettings(directory=tmp_path / "avatars", cache=tmp_path / "cache")
    library = AvatarLibrary(settings, MaskMaker("drawn", heads))
    before = library.idle_pictures("ada", "transparent")[0][..., 3]
    replace_avatar(tmp_path / "avatars", size=50)
    new = running.get("ada", background="transparent")
    assert new is running.get("ada", background="transparent") is not old
    other = store_in(tmp_path / "other", directory=tmp_path / "avatars")
    wanted = other.get("ada", background="transparent").pictures[0]
    assert (new.pictures[0] == wanted).all() and (old.pictures[0] == still).all()
    assert (library.idle_pictures("ada", "transparent")[0] == wanted).all()
    assert wanted[..., 3].sum() < 0.8 * before.sum()
    assert (store_in(tmp_path).get("ada", background="transparent").pictures[0] == wanted).all()


def test_a_person_is_looked_for_in_the_pictures_that_are_there_now(tmp_path: Path) -> None:
    """Where it was not found, a better picture is another search."""
    make_avatar(tmp_path / "avatars")
    found: list[Callable[..., Iterator[np.ndarray]]] = [_empty, heads]
    settings = AvatarSettings(directory=tmp_path / "avatars", cache=tmp_path / "cache")
    maker = MaskMaker("drawn", lambda pictures, landmarks: found.pop(0)(pictures, landmarks))
    library = AvatarLibrary(settings, maker)
    for _ in range(2):
        with pytest.raises(BackgroundError, match="cannot be told"):
            library.idle_pictures("ada", "transparent")
    replace_avatar(tmp_path / "avatars", size=60)
    assert library.idle_pictures("ada", "transparent")[0].shape == (H, W, 4)


def test_an_avatar_may_be_deleted_while_its_person_is_looked_for(tmp_path: Path) -> None:
    """Nothing of the face stays, neither in memory nor on the disk."""
    make_avatar(tmp_path / "uploads")
    make_avatar(tmp_path / "avatars", "bob")

    def interrupted(pictures: Sequence[np.ndarray], landmarks: np.ndarray) -> list[np.ndarray]:
        made = list(heads(pictures, landmarks))
        store.delete("ada")
        return made

    store = store_in(tmp_path, interrupted, uploads_directory=tmp_path / "uploads")
    store.get("ada")
    with pytest.raises(AvatarError, match="'ada' was deleted"):
        store.get("ada", background="transparent")
    assert not list((tmp_path / "cache").rglob("ada*"))


def replace_avatar(directory: Path, *, size: float) -> None:
    frames, landmarks = face_video(W, H, COUNT, size=size)
    write_avatar(directory, "ada", "Ada", frames, 25, landmarks, overwrite=True)


def test_a_still_is_the_first_picture_before_the_background(home: Path) -> None:
    """For posters; without the avatar being prepared. Before its own there is nothing to make."""
    shown = store_in(home).get("ada", background="#00b140").pictures[0]
    settings = AvatarSettings(directory=home / "avatars", cache=home / "cache")
    library = AvatarLibrary(settings, MaskMaker("drawn", _empty))  # which is not asked
    still = library.still("ada", "#00b140")
    assert still is not None and (still == shown).all()
    assert library.still("ada") is None and library.still("ada", "original") is None


def test_a_server_that_prepares_nothing_shows_the_same_pictures(home: Path) -> None:
    """Where devices have processes, the one that serves reads the masks that those made."""
    shown = store_in(home).get("ada", background="#00b140").pictures
    settings = AvatarSettings(directory=home / "avatars", cache=home / "cache")
    library = AvatarLibrary(settings, MaskMaker("drawn", _empty))  # which is not asked
    assert (library.idle_pictures("ada", "#00b140")[2] == shown[2]).all()


def test_a_model_that_draws_the_whole_face_draws_nothing_of_the_old_background(home: Path) -> None:
    """Without the frame's own pixels at its edge, its patch ends where the person does."""
    store = store_in(home, detail=False)
    plain, shown = store.get("ada").face, store.get("ada", background="#00b140").face
    assert plain.jaw is None
    (left, top, right, bottom) = plain.paste_boxes[0]
    folder = home / "avatars" / "ada"
    landmarks = read_landmarks(folder, read_avatar_file(folder))
    person = next(heads(store.get("ada").pictures[:1], landmarks[:1]))
    outside = person[top:bottom, left:right] == 0
    assert plain.masks[0][outside].max() > 0 == shown.masks[0][outside].max()


def _empty(pictures: Sequence[np.ndarray], landmarks: np.ndarray) -> Iterator[np.ndarray]:
    return (np.zeros(picture.shape[:2], np.uint8) for picture in pictures)


def _short(pictures: Sequence[np.ndarray], landmarks: np.ndarray) -> Iterator[np.ndarray]:
    return heads(pictures[:2], landmarks[:2])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (None, "nothing here tells a person from it; use a file with"),
        (_empty, "the person cannot be told from it in frame 0; use a picture with a plainer"),
        (_short, "there are 2 masks for 6 frames"),
    ],
)
def test_an_avatar_that_cannot_be_cut_out_says_so(
    tmp_path: Path, make: Callable[..., Iterable[np.ndarray]] | None, says: str
) -> None:
    """One sentence; its own background can be had all the same."""
    make_avatar(tmp_path / "avatars")
    store = store_in(tmp_path, make)
    with pytest.raises(
        BackgroundError, match=f"'ada' can have its original background only: {says}"
    ):
        store.get("ada", background="transparent")
    assert store.get("ada").frame_count == COUNT


@pytest.mark.parametrize(
    ("background", "says"),
    [
        ("#00ff0", "write original, transparent, or a colour as # and six"),
        ("green", "'green' is neither original, transparent nor a colour such as #00b140"),
        ("missing.png", "no picture can be read there: missing.png: no such file$"),
        (__file__, "cannot be read as a picture"),
    ],
)
def test_a_background_that_there_is_not_is_refused_at_the_start(background: str, says: str) -> None:
    """What was written, and what may be."""
    with pytest.raises(BackgroundError, match=says):
        Backgrounds(background)


def test_a_wrong_background_is_said_before_the_model_is_loaded(tmp_path: Path) -> None:
    """Not after the minute that loading may take: here the model would be the next fault."""
    settings = Settings.model_validate(
        {"avatars": {"background": "green"}, "model": {"path": str(tmp_path)}}
    )
    progress: list[str] = []
    with pytest.raises(BackgroundError, match="'green' is neither"):
        load_renderer(settings, progress.append)
    assert not progress


@pytest.mark.parametrize("name", ["#12", "blue", "../secret.png", "picture", "#00b140 "])
def test_a_client_can_name_no_file(name: str) -> None:
    """Only the names: no path from outside is ever opened."""
    with pytest.raises(BackgroundError, match=r"write original|no background picture"):
        Backgrounds("original").named(name)


def test_a_damaged_cache_of_masks_is_made_anew(tmp_path: Path) -> None:
    """As everything that is cached."""
    make_avatar(tmp_path / "avatars")
    first = store_in(tmp_path).get("ada", background="#00b140").pictures[0]
    for file in (tmp_path / "cache").rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-40])
    again = store_in(tmp_path).get("ada", background="#00b140").pictures[0]
    assert (first == again).all()
