"""The person mask around its network: windows, edges, one person, clear errors.

The network here is a stand-in that knows the person's colour and sees it blurred; what the trained
one knows of people is tested in ``test_embedded.py``.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from wsavatar.landmarks import running
from wsavatar.landmarks.geometry import MEAN_FACE
from wsavatar.person import mask as module
from wsavatar.person.mask import EmbeddedPersonMask, PersonMaskError, face_hint, load_from
from wsavatar.person.networks import PersonNetwork

RED, BLUE = (200, 60, 40), (40, 70, 190)


class ColourNetwork:
    """Says person where it sees red, at half its resolution; remembers the shapes it was given."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def __call__(self, batch: np.ndarray) -> np.ndarray:
        self.seen.append(batch)
        sure = np.float32(8) * np.sign(batch[0, 0] - batch[0, 2])
        blurred: np.ndarray = cv2.blur(sure, (5, 5))
        return blurred[None, None]


def points(x: float, y: float, size: float) -> np.ndarray:
    return (MEAN_FACE * size + (x, y)).astype(np.float32)


def disc(height: int, width: int, x: int, y: int, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """A red disc on blue, and its exact mask."""
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (x, y), radius, 255, -1, cv2.LINE_AA)
    share = mask[..., None] / 255
    return np.round(share * RED + (1 - share) * BLUE).astype(np.uint8), mask


@pytest.mark.parametrize(("height", "width"), [(300, 300), (1080, 1920), (640, 360)])
def test_the_mask_has_the_picture_s_size_and_its_edges(height: int, width: int) -> None:
    """A coarse mask follows the picture's edge to within a pixel, in any shape of picture."""
    radius = min(height, width) // 3
    picture, wanted = disc(height, width, width // 2, height // 2, radius)
    [found] = EmbeddedPersonMask(ColourNetwork()).masks(
        [picture], [points(width / 2, height / 2, radius)]
    )
    assert found.shape == (height, width) and found.dtype == np.uint8
    off = np.abs(found.astype(int) - wanted) > 64
    assert off.sum() < 2 * np.pi * radius  # fewer than one pixel along the outline
    assert found[height // 2, width // 2] == 255 and found[0, 0] == 0


def test_a_small_person_is_looked_at_twice() -> None:
    """Where the face is small the network also sees head and shoulders alone, at a finer scale."""
    picture, wanted = disc(1080, 1920, 1500, 500, 90)
    network = ColourNetwork()
    [found] = EmbeddedPersonMask(network).masks([picture], [points(1500, 500, 100)])
    whole, near = network.seen
    assert (whole[0, 0] > whole[0, 2]).mean() < 0.02 < 0.1 < (near[0, 0] > near[0, 2]).mean()
    assert np.abs(found.astype(int) - wanted).mean() < 0.3
    for batch in network.seen:
        assert batch.shape[2] % 32 == batch.shape[3] % 32 == 0
        assert batch.shape[2] * batch.shape[3] < 80_000


def test_a_large_face_is_looked_at_once() -> None:
    """A window that would show most of the picture is left out."""
    picture, _ = disc(512, 512, 256, 256, 150)
    network = ColourNetwork()
    EmbeddedPersonMask(network).masks([picture], [points(256, 256, 150)])
    assert len(network.seen) == 1


def test_the_hint_says_whose_mask_is_asked_for() -> None:
    """The fourth plane is 1 at the face's middle and fades with the face's size."""
    picture, _ = disc(512, 512, 150, 300, 140)
    network = ColourNetwork()
    EmbeddedPersonMask(network).masks([picture], [points(150, 300, 130)])
    hint = network.seen[0][0, 3]
    row, column = np.unravel_index(hint.argmax(), hint.shape)
    middle = points(150, 300, 130).mean(0) / 2
    assert abs(column + 0.5 - middle[0]) <= 1 and abs(row + 0.5 - middle[1]) <= 1
    assert 0.98 < hint.max() <= 1 and hint[0, -1] < 1e-3
    np.testing.assert_allclose(
        face_hint((3, 3), (1.5, 1.5), (2, 2))[1], [0.317, 1, 0.317], atol=0.01
    )


def test_only_what_is_joined_to_the_face_is_the_person() -> None:
    """A second spot of the same colour elsewhere stays background."""
    picture, _ = disc(512, 512, 150, 256, 100)
    other, spot = disc(512, 512, 400, 256, 60)
    picture[spot > 0] = other[spot > 0]
    [found] = EmbeddedPersonMask(ColourNetwork()).masks([picture], [points(150, 256, 110)])
    assert found[256, 150] == 255 and found[256, 400] == 0


def test_a_head_has_no_holes() -> None:
    """A ribbon in the hair is the person's; what is seen between neck and hair is not."""
    picture, _ = disc(300, 300, 150, 150, 120)
    ribbon, gap = (slice(70, 80), slice(110, 190)), (slice(200, 215), slice(130, 170))
    picture[ribbon] = picture[gap] = BLUE
    [found] = EmbeddedPersonMask(ColourNetwork()).masks([picture], [points(150, 150, 100)])
    assert found[ribbon].min() == 255
    assert found[gap].mean() < 64


def test_pictures_of_different_sizes_go_together() -> None:
    """One mask for each picture, in order; each is the same as alone."""
    mask = EmbeddedPersonMask(ColourNetwork())
    pictures = [disc(256, 256, 128, 128, 60)[0], disc(200, 300, 100, 100, 70)[0]]
    faces = [points(128, 128, 70), points(100, 100, 80)]
    together = mask.masks(pictures, faces)
    for picture, face, found in zip(pictures, faces, together, strict=True):
        np.testing.assert_array_equal(mask.masks([picture], [face])[0], found)


def test_bad_input_is_refused() -> None:
    """Pictures and points of another kind are named in the error."""
    mask = EmbeddedPersonMask(ColourNetwork())
    picture, face = disc(128, 128, 64, 64, 30)[0], points(64, 64, 40)
    for wrong in (picture[..., 0], picture.astype(np.float32), picture[:0]):
        with pytest.raises(ValueError, match="a picture is uint8"):
            mask.masks([wrong], [face])
    for points_of in (face[:67], face * np.nan, face * 0):
        with pytest.raises(ValueError, match="68 points"):
            mask.masks([picture], [points_of])
    with pytest.raises(ValueError):
        mask.masks([picture, picture], [face])


def saved(folder: Path) -> Path:
    """An untrained network's file."""
    torch.manual_seed(0)
    state = PersonNetwork().state_dict()
    save_file(
        {k: v.half() for k, v in state.items() if v.dtype.is_floating_point},
        folder / "network.safetensors",
    )
    return folder


def test_openvino_and_torch_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without OpenVINO torch runs the network, with the same masks."""
    pytest.importorskip("openvino")
    saved(tmp_path)
    monkeypatch.setattr(module, "_AREA", 64 * 64)  # torch is slow on a busy machine
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (120, 200, 3), np.uint8)
    ours = load_from(tmp_path, "cpu").masks([picture], [points(90, 50, 60)])[0]

    def absent(*_: object) -> None:
        raise ImportError

    monkeypatch.setattr(running, "_openvino", absent)
    theirs = load_from(tmp_path, "cpu").masks([picture], [points(90, 50, 60)])[0]
    assert np.abs(ours.astype(int) - theirs).max() <= 2


def test_a_folder_without_the_network_is_named(tmp_path: Path) -> None:
    """The error says which folder, and what to do; also for a broken file."""
    with pytest.raises(PersonMaskError, match="install wsavatar again"):
        load_from(tmp_path, "cpu")
    (tmp_path / "network.safetensors").write_bytes(b"nothing")
    with pytest.raises(PersonMaskError, match=tmp_path.name):
        load_from(tmp_path, "cpu")
