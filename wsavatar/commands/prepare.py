"""The ``prepare`` command: builds the avatars' caches ahead, or makes an avatar of a video.

It knows arguments and progress bars; the work is done by the modules beside it.
"""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wsavatar.avatars.format import MAX_FRAMES, AvatarError, check_landmarks, write_avatar
from wsavatar.avatars.store import AvatarStore, avatar_directory
from wsavatar.config import Settings
from wsavatar.faces.musetalk.configured import load_configured
from wsavatar.media.video import VideoError, open_video

__all__ = ["add_arguments", "load_landmarks", "run"]

_MAX_LANDMARK_BYTES = 64 * 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what ``prepare`` takes."""
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
    """Make and prepare what was asked for. 0: all is ready; 1: something could not be prepared."""
    given = [name for name in ("video", "landmarks", "id") if getattr(args, name) is not None]
    if given and len(given) < 3:
        raise AvatarError("a new avatar needs --video, --landmarks and --id together")
    ids = [_make(args, avatar_directory(settings.avatars))] if given else []
    return _prepare(ids, settings)


def _make(args: argparse.Namespace, directory: Path) -> str:
    landmarks = load_landmarks(args.landmarks)
    try:
        with open_video(args.video) as (info, frames):
            check_landmarks(landmarks, info.width, info.height, str(args.landmarks))
            pictures = tqdm(
                islice(frames, len(landmarks)), total=len(landmarks), desc=args.id, unit="frame"
            )
            folder = write_avatar(
                directory,
                args.id,
                args.name or args.id,
                pictures,
                Fraction(info.fps),
                landmarks,
                args.description,
                args.license,
                overwrite=args.force,
            )
    except VideoError as error:
        raise AvatarError(str(error)) from error
    print(f"wrote {folder}")
    return str(args.id)


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


def _prepare(ids: list[str], settings: Settings) -> int:
    store = AvatarStore(settings.avatars, load_configured(settings), memory_bytes=0)
    ids = ids or [info.id for info in store.list()]
    if not ids:
        raise AvatarError(f"{avatar_directory(settings.avatars)} holds no avatar")
    failed = 0
    for avatar_id in ids:
        with tqdm(desc=avatar_id, unit="frame") as bar:

            def show(done: int, total: int, bar: tqdm = bar) -> None:
                bar.total = total
                bar.update(done - bar.n)

            try:
                avatar = store.get(avatar_id, show)
            except AvatarError as error:
                failed += 1
                bar.write(f"error: {error}", file=sys.stderr)
                continue
            if not bar.n:  # it came from the cache
                bar.total = avatar.frame_count
                bar.update(avatar.frame_count)
    ready = len(ids) - failed
    print(f"{ready} of {len(ids)} avatars ready")
    return 1 if failed else 0
