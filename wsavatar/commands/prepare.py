"""The ``prepare`` command: makes avatars of photos and videos, or prepares all avatars.

It knows arguments and progress bars; `wsavatar.creation` and `wsavatar.avatars` do the work.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wsavatar.avatars.background import ORIGINAL
from wsavatar.avatars.format import MAX_FPS, MAX_FRAMES, MIN_FPS, AvatarError, read_avatar_file
from wsavatar.avatars.landmarks import check_landmarks
from wsavatar.avatars.library import avatar_directory
from wsavatar.avatars.store import AvatarStore
from wsavatar.avatars.writing import check_new_id, write_avatar
from wsavatar.commands.progress import AVATAR_STEPS, StepBar
from wsavatar.config import Settings
from wsavatar.creation import AvatarRequest, Created, create_avatar, free_id
from wsavatar.faces.base import AvatarPreparer
from wsavatar.faces.registry import load_face
from wsavatar.landmarks.base import LandmarkDetector
from wsavatar.landmarks.registry import load_landmarks
from wsavatar.media.constant_rate import Shown
from wsavatar.media.video import VideoError, open_video
from wsavatar.serve import assembly

__all__ = ["add_arguments", "read_landmarks_file", "run"]

_MAX_AT_ONCE = 4
_MAX_LANDMARK_BYTES = 64 * 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``prepare``."""
    parser.description = (
        "Make an avatar of each photo or video, ready to speak. A photo gets some life: the head "
        "sways, the eyes blink. Of a video the calmest 5 to 20 seconds are taken; best is a "
        "person who looks at the camera with the mouth closed. Without files: prepare every "
        "avatar in the avatar directory for the configured model, which the server would else do "
        "when each is first used."
    )
    parser.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help="a photo or a video of a person"
    )
    new = parser.add_argument_group("the new avatar (the first two with one file only)")
    new.add_argument(
        "--id", help="its folder's name: small letters, digits, - and _ (default: as the file)"
    )
    new.add_argument("--name", help="its name for people (default: as the file)")
    new.add_argument(
        "--face", type=int, metavar="N", help="of several faces the N-th largest (default: 1)"
    )
    new.add_argument("--description", default="", help="one sentence about it")
    new.add_argument("--license", default="", help="who may use it, and how")
    new.add_argument(
        "--force",
        action="store_true",
        help="replace an avatar of the same id; its voice, language, instructions and "
        "greeting stay",
    )
    expert = parser.add_argument_group("for experts")
    expert.add_argument(
        "--extra-margin",
        type=int,
        metavar="PIXELS",
        help="of the model's crop below the chin, 0 to 200 (default: as the model says): more "
        "leaves room for a mouth that opens wide",
    )
    expert.add_argument(
        "--bbox-shift",
        type=int,
        metavar="PIXELS",
        help="MuseTalk 1.0 only: move the crop down, which opens the mouth more; -64 to 64",
    )
    expert.add_argument(
        "--landmarks",
        type=Path,
        metavar="FILE.npy",
        help="the video's iBUG-68 points in pixels, float array [frames, 68, 2], instead of the "
        "detector; the whole video is taken, or as much as there are points for",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make and prepare avatars. Returns 1 if one could not be, else 0."""
    assembly.warn_of_cache(settings)
    if not args.files:
        given = [name for name in ("id", "name", "landmarks") if getattr(args, name) is not None]
        if given:
            raise AvatarError(f"--{given[0]} is for a new avatar; name its photo or video too")
        return _prepare_all(settings)
    if len(args.files) > 1 and (args.id or args.name or args.landmarks):
        raise AvatarError("--id, --name and --landmarks go with one file; run prepare for each")
    if not any(path.exists() for path in args.files):  # said before the models are loaded
        raise AvatarError(f"{args.files[0]}: no such file")
    directory = avatar_directory(settings.avatars)
    jobs = _requests(args, directory)
    points = read_landmarks_file(args.landmarks) if args.landmarks else None
    make = _Maker(settings, directory, points)
    if len(jobs) == 1:
        make(*jobs[0])
        return 0
    return _make_several(make, jobs)


def _requests(args: argparse.Namespace, directory: Path) -> list[tuple[Path, AvatarRequest]]:
    """What to make of each file. Raises AvatarError for an id that is taken or unfit."""
    requests: dict[str, tuple[Path, AvatarRequest]] = {}
    for path in args.files:
        # With --force a file replaces the avatar that was made of it before.
        unused = Path(os.devnull) if args.force else directory
        id = args.id if args.id is not None else free_id(path, unused, requests)
        check_new_id(directory, id, overwrite=args.force)
        requests[id] = (
            path,
            AvatarRequest(
                id=id,
                name=args.name or "",
                face=args.face,
                bbox_shift=args.bbox_shift,
                extra_margin=args.extra_margin,
                description=args.description,
                license=args.license,
                overwrite=args.force,
            ),
        )
    return list(requests.values())


_Make = Callable[[Path, Path, AvatarRequest, "StepBar", Callable[[Path], None]], Created]


class _Maker:
    """Makes avatars and prepares them; with the models loaded once. Thread-safe."""

    def __init__(self, settings: Settings, directory: Path, points: np.ndarray | None) -> None:
        self._settings = settings
        self._directory = directory
        self.cancelled = threading.Event()
        self._make: _Make = (
            partial(_of_points, points)
            if points is not None
            else partial(_of_file, load_landmarks(settings), self.cancelled)
        )
        self._model: AvatarPreparer = load_face(settings)

    def __call__(self, path: Path, request: AvatarRequest) -> None:
        """Raises AvatarError. Prints what was made."""
        started = time.monotonic()
        with tqdm(desc=request.id, leave=False, unit="frame", disable=None) as bar:
            created = self._create(path, request, StepBar(bar, request.id, AVATAR_STEPS))
        avatar = read_avatar_file(created.folder)
        tqdm.write(
            f"{created.id} is ready: {avatar.width}x{avatar.height}, "
            f"{avatar.frame_count / avatar.fps:.1f} s, made in {time.monotonic() - started:.1f} s"
        )
        for note in created.notes:
            tqdm.write(f"  {note}")

    def _create(self, path: Path, request: AvatarRequest, bar: StepBar) -> Created:
        def prepare(folder: Path) -> None:
            places = self._settings.avatars.model_copy(update={"directory": folder.parent})
            store = AvatarStore(places, self._model, memory_bytes=0)
            report = partial(bar, "prepare")
            store.get(folder.name, report, background=ORIGINAL)

        return self._make(path, self._directory, request, bar, prepare)


def _make_several(make: _Maker, jobs: list[tuple[Path, AvatarRequest]]) -> int:
    """All files, a few at once. One that fails does not stop the others."""
    failed = 0
    with ThreadPoolExecutor(min(len(jobs), os.cpu_count() or 1, _MAX_AT_ONCE)) as pool:
        futures = [pool.submit(make, *job) for job in jobs]
        try:
            for future in futures:
                try:
                    future.result()
                except AvatarError as error:
                    failed += 1
                    tqdm.write(f"error: {error}", file=sys.stderr)
        except BaseException:
            make.cancelled.set()
            for future in futures:
                future.cancel()
            raise
    print(f"{len(jobs) - failed} of {len(jobs)} avatars are ready")
    return 1 if failed else 0


def _of_file(
    detector: LandmarkDetector,
    cancelled: threading.Event,
    path: Path,
    directory: Path,
    request: AvatarRequest,
    bar: StepBar,
    prepare: Callable[[Path], None],
) -> Created:
    return create_avatar(
        path, directory, detector, request, bar, cancelled=cancelled, prepare=prepare
    )


def _of_points(
    points: np.ndarray,
    path: Path,
    directory: Path,
    request: AvatarRequest,
    bar: StepBar,
    prepare: Callable[[Path], None],
) -> Created:
    """An avatar of a video whose landmarks are known. They follow it to its constant rate."""
    used: list[np.ndarray] = []

    def pictures(shown: Iterator[Shown], in_shown_pixels: np.ndarray) -> Iterator[np.ndarray]:
        for number, picture in shown:
            if number >= len(in_shown_pixels):
                return
            if len(used) == MAX_FRAMES:
                raise AvatarError(
                    f"{path}: over {MAX_FRAMES} frames; cut it, or give fewer landmarks"
                )
            used.append(in_shown_pixels[number])
            bar("write", len(used), len(in_shown_pixels))
            yield picture

    try:
        with open_video(path, slowest=MIN_FPS, fastest=MAX_FPS) as (info, shown):
            width, height = info.decoded_size
            check_landmarks(points, width, height, f"{path}: its --landmarks")
            frames = pictures(shown, points * (info.width / width, info.height / height))
            folder = write_avatar(
                directory,
                request.id,
                request.name,
                frames,
                info.fps,
                used,
                request.description,
                request.license,
                bbox_shift=request.bbox_shift,
                extra_margin=request.extra_margin,
                overwrite=request.overwrite,
                prepare=prepare,
            )
    except VideoError as error:
        raise AvatarError(str(error)) from error
    return Created(folder, request.id, ())


def read_landmarks_file(path: Path) -> np.ndarray:
    """Read a .npy of landmarks, float64 [n, 68, 2]. Never unpickles. Raises AvatarError."""
    try:
        if path.stat().st_size > _MAX_LANDMARK_BYTES:
            raise AvatarError(f"{path}: over {_MAX_LANDMARK_BYTES >> 20} MiB")
        # Mapped, so that a header which claims more than the file holds is refused.
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise AvatarError(f"{path}: no such file") from error
    except (OSError, ValueError, EOFError) as error:
        raise AvatarError(f"{path}: is no .npy array of numbers ({error})") from error
    if array.dtype.kind not in "fiu":
        raise AvatarError(f"{path}: is no .npy array of numbers, but of {array.dtype}")
    landmarks = np.array(array, dtype=np.float64)
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
    face, masks = load_face(settings), assembly.mask_maker(settings)
    with closing(AvatarStore(settings.avatars, face, masks, memory_bytes=0)) as store:
        return _prepare_each(store, settings)


def _prepare_each(store: AvatarStore, settings: Settings) -> int:
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
    with tqdm(desc=avatar_id, unit="frame", disable=None) as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        avatar = store.get(avatar_id, show)
        if not bar.n:  # it came from the cache
            bar.total = avatar.frame_count
            bar.update(avatar.frame_count)
