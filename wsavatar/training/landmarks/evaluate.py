"""Judges a landmark detector on pictures and on a video, with points from elsewhere.

    python -m wsavatar.training.landmarks.evaluate --faces DIR [--video FILE --points FILE.npy]
        [--detector NAME | --weights DIR] [--overlays DIR]

``--faces`` has pictures and ``landmarks.json``: file stem -> 68 points, or null where there is no
face. Errors are mean distances in percent of the distance between the outer eye corners; times
are those of all cores added up.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from wsavatar.config import load_settings
from wsavatar.landmarks.base import Face, LandmarkDetector
from wsavatar.landmarks.registry import load_landmarks

__all__ = ["errors_of", "given_pictures", "high_frequency", "main"]

PARTS = {
    "all": slice(0, 68), "jaw": slice(0, 17), "brows": slice(17, 27), "nose": slice(27, 36),
    "eyes": slice(36, 48), "mouth": slice(48, 68),
}  # fmt: skip


def errors_of(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Mean distance of all points and of each part, in % of the outer eye corners' distance."""
    scale = float(np.linalg.norm(wanted[45] - wanted[36]))
    away = np.linalg.norm(found - wanted, axis=1) / scale * 100
    return {part: float(away[where].mean()) for part, where in PARTS.items()}


def high_frequency(boxes: np.ndarray) -> float:
    """Root mean square of what a box's sides [n, 4] do within five frames, in pixels of 256."""
    width = (boxes[:, 2] - boxes[:, 0]).mean()
    kernel = np.ones(5) / 5
    slow = np.stack([np.convolve(side, kernel, "valid") for side in boxes.T], 1)
    quick = boxes[2 : 2 + len(slow)] - slow
    return float(np.sqrt((quick**2).mean()) * 256 / width)


def given_pictures(directory: Path) -> Iterator[tuple[str, np.ndarray, np.ndarray | None]]:
    """Name, picture uint8 [H, W, 3] RGB, and its face's points [68, 2], if it has a face.

    Raises SystemExit where a picture is missing.
    """
    points = json.loads((directory / "landmarks.json").read_text("utf-8"))
    for name, wanted in sorted(points.items()):
        paths = [p for p in sorted(directory.glob(f"{name}.*")) if p.suffix != ".json"]
        picture = cv2.imread(str(paths[0])) if paths else None
        if picture is None:
            raise SystemExit(f"{directory} has no picture {name!r}, which landmarks.json names")
        yield (
            name,
            cv2.cvtColor(picture, cv2.COLOR_BGR2RGB),
            None if wanted is None else np.array(wanted, np.float32),
        )


def _overlay(picture: np.ndarray, faces: list[Face], wanted: np.ndarray | None) -> np.ndarray:
    shown, scale = picture.copy(), 1.0
    if faces or wanted is not None:
        around = faces[0].points if faces else wanted
        assert around is not None
        low, high = around.min(0), around.max(0)
        half = float((high - low).max()) * 0.8
        x, y = (low + high) / 2
        x1, y1 = max(0, int(x - half)), max(0, int(y - half))
        shown = shown[y1 : int(y + half), x1 : int(x + half)]
        origin = np.array([x1, y1])
    else:
        origin = np.zeros(2)
    scale = 480 / max(shown.shape[:2])
    shown = cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    sets = [] if wanted is None else [(wanted, (0, 200, 255))]
    sets += [(face.points, (0, 255, 0)) for face in faces]
    for points, colour in sets:
        for px, py in (points - origin) * scale:
            cv2.circle(shown, (int(px), int(py)), 2, colour, -1, cv2.LINE_AA)
    tile = np.zeros((480, 480, 3), np.uint8)
    tile[: shown.shape[0], : shown.shape[1]] = shown[:480, :480]
    return tile


def judge_pictures(detector: LandmarkDetector, directory: Path, overlays: Path | None) -> None:
    """Print a line for each picture, then the means."""
    found_errors: list[dict[str, float]] = []
    tiles = []
    for name, picture, wanted in given_pictures(directory):
        started = time.process_time()
        faces = detector.find(picture)
        took = (time.process_time() - started) * 1e3
        line = f"{name:24} {len(faces)} faces {took:4.0f} ms"
        if faces:
            line += f" score {faces[0].score:.2f}"
        if wanted is not None and faces:
            errors = errors_of(faces[0].points, wanted)
            found_errors.append(errors)
            line += " " + " ".join(f"{part} {value:5.2f}" for part, value in errors.items())
        elif (wanted is None) != (not faces):
            line += "  WRONG"
        print(line)
        tiles.append(_overlay(picture, faces, wanted))
    means = {part: np.mean([e[part] for e in found_errors]) for part in PARTS if found_errors}
    print("mean " + " ".join(f"{part} {value:.2f}" for part, value in means.items()))
    if overlays is not None:
        overlays.mkdir(parents=True, exist_ok=True)
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 6)
        rows = [np.hstack(tiles[k : k + 6]) for k in range(0, len(tiles), 6)]
        cv2.imwrite(str(overlays / "faces.png"), cv2.cvtColor(np.vstack(rows), cv2.COLOR_RGB2BGR))


def judge_video(detector: LandmarkDetector, video: Path, points: Path) -> None:
    """Follow the face through the video; print how far its points are off, and what it takes."""
    wanted = np.load(points)
    frames = [frame for frame, _ in zip(_frames(video), wanted, strict=False)]
    face: Face | None = None
    errors, times, lost = [], [], 0
    for frame, truth in zip(frames, wanted, strict=True):
        started = time.process_time()
        if face is None:
            face = next(iter(detector.find(frame)), None)
        else:
            face = detector.follow(frame, face)
            times.append((time.process_time() - started) * 1e3)
        if face is None:
            lost += 1
        else:
            errors.append(errors_of(face.points, truth))
    means = {part: np.mean([e[part] for e in errors]) for part in PARTS if errors}
    print(f"{video.name}: {len(frames)} frames, lost in {lost}, follow {np.median(times):.1f} ms, ")
    print("mean " + " ".join(f"{part} {value:.2f}" for part, value in means.items()))
    judge_still(detector, frames[0])


def judge_still(detector: LandmarkDetector, picture: np.ndarray) -> None:
    """Print by how much the crop of a still picture moves with a sensor's noise (4 levels)."""
    from wsavatar.faces.musetalk.geometry import crop_box, smooth_landmarks
    from wsavatar.faces.musetalk.spec import CropMargin

    rng = np.random.default_rng(0)
    face = next(iter(detector.find(picture)), None)
    tracks = []
    for _ in range(75):
        if face is None:
            raise SystemExit("no face is found in the still picture")
        noisy = np.clip(np.round(picture + rng.normal(0, 4, picture.shape)), 0, 255)
        face = detector.follow(noisy.astype(np.uint8), face)
        if face is not None:
            tracks.append(face.points)
    raw, h, w = np.stack(tracks), *picture.shape[:2]
    for name, track in (("points as found", raw), ("smoothed", smooth_landmarks(raw, 25))):
        exact = np.concatenate([track.min(1), track.max(1)], 1)
        boxes = np.array([crop_box(p, CropMargin(pixels=10), w, h) for p in track], float)
        print(
            f"still with noise of 4 levels, {name}: crop moves by {high_frequency(exact):.3f} px "
            f"of 256, in whole pixels {high_frequency(boxes):.3f}"
        )


def _frames(video: Path) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(video))
    while True:
        there, frame = capture.read()
        if not there:
            return
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--video", type=Path)
    parser.add_argument("--points", type=Path)
    parser.add_argument("--detector", default="embedded")
    parser.add_argument("--weights", type=Path, help="a folder with the embedded detector's files")
    parser.add_argument("--overlays", type=Path)
    args = parser.parse_args()
    detector: LandmarkDetector
    if args.weights:
        from wsavatar.landmarks.embedded import load_from

        detector = load_from(args.weights, "cpu")
    else:
        settings = load_settings(None, {"avatars.landmarks": args.detector})
        detector = load_landmarks(settings)
    judge_pictures(detector, args.faces, args.overlays)
    if args.video and args.points:
        judge_video(detector, args.video, args.points)


if __name__ == "__main__":
    main()
