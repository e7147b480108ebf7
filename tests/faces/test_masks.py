"""Masks are kept packed, and are the same pixels when they are used."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from wsavatar.faces.avatar_face import AvatarFace
from wsavatar.faces.masks import Masks, PackedMask, trimmed


def oval(height: int = 300, width: int = 400) -> np.ndarray:
    """A soft oval in the lower middle of a mask that is empty elsewhere."""
    y, x = np.mgrid[:height, :width]
    distance = np.hypot((x - width / 2) / 90, (y - height * 0.6) / 60)
    soft: np.ndarray = np.clip((1.2 - distance) * 400, 0, 255).astype(np.uint8)
    return soft


def face_with(*masks: np.ndarray) -> AvatarFace:
    boxes = np.array([[0, 0, mask.shape[1], mask.shape[0]] for mask in masks], np.int32)
    return AvatarFace(boxes, boxes, masks, np.zeros((len(masks), 1), np.float16))


def test_a_mask_is_the_same_after_packing_and_far_smaller() -> None:
    """Bit for bit; nobody can write into it."""
    masks = Masks([oval(), oval(200, 300)[::-1]])
    assert [mask.shape for mask in masks] == [(300, 400), (200, 300)]
    np.testing.assert_array_equal(masks[0], oval())
    np.testing.assert_array_equal(masks[1:][0], oval(200, 300)[::-1])
    assert masks.nbytes < (300 * 400 + 200 * 300) / 5
    with pytest.raises(ValueError, match="read-only"):
        masks[0][0] = 1


def test_a_mask_is_trimmed_to_what_it_shows() -> None:
    """Its box moves with it; outside there was nothing."""
    box, mask = trimmed((10, 20, 410, 320), oval())
    assert mask.shape == (box[3] - box[1], box[2] - box[0])
    assert mask[0].any() and mask[-1].any() and mask[:, 0].any() and mask[:, -1].any()
    whole = np.zeros((300, 400), np.uint8)
    whole[box[1] - 20 : box[3] - 20, box[0] - 10 : box[2] - 10] = mask
    np.testing.assert_array_equal(whole, oval())


def test_a_faces_masks_come_back_from_its_arrays() -> None:
    """What is on the disk is packed too."""
    face = face_with(oval(), oval(200, 300))
    arrays = face.arrays()
    assert arrays["masks"].nbytes == face.nbytes - face.inputs.nbytes
    again = AvatarFace.from_arrays(arrays, 2)
    for mask, same in zip(face.masks, again.masks, strict=True):
        np.testing.assert_array_equal(mask, same)
    assert again.region(400, 300) == face.region(400, 300)
    assert replace(face, masks=face.masks[:1]).masks[0].shape == (300, 400)


@pytest.mark.parametrize("damage", ["bytes", "sizes", "boxes", "bomb"])
def test_damaged_masks_are_refused(damage: str) -> None:
    """Nothing is unpacked that is larger than its box."""
    arrays = face_with(oval(), oval(200, 300)).arrays()
    match damage:
        case "bytes":
            arrays["masks"] = arrays["masks"] ^ 85
        case "sizes":
            arrays["mask_sizes"] = arrays["mask_sizes"] + 1
        case "boxes":
            arrays["paste_boxes"] = arrays["paste_boxes"][::-1].copy()
        case "bomb":
            bomb = PackedMask.of(np.zeros((2000, 2000), np.uint8)).data
            rest = arrays["masks"][arrays["mask_sizes"][0] :]
            arrays["masks"] = np.concatenate([np.frombuffer(bomb, np.uint8), rest])
            arrays["mask_sizes"] = np.array([len(bomb), len(rest)])
    with pytest.raises(ValueError, match="mask"):
        AvatarFace.from_arrays(arrays, 2)
