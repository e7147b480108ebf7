"""The ``prepare`` command: prepares avatars, or makes an avatar from a video.

It knows arguments and progress bars; `wsavatar.avatars` does the work.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wsavatar.avatars.format import (
    MAX_FPS,
    MAX_FRAMES,
    MIN_FPS,
    AvatarError,
    check_landmarks,
    check_new_id,
    move_avatar,
    write_avatar,
)
from wsavatar.avatars.library import avatar_directory
from wsavatar.avatars.store import AvatarStore
from wsavatar.config import Settings
from wsavatar.faces.registry import load_face
from wsavatar.media.video import Shown, VideoError, open_video

__all__ = ["add_arguments", "load_landmarks", "run"]

_NEEDED = ("video", "landmarks", "id")
_MAX_LANDMARK_BYTES = 64 * 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``prepare``."""
    parser.description = (
        "Prepare avatars for the configured model. Without arguments: every avatar in the avatar "
        "directory (what the server would else do when each is first used). With --video: make "
        "a new avatar of a video and prepare it. The format of an avatar is in docs/avatars.md."
    )
    new = parser.add_argument_group("a new avatar")
    new.add_argument(
        "--video",
        type=Path,
        metavar="FILE",
        help="a person facing the camera, mouth closed and at rest, 5 to 20 s; it plays forward, "
        "then backward, for ever",
    )
    new.add_argument(
        "--landmarks",
        type=Path,
        metavar="FILE.npy",
        help="its iBUG-68 face points in pixels, float array [frames, 68, 2]; where it is shorter "
        "than the video, the video is cut to it",
    )
    new.add_argument("--id", help="its folder's name: small letters, digits, - and _")
    new.add_argument("--name", help="its name for people (default: the id)")
    new.add_argument("--description", default="", help="one sentence about it")
    new.add_argument("--license", default="", help="who may use it, and how")
    new.add_argument("--force", action="store_true", help="replace an avatar of the same id")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make and prepare avatars. Returns 1 if one could not be prepared, else 0."""
    given = [name for name in _NEEDED if getattr(args, name) is not None]
    if not given:
        return _prepare_all(settings)
    if len(given) < 3:
        missing = " and ".join(f"--{name}" for name in _NEEDED if name not in given)
        raise AvatarError(
            f"a new avatar needs --video, --landmarks and --id together; add {missing}"
        )
    _make(args, settings)
    return 0


def _make(args: argparse.Namespace, settings: Settings) -> None:
    """Write and prepare a new avatar. Its folder appears when both have succeeded."""
    directory = avatar_directory(settings.avatars)
    check_new_id(directory, args.id, overwrite=args.force)
    landmarks = load_landmarks(args.landmarks)
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{args.id}-", dir=directory) as building:
        _write(args, Path(building), landmarks)
        with_new = settings.avatars.model_copy(update={"directory": Path(building)})
        store = AvatarStore(with_new, load_face(settings), memory_bytes=0)
        _prepare(store, args.id)
        folder = move_avatar(Path(building) / args.id, directory, overwrite=args.force)
    print(f"wrote {folder}")


def _write(args: argparse.Namespace, directory: Path, landmarks: np.ndarray) -> None:
    """Write the avatar's folder; the landmarks follow the pictures to the video's constant rate."""
    points: list[np.ndarray] = []

    def pictures(shown: Iterator[Shown], in_shown_pixels: np.ndarray) -> Iterator[np.ndarray]:
        for number, picture in shown:
            if number >= len(in_shown_pixels):
                return
            if len(points) == MAX_FRAMES:
                raise AvatarError(
                    f"{args.video}: over {MAX_FRAMES} frames; cut it, or give fewer landmarks"
                )
            points.append(in_shown_pixels[number])
            yield picture

    try:
        with open_video(args.video, slowest=MIN_FPS, fastest=MAX_FPS) as (info, shown):
            width, height = info.decoded_size
            check_landmarks(landmarks, width, height, str(args.landmarks))
            in_shown_pixels = landmarks * (info.width / width, info.height / height)
            bar = tqdm(
                pictures(shown, in_shown_pixels),
                total=len(landmarks),
                desc=args.id,
                unit="frame",
            )
            write_avatar(
                directory,
                args.id,
                args.name or args.id,
                bar,
                info.fps,
                points,
                args.description,
                args.license,
            )
    except VideoError as error:
        raise AvatarError(str(error)) from error


def load_landmarks(path: Path) -> np.ndarray:
    """Read a .npy of landmarks, float64 [n, 68, 2]. Never unpickles. Raises AvatarError."""
    try:
        if path.stat().st_size > _MAX_LANDMARK_BYTES:
            raise AvatarError(f"{path}: over {_MAX_LANDMARK_BYTES >> 20} MiB")
        # Mapped, so that a header which claims more than the file holds is refused.
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        landmarks = np.array(array, dtype=np.float64)
    except FileNotFoundError as error:
        raise AvatarError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise AvatarError(f"{path}: is no .npy array of numbers ({error})") from error
    if (
        landmarks.ndim != 3
        or landmarks.shape[1:] != (68, 2)
        or not 1 <= len(landmarks) <= MAX_FRAMES
    ):
        raise AvatarError(
            f"{path}: landmarks must be [n, 68, 2] with n from 1 to {MAX_FRAMES}, "
            f"not {list(landmarks.shape)}"
        )
    return landmarks


def _prepare_all(settings: Settings) -> int:
    store = AvatarStore(settings.avatars, load_face(settings), memory_bytes=0)
    ids = [info.id for info in store.list()]
    if not ids:
        raise AvatarError(f"{avatar_directory(settings.avatars)} holds no avatar")
    failed = 0
    for avatar_id in ids:
        try:
            _prepare(store, avatar_id)
        except AvatarError as error:
            failed += 1
            tqdm.write(f"error: {error}", file=sys.stderr)
    print(f"{len(ids) - failed} of {len(ids)} avatars ready")
    return 1 if failed else 0


def _prepare(store: AvatarStore, avatar_id: str) -> None:
    with tqdm(desc=avatar_id, unit="frame") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        avatar = store.get(avatar_id, show)
        if not bar.n:  # it came from the cache
            bar.total = avatar.frame_count
            bar.update(avatar.frame_count)
