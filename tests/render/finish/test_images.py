"""Torch's image operations against OpenCV's, in every layout, on whatever devices there are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from tests.drawn_faces import draw_face, face_landmarks
from wsavatar.render.finish import images
from wsavatar.render.finish.paste import sharpened


@pytest.fixture(params=["face", "noise"])
def picture(request: pytest.FixtureRequest) -> np.ndarray:
    """A drawn face, and the hardest of all pictures: noise."""
    if request.param == "noise":
        return np.random.default_rng(0).integers(0, 256, (120, 96, 3), dtype=np.uint8)
    return draw_face(96, 120, face_landmarks((48, 50), 80))


def differences(made: torch.Tensor, right: np.ndarray) -> tuple[int, float]:
    """The greatest difference in levels, and the share of values that differ."""
    apart = np.abs(made.cpu().numpy().astype(int) - right)
    assert made.shape == right.shape
    return int(apart.max()), float((apart > 0).mean())


# -- resize ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(200, 300), (97, 121), (96, 240), (70, 200), (192, 240)])
def test_cubic_is_opencv_s(picture: np.ndarray, device: torch.device, size) -> None:
    """Where a side grows: at most 1 level from INTER_CUBIC, in fewer than 1 % of values."""
    made = images.resize(torch.from_numpy(picture).to(device), *size)
    greatest, share = differences(made, cv2.resize(picture, size, interpolation=cv2.INTER_CUBIC))
    assert greatest <= 1 and share < 0.01


@pytest.mark.parametrize("size", [(95, 119), (96, 60), (50, 77), (32, 40), (1, 1)])
def test_area_is_opencv_s(picture: np.ndarray, device: torch.device, size) -> None:
    """Where no side grows: at most 1 level from INTER_AREA, in fewer than 1 % of values."""
    made = images.resize(torch.from_numpy(picture).to(device), *size)
    greatest, share = differences(made, cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
    assert greatest <= 1 and share < 0.01


def test_halving_rounds_to_even(picture: np.ndarray, device: torch.device) -> None:
    """Four pixels' mean that ends in a half goes to the even level; OpenCV always rounds it up."""
    made = images.resize(torch.from_numpy(picture).to(device), 48, 60).cpu().numpy()
    mean = picture.reshape(60, 2, 48, 2, 3).mean(axis=(1, 3))
    assert (made == np.rint(mean)).all()


@pytest.mark.parametrize("size", [(150, 200), (50, 77)])
def test_half_precision_is_off_by_one_level_at_most(
    picture: np.ndarray, device: torch.device, size: tuple[int, int]
) -> None:
    """float16 products stay within 1 level of OpenCV, in fewer than 6 % of values."""
    made = images.resize(torch.from_numpy(picture).to(device), *size, dtype=torch.float16)
    kind = cv2.INTER_CUBIC if size[0] > 96 else cv2.INTER_AREA
    greatest, share = differences(made, cv2.resize(picture, size, interpolation=kind))
    assert greatest <= 1 and share < 0.06


def test_its_own_size_changes_nothing(picture: np.ndarray, device: torch.device) -> None:
    """A picture resized to the size it has is itself, by either interpolation."""
    image = torch.from_numpy(picture).to(device)
    for kind in ("auto", "area", "cubic"):
        assert torch.equal(images.resize(image, 96, 120, interpolation=kind), image)


def test_each_image_of_a_batch_may_have_its_own_weights(device: torch.device) -> None:
    """Patches of several sizes and places land in one window at once, as OpenCV puts each."""
    random = np.random.default_rng(1)
    patches = random.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    boxes = [(5, 3, 45, 60), (0, 0, 64, 70), (10, 12, 43, 45)]  # x1, y1, x2, y2
    maps = [
        [images.resize_map(box[axis], box[axis + 2] - box[axis], 32, cubic=True) for box in boxes]
        for axis in (1, 0)
    ]
    scale, offset = torch.tensor(maps, device=device).permute(2, 0, 1)
    down = images.resize_weights(scale[0], offset[0], 32, 70, cubic=True)
    across = images.resize_weights(scale[1], offset[1], 32, 64, cubic=True)
    lines = images.to_lines(torch.from_numpy(patches).to(device))
    drawn = images.separable(lines, down, across).round().clamp(0, 255).permute(0, 1, 3, 2)
    for window, patch, (x1, y1, x2, y2) in zip(drawn, patches, boxes, strict=True):
        right = cv2.resize(patch, (x2 - x1, y2 - y1), interpolation=cv2.INTER_CUBIC)
        greatest, share = differences(window[y1:y2, x1:x2], right)
        assert greatest <= 1 and share < 0.01
        assert torch.isfinite(window).all()


# -- blur, sharpen, blend -------------------------------------------------------------------------


@pytest.mark.parametrize(("kernel", "sigma"), [(3, 0.8), (5, 1.0), (7, 1.5), (21, 4.0)])
def test_blur_is_opencv_s_to_the_last_bit(
    picture: np.ndarray, device: torch.device, kernel: int, sigma: float
) -> None:
    """uint8 pictures blur to exactly what `cv2.GaussianBlur` makes of them, borders too."""
    made = images.gaussian_blur(torch.from_numpy(picture).to(device), kernel, sigma)
    assert differences(made, cv2.GaussianBlur(picture, (kernel, kernel), sigma)) == (0, 0)


def test_floats_blur_without_rounding(picture: np.ndarray, device: torch.device) -> None:
    """A float picture blurs within 1e-3 of OpenCV, and stays float."""
    exact = picture.astype(np.float32)
    made = images.gaussian_blur(torch.from_numpy(exact).to(device), 5, 1.0)
    assert made.dtype == torch.float32
    np.testing.assert_allclose(made.cpu().numpy(), cv2.GaussianBlur(exact, (5, 5), 1.0), atol=1e-3)


@pytest.mark.parametrize("amount", [0.2, 0.45, 1.0, 2.0])
def test_sharpening_is_the_cpu_s(picture: np.ndarray, device: torch.device, amount: float) -> None:
    """At most 1 level from `sharpened`, in fewer than 1 % of values."""
    image = torch.from_numpy(picture).to(device)
    greatest, share = differences(images.unsharp_mask(image, amount), sharpened(picture, amount))
    assert greatest <= 1 and share < 0.01
    lines = images.unsharp_lines(images.to_lines(image[None]), amount)[0].permute(0, 2, 1)
    assert torch.equal(lines.to(torch.uint8), images.unsharp_mask(image, amount))


def test_no_sharpness_changes_nothing(picture: np.ndarray, device: torch.device) -> None:
    """Amount 0 returns the picture itself."""
    image = torch.from_numpy(picture).to(device)
    assert images.unsharp_mask(image, 0.0) is image
    assert torch.equal(images.unsharp_lines(images.to_lines(image), 0.0)[0, :, 1], image[..., 1])


def test_blending_is_the_formula_to_the_last_bit(device: torch.device) -> None:
    """round((below * (255 - a) + above * a) / 255), for every alpha and levels from end to end."""
    alpha = torch.arange(256, dtype=torch.uint8, device=device)
    below, above = alpha[::5][:, None, None], alpha[::3][None, :, None]
    made = images.blend(below, above, alpha)
    b, a, w = (x.cpu().numpy().astype(np.int64) for x in (below, above, alpha))
    total = b * (255 - w) + a * w
    assert (made.cpu().numpy() == (2 * total + 255) // 510).all()


# -- layouts and mistakes -------------------------------------------------------------------------


def test_every_layout_gives_the_same_pixels(picture: np.ndarray, device: torch.device) -> None:
    """[H, W, C], [B, H, W, C] and [B, C, H, W] come back as they went in, with equal values."""
    one = torch.from_numpy(picture).to(device)
    batch, planar = one[None], one.permute(2, 0, 1)[None]
    for operation in (
        lambda image, **layout: images.resize(image, 70, 200, **layout),
        lambda image, **layout: images.gaussian_blur(image, 5, 1.0, **layout),
        lambda image, **layout: images.unsharp_mask(image, 0.5, **layout),
    ):
        expected = operation(one)
        assert torch.equal(operation(batch)[0], expected)
        assert torch.equal(operation(planar, channels_last=False)[0].permute(1, 2, 0), expected)
        assert operation(planar, channels_last=False).is_contiguous()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda: images.resize(torch.zeros(4, 4, 3), 0, 4), "at least 1x1"),
        (lambda: images.resize(torch.zeros(4, 4, 3), 8, 4, interpolation="area"), "enlarge"),
        (lambda: images.resize(torch.zeros(4, 4), 2, 2), r"\[H, W, C\]"),
        (lambda: images.resize(torch.zeros(3, 4, 4), 2, 2, channels_last=False), r"\[B, C, H, W\]"),
        (lambda: images.resize(torch.zeros(4, 4, 3, dtype=torch.int32), 2, 2), "uint8 or floating"),
        (lambda: images.gaussian_blur(torch.zeros(4, 4, 3), 4, 1.0), "kernel of 4"),
        (lambda: images.gaussian_blur(torch.zeros(4, 4, 3), 9, 1.0), "kernel of 9"),
    ],
)
def test_unfit_arguments_are_errors(mistake, message: str) -> None:
    """A wrong shape, type, size or kernel is a ValueError that names it."""
    with pytest.raises(ValueError, match=message):
        mistake()
