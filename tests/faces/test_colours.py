"""Colours of a face: a patch keeps to them, so no grey photo gets a coloured mouth."""

from __future__ import annotations

import numpy as np

from wsavatar.faces.colours import ALL_COLOURS, all_of, colours_of, with_colours


def random_picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def of_grey(levels: np.ndarray) -> np.ndarray:
    return np.repeat(levels[..., None], 3, axis=-1)


def test_a_grey_face_makes_a_grey_patch() -> None:
    """Whatever a model draws; its light and shade stay."""
    face = of_grey(np.arange(40, 220, dtype=np.uint8))
    drawn = random_picture()
    made = with_colours(drawn, colours_of(face))
    np.testing.assert_array_equal(made, of_grey(drawn[..., 1]))


def test_a_sepia_face_keeps_its_tone() -> None:
    """Nothing turns blue, and what was brown stays."""
    light = np.arange(60, 200, dtype=np.int16)
    face = np.stack([light + 24, light + 4, light - 20], 1).astype(np.uint8)
    colours = colours_of(face)
    np.testing.assert_array_equal(with_colours(face[None], colours)[0], face)
    made = with_colours(random_picture(), colours).astype(int)
    assert (made[..., 2] <= made[..., 1]).all()


def test_colours_of_the_face_stay() -> None:
    """To the last bit, and teeth without colour may be drawn in any face."""
    skin = np.random.default_rng(3).normal((205, 150, 125), (12, 9, 9), (4000, 3))
    face = np.clip(skin, 0, 255).astype(np.uint8)
    colours = colours_of(face)
    kept = (with_colours(face[None], colours)[0] == face).all(axis=1)
    assert kept.mean() > 0.95
    teeth = of_grey(np.arange(256, dtype=np.uint8))[None]
    np.testing.assert_array_equal(with_colours(teeth, colours), teeth)


def test_lilac_of_a_mouth_turns_red() -> None:
    """A tongue has more red than green, but no more blue than the lips."""
    rng = np.random.default_rng(4)
    skin, lips = (
        rng.normal(colour, 5, (count, 3))
        for colour, count in (((220, 170, 145), 3500), ((190, 95, 95), 500))
    )
    face = np.clip(np.concatenate([skin, lips]), 0, 255).astype(np.uint8)
    red, green, blue = with_colours(
        np.full((1, 1, 3), (190, 110, 180), np.uint8), colours_of(face)
    )[0, 0].astype(int)
    assert (red, green) == (190, 110) and blue < green + 20


def test_frames_of_a_clip_share_their_colours() -> None:
    """What one of them has, all may have; with all colours a picture stays as it is."""
    one, two = (np.array(pairs, np.int16) for pairs in ([[-5, -9], [40, 0]], [[0, -30], [9, 3]]))
    np.testing.assert_array_equal(all_of([one, two]), [[-5, -30], [40, 3]])
    picture = random_picture(1)
    np.testing.assert_array_equal(with_colours(picture, ALL_COLOURS), picture)


def test_a_face_of_which_nothing_is_seen_keeps_no_patch_from_its_colours() -> None:
    """Tilted in a corner, all that lies between jaw and nose may be beyond the picture."""
    drawn = random_picture()
    colours = colours_of(np.empty((0, 3), np.uint8))
    np.testing.assert_array_equal(with_colours(drawn, colours), drawn)
