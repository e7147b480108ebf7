"""A strong background becomes transparent, and its light leaves the person's edge."""

from __future__ import annotations

import numpy as np
import pytest

from wsavatar.videos.keying import ColourKey, KeyingError

GREEN = (0, 177, 64)


def test_the_background_goes_and_the_person_stays() -> None:
    """Skin, hair, a white shirt and shadows on the green."""
    colours = [GREEN, (10, 150, 60), (224, 172, 140), (90, 56, 40), (20, 20, 20), (250, 250, 250)]
    picture = np.array([colours], np.uint8)
    cut = ColourKey("#00b140").cut(picture)
    assert cut.shape == (1, 6, 4)
    np.testing.assert_array_equal(cut[0, :, 3], [0, 0, 255, 255, 255, 255])
    np.testing.assert_array_equal(cut[0, 2:, :3], picture[0, 2:])


def test_edges_are_soft_and_not_green() -> None:
    """A pixel of skin and more green: partly transparent, without the key's excess."""
    skin = np.array((224, 172, 140))
    picture = np.rint(0.3 * skin + 0.7 * np.array(GREEN)).astype(np.uint8)[None, None]
    red, green, blue, alpha = ColourKey("00b140").cut(picture)[0, 0]
    assert 0 < alpha < 255 and green <= max(red, blue)


@pytest.mark.parametrize(
    ("colour", "says"), [("green", "no colour"), ("#12", "no colour"), ("#e0e0e0", "too pale")]
)
def test_colours_that_cannot_be_keyed_are_named(colour: str, says: str) -> None:
    """A grey wall looks like teeth and shirts."""
    with pytest.raises(KeyingError, match=says):
        ColourKey(colour)
