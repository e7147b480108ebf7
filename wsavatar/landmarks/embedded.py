"""The detector in the package: two small networks, on a CPU through OpenVINO, on a GPU by torch.

One finds faces of a range of sizes in the picture at several scales; the other finds the points in
an upright crop around each, and says whether there is a face at all. To follow a face only the
second runs, on a crop around the points of the picture before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.landmarks.base import Face
from wsavatar.landmarks.geometry import MIRROR, Place, check_picture, crop, overlap, place_of
from wsavatar.landmarks.running import Network, Origin, fill, on_device
from wsavatar.resources import cache_directory, embedded_weights

__all__ = ["EmbeddedDetector", "LandmarkWeightsError", "Thresholds", "load"]

_CELL = 8
_LONG_SIDES = (512, 256, 128, 64)
_FINER_SIDE = 1024
"""Tried where nothing was found: faces smaller than a 25th of the picture."""
_TILTS = (-35.0, 35.0)
"""Degrees by which the picture is turned where nothing was found: the finder is sure of a head
that is tilted by up to 25 degrees."""
_MOST_CANDIDATES = 12
_SMALLEST = 8.0
"""Face sizes in pixels below which there is nothing to see."""
_APART = 0.02
"""Distance between the points of a face and of its mirror image that costs most of the score, in
parts of the face's size."""
_CERTAIN = 0.98
"""A followed face with a lower score is looked at in the mirror too. One that has it there also,
but other points, is looked at in crops near its own."""
_NEAR = (
    (0.0, 0.0, 1.0, 0), (0.04, 0.02, 1.06, 4), (-0.04, -0.02, 0.95, -4), (0.02, -0.04, 1.03, -7),
    (-0.02, 0.04, 0.97, 7), (0.03, 0.0, 1.1, 0), (0.0, -0.03, 0.92, 3),
)  # fmt: skip
"""Those crops: by how much they are moved, in sizes of the face, enlarged, and turned, in
degrees."""
_STEADY = 0.0112
"""Spread of the points over these crops that costs most of the score, in sizes of the face."""
_MOVED = 0.12
"""A face that moved by more, in parts of its size, is looked at once more where it is now."""

_CODE = Path(__file__).with_name("networks.py")


class LandmarkWeightsError(WsavatarError):
    """The detector's files are not usable."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """From 0 to 1: what the finder must say to be looked at, the score of a face, and that of one
    which was only found with the picture turned, where more is mistaken for a face."""

    candidate: float
    face: float
    tilted: float


class EmbeddedDetector:
    """A `LandmarkDetector` of two networks (`wsavatar.landmarks.networks`)."""

    def __init__(
        self, finder: Network, points: Network, crop_side: int, thresholds: Thresholds
    ) -> None:
        self._finder, self._points = finder, points
        self._side, self._thresholds = crop_side, thresholds

    def find(self, picture: np.ndarray, /) -> list[Face]:
        """All faces of a picture, the largest first."""
        check_picture(picture)
        faces = self._faces_at(picture, _LONG_SIDES)
        if not faces and max(picture.shape[:2]) > _LONG_SIDES[0]:
            faces = self._faces_at(picture, (_FINER_SIDE,))
        for tilt in _TILTS:
            faces = faces or self._faces_at(picture, _LONG_SIDES, tilt)
        return sorted(faces, key=lambda face: -face.size)

    def follow(self, picture: np.ndarray, face: Face, /) -> Face | None:
        """``face`` of the picture before, in this one; None: it is lost."""
        check_picture(picture)
        before = place_of(face.points)
        if before.size < _SMALLEST:
            return None
        found = self._look(picture, before)
        now = place_of(found.points)
        moved = np.hypot(now.x - before.x, now.y - before.y) / before.size
        if moved > _MOVED and now.size >= _SMALLEST:
            before, found = now, self._look(picture, now)
        if found.score < _CERTAIN:
            found = self._confirmed(picture, before, found)
        return found if found.score >= self._thresholds.face else None

    def _faces_at(
        self, picture: np.ndarray, long_sides: tuple[int, ...], tilt: float = 0.0
    ) -> list[Face]:
        least = self._thresholds.tilted if tilt else self._thresholds.face
        faces: list[tuple[Place, Face]] = []
        for place in self._candidates(picture, long_sides, tilt):
            at, found = place, self._look(picture, place)
            for _ in range(2):
                better = place_of(found.points)
                if found.score < self._thresholds.candidate or better.size < _SMALLEST:
                    break
                at, found = better, self._look(picture, better)
            if found.score >= least:
                found = self._confirmed(picture, at, found)
            if found.score >= least:
                faces.append((place_of(found.points), found))
        faces.sort(key=lambda pair: -pair[1].score)
        kept: list[tuple[Place, Face]] = []
        for place, face in faces:
            if all(overlap(place, other) < 0.5 for other, _ in kept):
                kept.append((place, face))
        return [face for _, face in kept]

    def _look(self, picture: np.ndarray, place: Place) -> Face:
        """The points in a crop around a place, and how sure they are those of a face."""
        seen, to_picture = crop(picture, place, self._side)
        points, score = self._points_in(seen)
        return Face((points @ to_picture[:, :2].T + to_picture[:, 2]).astype(np.float32), score)

    def _confirmed(self, picture: np.ndarray, place: Place, face: Face) -> Face:
        """The face, with a score that also says whether its mirror image gives the same points.

        In what is no face the network finds points too, but others in the mirror. So it may in a
        blurred or boldly drawn face, but there they stay where they are when the crop moves.
        """
        seen, to_picture = crop(picture, place, self._side)
        points, score = self._points_in(np.ascontiguousarray(seen[:, ::-1]))
        points = points[MIRROR] * (-1, 1) + (1, 0)
        again = points @ to_picture[:, :2].T + to_picture[:, 2]
        apart = float(np.linalg.norm(again - face.points, axis=1).mean()) / place.size
        agreement = float(np.exp(-((apart / _APART) ** 2)))
        sure = min(face.score, score)
        if sure >= _CERTAIN and agreement < self._thresholds.face:
            agreement = max(agreement, self._steadiness(picture, place))
        return Face(face.points, sure * agreement)

    def _steadiness(self, picture: np.ndarray, place: Place) -> float:
        """How little the points depend on the crop around a place, and how sure all are: 0 to 1."""
        looks = [
            self._look(
                picture,
                Place(
                    place.x + right * place.size,
                    place.y + down * place.size,
                    place.size * larger,
                    place.roll + np.radians(turned),
                ),
            )
            for right, down, larger, turned in _NEAR
        ]
        points = np.stack([look.points for look in looks])
        spread = np.linalg.norm(points - points.mean(axis=0), axis=2).mean() / place.size
        return min(look.score for look in looks) * float(np.exp(-((spread / _STEADY) ** 2)))

    def _points_in(self, seen: np.ndarray) -> tuple[np.ndarray, float]:
        """The points in a crop, in parts of its side, and how sure they are."""
        out = self._points(_batch(seen))[0]
        return out[:-1].reshape(68, 2), float(_sigmoid(out[-1]))

    def _candidates(
        self, picture: np.ndarray, long_sides: tuple[int, ...], tilt: float
    ) -> list[Place]:
        """Places where a face may be, the likeliest first, each once."""
        found: list[tuple[float, Place]] = []
        for side in long_sides:
            scale = side / max(picture.shape[:2])
            if scale <= 1.5:
                found += self._at_scale(picture, scale, tilt)
        found.sort(key=lambda pair: -pair[0])
        kept: list[Place] = []
        for _, place in found:
            if all(overlap(place, other) < 0.6 for other in kept):
                kept.append(place)
        return kept[:_MOST_CANDIDATES]

    def _at_scale(
        self, picture: np.ndarray, scale: float, tilt: float
    ) -> list[tuple[float, Place]]:
        height, width = (max(1, round(scale * side)) for side in picture.shape[:2])
        small = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
        padded, turn = _padded(small, tilt)
        maps = self._finder(_batch(padded))[0]
        sure = _sigmoid(maps[0])
        back = cv2.invertAffineTransform(turn)
        ratio = np.array([picture.shape[1] / width, picture.shape[0] / height])
        places = []
        for row, column in zip(*_peaks(sure, self._thresholds.candidate), strict=True):
            dx, dy, size, cosine, sine = maps[1:, row, column]
            at = np.array([column + 0.5 + dx, row + 0.5 + dy]) * _CELL
            x, y = (back[:, :2] @ at + back[:, 2]) * ratio
            pixels = np.exp(np.clip(size, -2, 4)) * _CELL * ratio[0]
            along = back[:, :2] @ [cosine, sine]
            place = Place(float(x), float(y), float(pixels), float(np.arctan2(along[1], along[0])))
            places.append((float(sure[row, column]), place))
        return places


def _padded(picture: np.ndarray, tilt: float) -> tuple[np.ndarray, np.ndarray]:
    """The picture, turned by ``tilt`` degrees, on black with a margin, so that a face may stand at
    the border; sides are multiples of 16. And the matrix [2, 3] of where it went."""
    height, width = picture.shape[:2]
    turn: np.ndarray = cv2.getRotationMatrix2D((width / 2, height / 2), tilt, 1.0)
    reach = np.abs(turn[:, :2]) @ (width, height)
    columns, rows = (int(-(-(side + 16) // 16) * 16) for side in np.round(reach, 3))
    margin = np.maximum(8, (reach - (width, height)) / 2 + 8) if tilt else np.array([8.0, 8.0])
    turn[:, 2] += margin
    pixels = turn.copy()  # of pixels' middles, where the matrix is of their corners
    pixels[:, 2] += turn[:, :2] @ [0.5, 0.5] - 0.5
    made = cv2.warpAffine(picture, pixels, (columns, rows), flags=cv2.INTER_LINEAR)
    return made, turn


def _peaks(values: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the cells that are the largest of their 3x3 and at least ``least``."""
    around = cv2.dilate(values, np.ones((3, 3), np.uint8))
    rows, columns = np.nonzero((values >= around) & (values >= least))
    return rows, columns


def _batch(picture: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32) / np.float32(255)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-np.clip(x, -30, 30)))


def load(settings: Settings, device: str) -> EmbeddedDetector:
    """The detector with the weights of the package. Raises LandmarkWeightsError."""
    return load_from(
        embedded_weights() / "landmarks",
        device,
        settings.avatars.cache,
        threads=settings.model.cpu_threads,
    )


def load_from(
    directory: Path, device: str, cache: Path | None = None, *, threads: int = 0
) -> EmbeddedDetector:
    """The detector of a folder with ``landmarks.json`` and ``networks.safetensors``.

    ``cache`` (None: that of all programs of the user) keeps what was converted of it.
    """
    try:
        values = json.loads((directory / "landmarks.json").read_text("utf-8"))
        thresholds = Thresholds(**{k: float(v) for k, v in values["thresholds"].items()})
        side = int(values["crop_side"])
        weights = (directory / "networks.safetensors").read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _unusable(directory, error) from error

    def network(name: str, example: tuple[int, int, int], *, fixed: bool, threads: int) -> Network:
        origin = Origin(name, weights, _CODE, cache or cache_directory())
        make = partial(_module, name, directory, weights)
        return on_device(make, device, example, origin, fixed=fixed, threads=threads)

    finder = network("finder", (3, 64, 64), fixed=False, threads=threads)
    # So small that a second thread mostly waits: a fifth less time of all cores added up.
    points = network("points", (3, side, side), fixed=True, threads=1)
    return EmbeddedDetector(finder, points, side, thresholds)


def _module(name: str, directory: Path, weights: bytes) -> Any:
    """A network with its weights, in torch. Raises LandmarkWeightsError."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    from wsavatar.landmarks.networks import FaceFinder, PointFinder

    module = FaceFinder() if name == "finder" else PointFinder()
    try:
        fill(module, load(weights), f"{name}.")
    except (ValueError, RuntimeError, SafetensorError) as error:
        raise _unusable(directory, error) from error
    return module


def _unusable(directory: Path, error: Exception) -> LandmarkWeightsError:
    return LandmarkWeightsError(
        f"{directory} has no usable landmark detector ({error}): install wsavatar again"
    )
