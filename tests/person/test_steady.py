"""Masks of a clip: calm where the picture stands still, at once where it moves."""

from __future__ import annotations

import numpy as np

from wsavatar.person.steady import steady


def noisy_clip(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """A still picture with a sensor's noise, and masks whose edge flickers."""
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        picture = np.clip(np.round(120 + rng.normal(0, 4, (96, 96, 3))), 0, 255).astype(np.uint8)
        mask = np.zeros((96, 96), np.uint8)
        mask[:, 48:] = 255
        mask[:, 46:50] = np.round(128 + rng.uniform(-40, 40, (96, 4))).astype(np.uint8)
        pairs.append((picture, mask))
    return pairs


def changes(masks: list[np.ndarray]) -> float:
    return float(np.abs(np.diff(np.stack(masks).astype(float), axis=0))[:, :, 46:50].mean())


def test_a_still_picture_s_edges_do_not_flicker() -> None:
    """The masks change by less than a sixth of what they did, and keep their mean."""
    pairs = noisy_clip(40)
    calm = list(steady(pairs))
    assert changes(calm) < changes([mask for _, mask in pairs]) / 6
    assert abs(np.mean(calm[-1][:, 46:50]) - 128) < 6
    assert (calm[-1][:, 60:] == 255).all() and (calm[-1][:, :40] == 0).all()


def test_movement_is_followed_at_once() -> None:
    """Where something else is seen now, the mask is the new one, not a mean."""
    pictures = np.full((2, 96, 96, 3), 60, np.uint8)
    masks = np.zeros((2, 96, 96), np.uint8)
    for k, left in enumerate((10, 40)):
        pictures[k, 20:70, left : left + 30] = 200
        masks[k, 20:70, left : left + 30] = 255
    _, second = steady(zip(pictures, masks, strict=True))
    assert np.abs(second.astype(int) - masks[1]).max() <= 1


def test_a_slow_change_is_followed_too() -> None:
    """Light that changes by less than noise from picture to picture adds up to a movement."""
    masks, shown = [], []
    for k in range(60):
        pictures = np.full((64, 64, 3), 60 + k, np.uint8)
        mask = np.full((64, 64), 4 * k, np.uint8)
        masks.append(mask)
        shown.append((pictures, mask))
    last = list(steady(shown))[-1]
    assert np.abs(last.astype(int) - masks[-1]).max() < 40


def test_another_size_begins_anew() -> None:
    """A picture of another size is not mixed with those before."""
    pairs = [(np.zeros((s, s, 3), np.uint8), np.full((s, s), s, np.uint8)) for s in (32, 48)]
    assert [(int(m[0, 0]), len(m)) for m in steady(pairs)] == [(32, 32), (48, 48)]
