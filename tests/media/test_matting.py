"""What a mask cuts out of a picture shows nothing of the background that it stood before."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from wsavatar.media.matting import ALIGNED, REACH, cut_out, laid_over

SIDE = 256


def hairy() -> tuple[np.ndarray, np.ndarray]:
    """A dark head with hair that stands out, float32 [H, W, 3], and its mask uint8 [H, W]."""
    random = np.random.default_rng(1)
    noise = random.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    colours = (cv2.GaussianBlur(noise, (0, 0), 15).astype(np.float32) - 128) * 3 + (90, 60, 40)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.ellipse(mask, (128, 140), (65, 90), 0, 0, 360, 255, -1)
    for turn in random.uniform(0, 2 * np.pi, 100):
        root = np.array([128 + 65 * np.cos(turn), 140 + 90 * np.sin(turn)])
        tip = root + random.normal(0, 10, 2)
        cv2.line(mask, root.astype(int).tolist(), tip.astype(int).tolist(), 255, 1, cv2.LINE_AA)
    return colours.clip(0, 255), cv2.GaussianBlur(mask, (0, 0), 1.5)


def before(colours: np.ndarray, mask: np.ndarray, background: np.ndarray) -> np.ndarray:
    share = mask[..., None] / 255
    return np.rint(colours * share + background * (1 - share)).astype(np.uint8)


def room() -> np.ndarray:
    """A white wall and a green one."""
    background = np.full((SIDE, SIDE, 3), (220, 220, 230), np.uint8)
    background[:, SIDE // 2 :] = (40, 200, 60)
    return background


def test_soft_edges_have_no_halo_of_the_old_background() -> None:
    """Hair before a bright wall looks before a dark one as if it had been filmed there."""
    colours, mask = hairy()
    night = np.full((SIDE, SIDE, 3), (20, 20, 90), np.uint8)
    picture, wanted = before(colours, mask, room()), before(colours, mask, night)
    edge = (mask > 0) & (mask < 255)
    made = np.abs(laid_over(picture, mask, night).astype(int) - wanted)[edge].mean()
    halo = np.abs(before(picture, mask, night).astype(int) - wanted)[edge].mean()
    assert made < 1 < 10 < halo


def test_a_cut_out_picture_has_nothing_of_the_background_in_it() -> None:
    """Not even under pixels that are transparent: others may look there."""
    colours, mask = hairy()
    cut = cut_out(before(colours, mask, room()), mask)
    assert cut.shape == (SIDE, SIDE, 4) and (cut[..., 3] == mask).all()
    assert cut[..., :3].max() < 140 and colours[mask == 255].max() < 140  # the walls have 200
    assert np.abs(cut[..., :3].astype(int) - colours)[(mask > 20) & (mask < 255)].mean() < 6
    assert (cut[..., :3][mask == 255] == before(colours, mask, room())[mask == 255]).all()


@pytest.mark.parametrize("size", [(256, 256), (250, 254)])
def test_a_part_is_the_same_as_in_the_whole(size: tuple[int, int]) -> None:
    """With some pixels more on each side, on a grid: so a mouth fits into its picture."""
    width, height = size
    colours, mask = (array[:height, :width] for array in hairy())
    night = np.full((height, width, 3), (20, 20, 90), np.uint8)
    picture = before(colours, mask, room()[:height, :width])
    whole = laid_over(picture, mask, night)
    left, top = 120, 140
    start = np.s_[(top - REACH) // ALIGNED * ALIGNED :, (left - REACH) // ALIGNED * ALIGNED :]
    part = laid_over(picture[start], np.ascontiguousarray(mask[start]), night[start])
    inner = part[-(height - top) :, -(width - left) :]
    assert (inner == whole[top:, left:]).all()


@pytest.mark.parametrize("value", [0, 255])
def test_a_picture_may_be_all_background_or_all_person(value: int) -> None:
    """A mask without an edge."""
    picture = room()
    mask = np.full((SIDE, SIDE), value, np.uint8)
    black = np.zeros_like(picture)
    assert (laid_over(picture, mask, black) == (picture if value else black)).all()
    assert (cut_out(picture, mask)[..., :3] == (picture if value else 0)).all()
