"""Tells a person from the background: pictures and their faces to masks. Knows no avatar."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.landmarks.geometry import Place, check_picture, place_of
from wsavatar.landmarks.running import Network, Origin, fill, on_device
from wsavatar.person.refine import fitted
from wsavatar.resources import cache_directory, embedded_weights

__all__ = ["EmbeddedPersonMask", "PersonMask", "PersonMaskError", "face_hint", "load_person_mask"]

_AREA = 256 * 256
"""Pixels that the network sees of a picture."""
_MULTIPLE = 32
_NEAR, _BELOW = 5.0, 0.7
"""Side of the window around head and shoulders, and how far its middle is below the face's, in
sizes of the face."""
_MUCH = 0.6
"""Share of the picture from which on the window shows no more than the picture does."""
_CANVAS = 1024
"""Longest side at which the views are put together."""
_HEAD_HALF, _HEAD_ABOVE = 0.8, 1.6
"""From the face's middle to the head's sides and above its top, in sizes of the face."""
_HOLE = 0.03
"""Side of the smallest hole that is filled, and width of its rim: less shows through curls."""

_CODE = Path(__file__).with_name("networks.py")


class PersonMaskError(WsavatarError):
    """The network's file is not usable."""


class PersonMask(Protocol):
    """Finds the person with a face. Thread-safe, keeps nothing from picture to picture."""

    def masks(
        self, pictures: Sequence[np.ndarray], faces: Sequence[np.ndarray], /
    ) -> list[np.ndarray]:
        """Alpha uint8 [H, W] of each picture: 255 is the person, soft at the edges.

        ``pictures``: uint8 [H, W, 3] RGB, of any sizes. ``faces``: for each the iBUG-68 points
        [68, 2] of the person's face, in pixels. Raises ValueError for others.
        """


class EmbeddedPersonMask:
    """A `PersonMask` of one network (`wsavatar.person.networks`).

    It sees the whole picture, and, where that shows the person small, head and shoulders once
    more in a window of their own.
    """

    def __init__(self, network: Network) -> None:
        self._network = network

    def masks(
        self, pictures: Sequence[np.ndarray], faces: Sequence[np.ndarray], /
    ) -> list[np.ndarray]:
        """See `PersonMask`."""
        return [self._mask(*pair) for pair in zip(pictures, faces, strict=True)]

    def _mask(self, picture: np.ndarray, points: np.ndarray) -> np.ndarray:
        _check(picture, points)
        height, width = picture.shape[:2]
        place = place_of(points)
        canvas = self._view(picture, place, (0, 0, width, height))
        seen = 1.0
        near = _window(place, width, height)
        if near is not None:
            seen = max(near[2] - near[0], near[3] - near[1]) / max(width, height)
            canvas = _enlarged(canvas, width, height)
            _put(canvas, self._view(picture, place, near), near, width, height)
        canvas = _only(canvas, place, width, height)
        alpha = fitted(picture, canvas, seen)
        _close_head(alpha, place)
        made: np.ndarray = np.rint(255 * alpha).astype(np.uint8)
        return made

    def _view(
        self, picture: np.ndarray, place: Place, box: tuple[int, int, int, int]
    ) -> np.ndarray:
        """Alpha of a box (left, top, right, bottom), float32 at the network's size."""
        x1, y1, x2, y2 = box
        across, down = x2 - x1, y2 - y1
        scale = (_AREA / (across * down)) ** 0.5
        columns, rows = (
            max(_MULTIPLE, round(side * scale / _MULTIPLE) * _MULTIPLE) for side in (across, down)
        )
        method = cv2.INTER_AREA if columns < across else cv2.INTER_LINEAR
        seen = cv2.resize(picture[y1:y2, x1:x2], (columns, rows), interpolation=method)
        batch = np.empty((1, 4, rows, columns), np.float32)
        batch[0, :3] = seen.transpose(2, 0, 1) * np.float32(1 / 255)
        x, y = columns / across, rows / down
        batch[0, 3] = face_hint(
            (rows, columns),
            ((place.x - x1) * x, (place.y - y1) * y),
            (place.size * x, place.size * y),
        )
        logits = np.clip(self._network(batch)[0, 0], -30, 30)
        alpha: np.ndarray = 1 / (1 + np.exp(-logits))
        return alpha


def face_hint(
    shape: tuple[int, int], middle: tuple[float, float], size: tuple[float, float]
) -> np.ndarray:
    """Where a face is, float32 [h, w]: 1 at its middle, 0.32 at its sides. In pixels: x, y."""
    height, width = shape
    x = (np.arange(width, dtype=np.float32) + 0.5 - middle[0]) / size[0]
    y = (np.arange(height, dtype=np.float32) + 0.5 - middle[1]) / size[1]
    hint: np.ndarray = np.exp(-(x[None] ** 2 + y[:, None] ** 2) / (2 * 0.33**2)).astype(np.float32)
    return hint


def _window(place: Place, width: int, height: int) -> tuple[int, int, int, int] | None:
    """Head and shoulders, within the picture; None: that is most of the picture."""
    half = _NEAR / 2 * place.size
    x, y = place.x, place.y + _BELOW * place.size
    x1, y1 = max(0, round(x - half)), max(0, round(y - half))
    x2, y2 = min(width, round(x + half)), min(height, round(y + half))
    if x2 - x1 < _MULTIPLE or y2 - y1 < _MULTIPLE:
        return None
    return None if (x2 - x1) * (y2 - y1) > _MUCH * width * height else (x1, y1, x2, y2)


def _enlarged(alpha: np.ndarray, width: int, height: int) -> np.ndarray:
    """The picture's alpha at the size at which views are put together."""
    scale = min(1.0, _CANVAS / max(width, height))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(alpha, size, interpolation=cv2.INTER_LINEAR)


def _put(
    canvas: np.ndarray, view: np.ndarray, box: tuple[int, int, int, int], width: int, height: int
) -> None:
    """Put the view of a box into the picture's alpha, fading out at borders within the picture."""
    rows, columns = canvas.shape
    x, y = columns / width, rows / height
    x1, x2, y1, y2 = (round(v) for v in (box[0] * x, box[2] * x, box[1] * y, box[3] * y))
    across, down = (
        _ramp(low, high, whole) for low, high, whole in ((x1, x2, columns), (y1, y2, rows))
    )
    weight = np.minimum(down[:, None], across[None])
    part = canvas[y1:y2, x1:x2]
    part += weight * (cv2.resize(view, (x2 - x1, y2 - y1), interpolation=cv2.INTER_LINEAR) - part)


def _close_head(alpha: np.ndarray, place: Place) -> None:
    """Fill what the head encloses, such as a ribbon in the hair: nobody sees through a head.

    Above the nose alone: between a neck and long hair, or an arm, there may be something to see.
    """
    half, top = _HEAD_HALF * place.size, place.y - _HEAD_ABOVE * place.size
    x1, x2, y1, y2 = (max(0, round(at)) for at in (place.x - half, place.x + half, top, place.y))
    head = alpha[y1:y2, x1:x2]
    if min(head.shape) < 3:
        return
    count, parts = cv2.connectedComponents((head < 0.5).astype(np.uint8), connectivity=4)
    sizes = np.bincount(parts.ravel().astype(np.intp), minlength=count)
    enclosed = sizes >= (_HOLE * place.size) ** 2
    enclosed[0] = False
    for border in (parts[0], parts[-1], parts[:, 0], parts[:, -1]):
        enclosed[border] = False
    holes = enclosed[parts].astype(np.uint8)
    side = 2 * max(1, round(_HOLE * place.size)) + 1
    rims = (cv2.dilate(holes, np.ones((side, side), np.uint8)) > 0) & (head >= 0.5)
    head[rims | (holes > 0)] = 1


def _ramp(low: int, high: int, whole: int) -> np.ndarray:
    """Weights of pixels from ``low`` to ``high``: less towards ends that are not the whole's."""
    at = np.arange(high - low, dtype=np.float32) + 0.5
    fade = np.float32(0.15 * (high - low))
    weights = np.ones(high - low, np.float32)
    if low > 0:
        weights = np.minimum(weights, at / fade)
    if high < whole:
        weights = np.minimum(weights, at[::-1] / fade)
    return weights


def _only(alpha: np.ndarray, place: Place, width: int, height: int) -> np.ndarray:
    """The alpha without what is not joined to the face."""
    rows, columns = alpha.shape
    _, parts = cv2.connectedComponents((alpha > 0.5).astype(np.uint8))
    row = min(rows - 1, max(0, int(place.y * rows / height)))
    column = min(columns - 1, max(0, int(place.x * columns / width)))
    if not parts[row, column]:
        return alpha
    mine = (parts == parts[row, column]).astype(np.uint8)
    side = 2 * max(2, max(rows, columns) // 50) + 1
    near = cv2.dilate(mine, np.ones((side, side), np.uint8)).astype(np.float32)
    made: np.ndarray = alpha * cv2.blur(near, (5, 5))
    return made


def _check(picture: np.ndarray, points: np.ndarray) -> None:
    check_picture(picture)
    if points.shape != (68, 2) or not np.isfinite(points).all() or place_of(points).size <= 0:
        raise ValueError(f"a face is 68 points [68, 2] in pixels, not {points.shape}")


def load_person_mask(settings: Settings, device: str | None = None) -> EmbeddedPersonMask:
    """Load the package's network on ``device`` (``cpu``, ``cuda:0``), by default the CPU.

    Takes a second or two the first time. Raises PersonMaskError.
    """
    return load_from(
        embedded_weights() / "person",
        device or "cpu",
        settings.avatars.cache,
        threads=settings.model.cpu_threads,
    )


def load_from(
    directory: Path, device: str, cache: Path | None = None, *, threads: int = 0
) -> EmbeddedPersonMask:
    """The mask of a folder with ``network.safetensors``.

    ``cache`` (None: that of all programs of the user) keeps what was converted of it.
    """
    try:
        weights = (directory / "network.safetensors").read_bytes()
    except OSError as error:
        raise _unusable(directory, error) from error
    example = (4, 2 * _MULTIPLE, 2 * _MULTIPLE)
    origin = Origin("person", weights, _CODE, cache or cache_directory())
    make = partial(_module, directory, weights)
    return EmbeddedPersonMask(
        on_device(make, device, example, origin, fixed=False, threads=threads)
    )


def _module(directory: Path, weights: bytes) -> Any:
    """The network with its weights, in torch. Raises PersonMaskError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from wsavatar.person.networks import PersonNetwork

    network = PersonNetwork()
    try:
        fill(network, load(weights))
    except (RuntimeError, SafetensorError) as error:
        raise _unusable(directory, error) from error
    return network


def _unusable(directory: Path, error: Exception) -> PersonMaskError:
    return PersonMaskError(
        f"{directory} has no usable person mask ({error}): install wsavatar again"
    )
