"""Crop, mask and paste: the mouth goes back to where it came from, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.drawn_faces import draw_face, face_landmarks
from wsavatar.faces.avatar_face import CELL, AvatarFace, Jaw
from wsavatar.faces.musetalk.geometry import (
    GeometryError,
    crop_box,
    lower_face_mask,
    mouth_shift,
    paste_box,
    smooth_landmarks,
    take_crop,
)
from wsavatar.faces.musetalk.jaw import jaw_of_face
from wsavatar.faces.musetalk.spec import CropMargin
from wsavatar.media import jpeg
from wsavatar.media.video import read_video
from wsavatar.render.finish.jaw import move_pixels, read_jaw
from wsavatar.render.finish.paste import COLOUR_MATCH_LEVELS, colour_matched, paste, sharpened

W, H = 320, 300
V15 = CropMargin(pixels=10)


@pytest.fixture
def landmarks() -> np.ndarray:
    return face_landmarks((160, 140), 120)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


# -- crop -----------------------------------------------------------------------------------------


def test_the_crop_spans_the_face_and_ends_below_the_chin(landmarks: np.ndarray) -> None:
    """x from the landmarks' extent, y2 ten pixels under the chin, landmark 29 in the middle."""
    x1, y1, x2, y2 = crop_box(landmarks, V15, W, H)
    assert (x1, x2) == (round(landmarks[:, 0].min()), round(landmarks[:, 0].max()))
    assert y2 == round(landmarks[8, 1] + 10)
    assert (y1 + y2) / 2 == pytest.approx(landmarks[29, 1], abs=1)


def test_a_relative_margin_grows_with_the_face(landmarks: np.ndarray) -> None:
    """A margin of a tenth is a tenth of the box's height, at any size of face."""
    height = 2 * (landmarks[8, 1] - landmarks[29, 1])
    _, _, _, y2 = crop_box(landmarks, CropMargin(relative=0.1), W, H)
    assert y2 == pytest.approx(landmarks[8, 1] + height / 10, abs=1)


def test_a_high_mouth_is_shown_where_the_model_draws_it(landmarks: np.ndarray) -> None:
    """Of a smile the crop's middle is further up, in all frames alike; others stay."""
    several = np.stack([landmarks, landmarks + 5, landmarks])
    assert not mouth_shift(several).any()
    several[:, 48:68, 1] -= 0.12 * (landmarks[8, 1] - landmarks[29, 1])
    several[1, 60:68, 1] += 4
    shifts = mouth_shift(several)
    assert shifts[0] < -2 and np.ptp(shifts) < 0.01
    _, y1, _, y2 = crop_box(several[0], CropMargin(), W, H, bbox_shift=float(shifts[0]))
    mouth = several[0, [62, 66], 1].mean()
    assert (mouth - (y1 + y2) / 2) / ((y2 - y1) / 2) == pytest.approx(0.5, abs=0.02)


def test_bbox_shift_moves_the_middle_down(landmarks: np.ndarray) -> None:
    """v1.0's bbox_shift moves the line where the redrawn half begins; there is no margin."""
    _, y1, _, y2 = crop_box(landmarks, CropMargin(), W, H, bbox_shift=7)
    assert y2 == round(landmarks[8, 1])
    assert (y1 + y2) / 2 == pytest.approx(landmarks[29, 1] + 7, abs=1)


def test_a_chin_at_the_picture_s_edge_keeps_the_middle(landmarks: np.ndarray) -> None:
    """Where the margin does not fit, the box shrinks about the nose; the halves stay halves."""
    height = int(landmarks[8, 1]) + 4
    _, y1, _, y2 = crop_box(landmarks, V15, W, height)
    assert y2 == height
    assert (y1 + y2) / 2 == pytest.approx(landmarks[29, 1], abs=1)


def test_boxes_never_leave_the_picture() -> None:
    """For any face, boxes and mask fit the picture, or an error gives the reason."""
    rng = np.random.default_rng(0)
    placed = 0
    for _ in range(200):
        centre, size = (rng.uniform(0, W), rng.uniform(0, H)), rng.uniform(20, 400)
        points = face_landmarks(centre, size)
        try:
            crop = crop_box(points, V15, W, H)
        except GeometryError:
            continue
        placed += 1
        square = paste_box(crop, W, H)
        assert 0 <= square[0] <= crop[0] < crop[2] <= square[2] <= W
        assert 0 <= square[1] <= crop[1] < crop[3] <= square[3] <= H
        mask = lower_face_mask(points, crop, square, W, H)
        assert mask.shape == (square[3] - square[1], square[2] - square[0])
    assert placed > 50


def test_a_face_outside_the_picture_is_an_error() -> None:
    """No box is invented for a face that cannot be seen."""
    with pytest.raises(GeometryError, match="32"):
        crop_box(face_landmarks((-200, 100), 80), V15, W, H)


def test_smoothing_calms_jitter_and_leaves_motion(landmarks: np.ndarray) -> None:
    """A detector's trembling shrinks to less than half; a steady drift stays where it was."""
    rng = np.random.default_rng(1)
    drift = np.arange(50)[:, None, None] * np.array([0.8, 0.2])
    exact = landmarks + drift
    trembling = exact + rng.normal(0, 0.5, exact.shape)
    calm = smooth_landmarks(trembling, 25)
    assert np.abs(calm - exact).mean() < 0.5 * np.abs(trembling - exact).mean()
    assert np.abs(smooth_landmarks(exact, 25) - exact)[8:-8].max() < 0.01


@pytest.mark.parametrize("count", [1, 2, 3])
def test_smoothing_takes_any_number_of_frames(landmarks: np.ndarray, count: int) -> None:
    """Even a single picture is an avatar; what does not move is not moved."""
    still = np.repeat(landmarks[None], count, axis=0)
    np.testing.assert_allclose(smooth_landmarks(still, 25), still, atol=1e-3)


# -- mask -----------------------------------------------------------------------------------------


def test_the_mask_covers_the_mouth_and_an_opened_jaw_but_no_eyes(landmarks: np.ndarray) -> None:
    """Lips and chin are replaced entirely, the eyes not at all."""
    crop = crop_box(landmarks, CropMargin(relative=0.1), W, H)
    square = paste_box(crop, W, H)
    full = np.zeros((H, W), np.uint8)
    mask = lower_face_mask(landmarks, crop, square, W, H)
    full[square[1] : square[3], square[0] : square[2]] = mask
    lips = np.round(landmarks[48:68]).astype(int)
    assert (full[lips[:, 1], lips[:, 0]] == 255).all()
    x, y = np.round(landmarks[8]).astype(int)
    assert full[y, x] == 255
    assert full[y + 8, x] > 200  # an opened jaw reaches here
    eyes = np.round(landmarks[36:48]).astype(int)
    assert not full[eyes[:, 1], eyes[:, 0]].any()


def test_the_mask_fades_out_inside_the_crop(landmarks: np.ndarray) -> None:
    """At the crop's own borders nothing shows, so no pixel is shown that the model did not draw."""
    crop = crop_box(landmarks, V15, W, H)
    square = paste_box(crop, W, H)
    mask = lower_face_mask(landmarks, crop, square, W, H)
    left, top = square[:2]
    inner = mask[crop[1] - top : crop[3] - top, crop[0] - left : crop[2] - left]
    assert mask.sum(dtype=int) == inner.sum(dtype=int)
    assert not (inner[-1].any() or inner[:, 0].any() or inner[:, -1].any())
    assert np.abs(np.diff(inner.astype(int), axis=0)).max() < 100  # no hard edge anywhere
    assert np.abs(np.diff(inner.astype(int), axis=1)).max() < 100


def test_rows_the_model_does_not_draw_are_never_shown(landmarks: np.ndarray) -> None:
    """A model that leaves the upper rows black never darkens the picture."""
    crop = crop_box(landmarks, V15, W, H)
    square = paste_box(crop, W, H)
    frame = draw_face(W, H, landmarks)
    for first_row in (0.40, 0.4375, 0.5):
        mask = lower_face_mask(landmarks, crop, square, W, H, first_row=first_row)
        patch = take_crop(frame, crop, 256)
        patch[: int(first_row * 256)] = 0
        pasted = paste(frame, patch, crop, square, mask)
        assert np.abs(pasted.astype(int) - frame).max() < 40


def test_the_region_holds_every_mask_on_the_grid_of_jpeg(landmarks: np.ndarray) -> None:
    """What is sent in mouth-region mode encloses all that can change, in whole blocks."""
    masks, boxes = [], []
    for shift in (0, 3, 7):
        points = landmarks + [shift, -shift]
        crop = crop_box(points, V15, W, H)
        boxes.append(paste_box(crop, W, H))
        masks.append(lower_face_mask(points, crop, boxes[-1], W, H))
    squares = np.array(boxes)
    x, y, w, h = AvatarFace(squares, squares, tuple(masks), np.zeros(3)).region(W, H)
    assert not (x % 16 or y % 16)
    assert (x + w) % 16 == 0 or x + w == W
    assert (y + h) % 16 == 0 or y + h == H
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        full = np.zeros((H, W), np.uint8)
        full[top:bottom, left:right] = mask
        assert full.any()
        full[y : y + h, x : x + w] = 0
        assert not full.any()


# -- paste ----------------------------------------------------------------------------------------


def test_pasting_a_frame_s_own_crop_changes_nothing_one_can_see(landmarks: np.ndarray) -> None:
    """Crop to 256, paste back: over 40 dB in the mask, and not one pixel outside it."""
    frame = draw_face(W, H, landmarks)
    frame.flags.writeable = False
    crop = crop_box(landmarks, V15, W, H)
    square = paste_box(crop, W, H)
    mask = lower_face_mask(landmarks, crop, square, W, H)
    pasted = paste(frame, take_crop(frame, crop, 256), crop, square, mask)
    touched = np.zeros((H, W), bool)
    touched[square[1] : square[3], square[0] : square[2]] = mask > 0
    assert psnr(pasted[touched], frame[touched]) > 40
    assert (pasted[~touched] == frame[~touched]).all()


def test_blending_is_the_formula_to_the_last_bit() -> None:
    """round((below * (255 - a) + above * a) / 255) for every alpha; 0 and 255 are exact copies."""
    alpha = np.arange(256, dtype=np.uint8)
    mask = np.tile(alpha, (40, 1))
    rng = np.random.default_rng(2)
    frame = rng.integers(0, 256, (40, 256, 3), dtype=np.uint8)
    patch = rng.integers(0, 256, (40, 256, 3), dtype=np.uint8)
    box = (0, 0, 256, 40)
    pasted = paste(frame, patch, box, box, mask)
    a = alpha[None, :, None].astype(float)
    expected = np.floor((frame * (255 - a) + patch * a) / 255 + 0.5)
    assert (pasted == expected).all()


def test_a_frame_cut_to_its_region_pastes_as_the_whole_one_does(landmarks: np.ndarray) -> None:
    """Mouth-region mode shows the very pixels that full mode shows there."""
    frame = draw_face(W, H, landmarks)
    crop = crop_box(landmarks, V15, W, H)
    square = paste_box(crop, W, H)
    mask = lower_face_mask(landmarks, crop, square, W, H)
    patch = np.random.default_rng(3).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    squares = np.array([square])
    x, y, w, h = AvatarFace(squares, squares, (mask,), np.zeros(1)).region(W, H)
    offset = np.array([x, y, x, y])
    whole = paste(frame, patch, crop, square, mask)
    part = paste(frame[y : y + h, x : x + w], patch, crop - offset, square - offset, mask)
    assert (part == whole[y : y + h, x : x + w]).all()


def test_a_mouth_laid_on_the_idle_picture_has_no_seam(landmarks: np.ndarray) -> None:
    """The JPEG of the region, on the idle picture's JPEG, is the JPEG of the whole picture.

    Only its outermost pixels differ a little: chroma is smoothed across blocks.
    """
    rng = np.random.default_rng(4)
    noise = cv2.GaussianBlur(rng.normal(0, 20, (H, W, 3)), (0, 0), 3)
    frame = np.clip(draw_face(W, H, landmarks) + noise, 0, 255).astype(np.uint8)
    crop = crop_box(landmarks, V15, W, H)
    square = paste_box(crop, W, H)
    mask = lower_face_mask(landmarks, crop, square, W, H)
    squares = np.array([square])
    x, y, w, h = AvatarFace(squares, squares, (mask,), np.zeros(1)).region(W, H)
    spoken = paste(frame, np.roll(take_crop(frame, crop, 256), 9, axis=0), crop, square, mask)
    whole = _seen(spoken)
    laid = _seen(frame)
    laid[y : y + h, x : x + w] = _seen(np.ascontiguousarray(spoken[y : y + h, x : x + w]))
    difference = np.abs(laid - whole).max(axis=2)
    assert difference.max() <= 24
    assert difference.mean() < 0.02
    difference[y : y + h, x : x + w][[0, -1]] = 0
    difference[y : y + h, x : x + w][:, [0, -1]] = 0
    difference[[y - 1, min(y + h, H - 1)]] = 0
    difference[:, [x - 1, min(x + w, W - 1)]] = 0
    assert difference.max() == 0


def _seen(picture: np.ndarray) -> np.ndarray:
    data = np.frombuffer(jpeg.encode(picture, 85), np.uint8)
    return cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB).astype(int)


def test_an_empty_mask_changes_nothing(landmarks: np.ndarray) -> None:
    """Nothing to show is nothing to do, not an error."""
    frame = draw_face(W, H, landmarks)
    patch = np.zeros((256, 256, 3), np.uint8)
    pasted = paste(frame, patch, (50, 50, 90, 90), (40, 40, 100, 100), np.zeros((60, 60), np.uint8))
    assert (pasted == frame).all()


def test_a_real_face_goes_back_into_its_picture(samples_dir: Path) -> None:
    """On a real clip with detected landmarks: over 40 dB in the mask through crop and paste."""
    points = smooth_landmarks(np.load(samples_dir / "sun_landmarks68.npy"), 25)
    info, frames = read_video(samples_dir / "sun.mp4", max_frames=40)
    for index in range(0, 40, 13):
        frame = frames[index]
        crop = crop_box(points[index], V15, info.width, info.height)
        square = paste_box(crop, info.width, info.height)
        mask = lower_face_mask(points[index], crop, square, info.width, info.height)
        pasted = paste(frame, take_crop(frame, crop, 256), crop, square, mask)
        touched = np.zeros(frame.shape[:2], bool)
        touched[square[1] : square[3], square[0] : square[2]] = mask > 0
        assert psnr(pasted[touched], frame[touched]) > 40
        assert (pasted[~touched] == frame[~touched]).all()


# -- sharpness ------------------------------------------------------------------------------------


def test_sharpening_gives_back_detail_that_blur_took() -> None:
    """A blurred face, sharpened, is nearer to the face and has more of its gradients."""
    face = draw_face(W, H, face_landmarks((160, 140), 120))
    soft = cv2.GaussianBlur(face, (5, 5), 0.8)
    crisp = sharpened(soft, 0.4)
    gradients = [np.abs(np.diff(v.astype(int), axis=1)).sum() for v in (soft, crisp, face)]
    assert gradients[0] < gradients[1] <= 1.02 * gradients[2]
    assert psnr(crisp, face) > psnr(soft, face)


def test_no_sharpness_changes_nothing_and_flat_skin_stays_flat() -> None:
    """Sharpness 0 returns the patch itself; where there is no detail none is invented."""
    flat = np.full((32, 32, 3), 140, np.uint8)
    assert sharpened(flat, 0.0) is flat
    assert (sharpened(flat, 1.0) == 140).all()


# -- jaw ------------------------------------------------------------------------------------------


class Bearded:
    """A face whose skin is all hair, of which the model draws hardly any, and its jaw."""

    def __init__(self, frame: np.ndarray, landmarks: np.ndarray) -> None:
        hair = np.random.default_rng(5).normal(0, 18, frame.shape[:2])[..., None]
        self.frame = np.clip(frame + hair, 0, 255).astype(np.uint8)
        self.crop = crop_box(landmarks, CropMargin(relative=0.1), W, H)
        self.square = paste_box(self.crop, W, H)
        self.mask = lower_face_mask(landmarks, self.crop, self.square, W, H, first_row=112 / 256)
        self.soft = cv2.GaussianBlur(take_crop(self.frame, self.crop, 256), (15, 15), 4)
        self.jaw = jaw_of_face(landmarks, self.crop, self.soft, 112)

    def moved(self, picture: np.ndarray, cells: float) -> np.ndarray:
        """The picture of this face with its jaw opened by so many cells."""
        moved = picture.copy()
        move_pixels(moved, self.jaw, cells)
        return moved

    def spoken(self, cells: float) -> np.ndarray:
        """The model's picture of the opened jaw."""
        opened = take_crop(self.moved(self.frame, cells), self.crop, 256)
        return cv2.GaussianBlur(opened, (15, 15), 4)

    def pasted(self, patch: np.ndarray, jaw: Jaw | None) -> np.ndarray:
        return paste(self.frame, patch, self.crop, self.square, self.mask, jaw=jaw)


@pytest.fixture
def bearded(landmarks: np.ndarray) -> Bearded:
    return Bearded(draw_face(W, H, landmarks), landmarks)


@pytest.mark.parametrize("cells", [-1.5, 0.0, 0.7, 2.0, 3.6])
def test_how_far_a_jaw_is_open_is_read_off_the_patch(bearded: Bearded, cells: float) -> None:
    """To a quarter of a cell, so one pixel of the patch, up and down."""
    read = read_jaw(bearded.spoken(cells), bearded.jaw)
    assert read.opened == pytest.approx(cells, abs=0.25)
    assert read.share.shape == (144 // CELL, 256 // CELL)


def test_a_mouth_at_rest_is_the_avatar_s_own(bearded: Bearded) -> None:
    """Where the patch shows the face at rest, all that the model lost of it is there."""
    made = bearded.pasted(bearded.soft, bearded.jaw)
    assert psnr(made, bearded.frame) > 50
    assert psnr(bearded.pasted(bearded.soft, None), bearded.frame) < 35


def test_a_beard_keeps_its_hair_while_the_jaw_moves(bearded: Bearded) -> None:
    """The frame's own hair moves with the chin; without it the model's smear is shown."""
    patch, right = bearded.spoken(3.0), bearded.moved(bearded.frame, 3.0)
    chin = np.s_[175:205, 130:190]
    with_hair, without = (bearded.pasted(patch, jaw)[chin] for jaw in (bearded.jaw, None))
    still = bearded.frame[chin]
    assert psnr(with_hair, right[chin]) > psnr(without, right[chin]) + 3
    assert psnr(with_hair, right[chin]) > psnr(still, right[chin]) + 3


def test_what_opens_between_the_lips_is_the_model_s(
    bearded: Bearded, landmarks: np.ndarray
) -> None:
    """An opened mouth has no trace of the lips at rest, while cheeks and chin keep their hair."""
    patch = bearded.spoken(0.0)
    x1, y1, x2, y2 = bearded.crop
    scale = np.array([256 / (x2 - x1), 256 / (y2 - y1)])
    middle = tuple(int(v) for v in (landmarks[48:68].mean(axis=0) - (x1, y1)) * scale)
    cv2.ellipse(patch, middle, (24, 14), 0, 0, 360, (60, 20, 25), -1)
    made = bearded.pasted(patch, bearded.jaw)
    x, y = np.round(landmarks[48:68].mean(axis=0)).astype(int)
    assert np.abs(made[y - 3 : y + 3, x - 8 : x + 8].astype(int) - (60, 20, 25)).max() <= 4
    cheek = np.s_[y - 4 : y + 4, x1 + 8 : x1 + 20]
    assert np.abs(made[cheek].astype(int) - bearded.frame[cheek]).max() <= 2


def test_a_frame_cut_to_its_region_moves_its_jaw_as_the_whole_one_does(bearded: Bearded) -> None:
    """What moves lies in the region, and the region's own pixels are all that it needs."""
    parts = [array[None].copy() for array in bearded.jaw.arrays().values()]
    squares = np.array([bearded.square])
    face = AvatarFace(np.array([bearded.crop]), squares, (bearded.mask,), np.zeros(1), Jaw(*parts))
    x, y, w, h = face.region(W, H)
    patch = bearded.spoken(4.0)
    whole = bearded.pasted(patch, bearded.jaw)
    offset = np.array([x, y, x, y])
    jaw = replace(bearded.jaw, boxes=bearded.jaw.boxes - offset)
    part = paste(
        bearded.frame[y : y + h, x : x + w],
        patch,
        bearded.crop - offset,
        bearded.square - offset,
        bearded.mask,
        jaw=jaw,
    )
    assert (part == whole[y : y + h, x : x + w]).all()
    whole[y : y + h, x : x + w] = bearded.frame[y : y + h, x : x + w]
    assert (whole == bearded.frame).all()


# -- colour match ---------------------------------------------------------------------------------


def test_a_drifted_colour_is_moved_to_the_frame_s() -> None:
    """A patch a few levels off in each channel gets the seam's own colours everywhere."""
    below = np.full((40, 40, 3), (200, 150, 120), np.uint8)
    above = np.full((40, 40, 3), (196, 151, 125), np.uint8)
    alpha = np.zeros((40, 40), np.uint8)
    alpha[5:35, 5:35], alpha[10:30, 10:30] = 128, 255
    assert (colour_matched(above, below, alpha) == below).all()


def test_colour_match_is_limited() -> None:
    """Another light is not a drift: no channel moves further than the limit, nor past 0 or 255."""
    below, above = np.full((4, 4, 3), 250, np.uint8), np.full((4, 4, 3), 40, np.uint8)
    alpha = np.full((4, 4), 99, np.uint8)
    assert (colour_matched(above, below, alpha) == 40 + COLOUR_MATCH_LEVELS).all()
    above[0, 0] = 254
    assert (colour_matched(above, below, alpha)[0, 0] == 255).all()


def test_without_a_soft_border_no_colour_moves() -> None:
    """Where the mask is all or nothing there is no skin that both pictures show."""
    below, above = np.full((4, 4, 3), 99, np.uint8), np.full((4, 4, 3), 90, np.uint8)
    alpha = np.full((4, 4), 255, np.uint8)
    assert (colour_matched(above, below, alpha) == above).all()


def test_a_true_patch_keeps_its_colours(landmarks: np.ndarray) -> None:
    """Where the model drew the truth, matching changes nothing beyond rounding."""
    frame = draw_face(W, H, landmarks)
    crop = crop_box(landmarks, V15, W, H)
    square = paste_box(crop, W, H)
    mask = lower_face_mask(landmarks, crop, square, W, H)
    patch = take_crop(frame, crop, 256)
    plain = paste(frame, patch, crop, square, mask)
    matched = paste(frame, patch, crop, square, mask, colour_match=True)
    assert np.abs(matched.astype(int) - plain).max() <= 1
    drifted = np.clip(patch.astype(int) - 4, 0, 255).astype(np.uint8)
    repaired = paste(frame, drifted, crop, square, mask, colour_match=True)
    assert psnr(repaired, frame) > psnr(paste(frame, drifted, crop, square, mask), frame) + 6
