"""The ``render`` command: sound or text and an avatar in, finished videos out.

It knows arguments, standard input and where files go; `wsavatar.videos` makes the videos, with the
renderer that the server has.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from wsavatar.avatars.background import PICTURE, TRANSPARENT, Background, Backgrounds
from wsavatar.avatars.format import MAX_SIDE
from wsavatar.commands.avatar_files import AvatarsOfFiles
from wsavatar.config import RenderSettings, Settings
from wsavatar.dialogue.tts import Voices, create_voices
from wsavatar.errors import WsavatarError
from wsavatar.media.picture import read_still
from wsavatar.media.video_kinds import KINDS, MP4, WEBM, kind_of
from wsavatar.serve import assembly
from wsavatar.videos.keying import ColourKey
from wsavatar.videos.maker import Made, Progress, VideoMaker, unfinished
from wsavatar.videos.orders import Order, avatar_named, of_folder, of_list
from wsavatar.videos.sources import MAX_TEXT_CHARS, FileSource, SoundSource, TextSource
from wsavatar.videos.summary import Failed, Summary

if TYPE_CHECKING:
    from wsavatar.avatars.avatar import AvatarInfo
    from wsavatar.render.pool import FacePool
    from wsavatar.serve.assembly import AnyAvatars

__all__ = ["RenderError", "add_arguments", "run"]

_MAX_REST_S = 60


class RenderError(WsavatarError, ValueError):
    """A video cannot be made from this input; the message says what to change."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``render``."""
    parser.description = (
        "Write finished videos of an avatar that speaks a text or a sound file: MP4 (H.264, AAC) "
        "or WebM (VP9, Opus), by the output's name. They have the frames that a live session would "
        "show for the same sound."
    )
    said = parser.add_mutually_exclusive_group(required=True)
    said.add_argument("--text", metavar="TEXT", help="what to say, by the engines of tts.engines")
    said.add_argument(
        "--text-file", metavar="FILE", help="a text file of what to say; -: standard input"
    )
    said.add_argument(
        "--audio",
        type=Path,
        metavar="FILE",
        help="speech: any audio file, or a video with sound (wav, flac, mp3, m4a, mp4, …), or a "
        "folder of them, each for a video",
    )
    said.add_argument(
        "--list",
        metavar="FILE",
        help='videos, one a line: {"text": "…", "avatar": "…", "voice": "…", "background": "…", '
        '"output": "a.mp4"}; "audio": "a.wav" in place of "text"; avatar and background may be '
        "files (me.jpg, office.jpg), relative to the list, as is audio; -: standard input",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="NAME.mp4 or NAME.webm; of a folder or a list: the folder to write to (default for a "
        "list: the current one)",
    )
    parser.add_argument(
        "--format",
        choices=[kind.container for kind in KINDS.values()],
        default=MP4.container,
        help="of the videos of a folder (default: mp4)",
    )
    parser.add_argument(
        "--key",
        metavar="COLOUR",
        help="make a background of this colour transparent, such as #00b140 (WebM alone)",
    )
    parser.add_argument(
        "--background",
        metavar="WHAT",
        help="a colour such as #00b140, a picture's path, transparent (WebM alone) or original "
        "(default: avatars.background)",
    )
    parser.add_argument(
        "--avatar",
        metavar="WHO",
        help="an avatar's id, or a photo or video of a person (me.jpg), of which one is made for "
        "this call (default: avatars.default)",
    )
    parser.add_argument(
        "--voice", metavar="NAME", default="", help="voice of texts (default: the avatar's)"
    )
    parser.add_argument("--force", action="store_true", help="replace existing outputs")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write the summary to this file; -: to stdout"
    )
    parser.add_argument(
        "--fps", type=int, metavar="N", help="frames per second (default: render.fps)"
    )
    parser.add_argument(
        "--model", metavar="DIR", help="a model in the official layout (default: model.path)"
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="frames per model step (default: render.batch_size)",
    )
    parser.add_argument(
        "--rest",
        type=float,
        default=0.0,
        metavar="S",
        help="seconds of the avatar at rest, in silence, before and after (default: 0)",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Make the videos. 0: all were made; 1: some could not be, of several.

    An error of a single video is raised.
    """
    settings = _chosen(args, settings)
    key = None if args.key is None else ColourKey(args.key)
    orders, is_single = _orders(args)
    is_cut = key is not None or args.background == TRANSPARENT
    orders = _checked(orders, force=args.force, alpha=is_cut)
    if is_single and isinstance(orders[0], Failed):
        raise RenderError(orders[0].error)
    if any(isinstance(order, Order) for order in orders):
        summary = _made(args, settings, orders, key, is_single=is_single)
    else:
        summary = Summary([order for order in orders if isinstance(order, Failed)], 0.0, {})
    _report(summary, args.json)
    return 1 if summary.failed else 0


# -- arguments ------------------------------------------------------------------------------------


def _chosen(args: argparse.Namespace, settings: Settings) -> Settings:
    """The settings with what the arguments say."""
    batch_size = settings.render.batch_size if args.batch_size is None else args.batch_size
    fps = settings.render.fps if args.fps is None else args.fps
    if not 5 <= fps <= 60:
        raise RenderError(f"--fps {fps}: from 5 to 60")
    if not 1 <= batch_size <= 64:
        raise RenderError(f"--batch-size {batch_size}: from 1 to 64")
    if not 0 <= args.rest <= _MAX_REST_S:
        raise RenderError(f"--rest {args.rest:g}: from 0 to {_MAX_REST_S} s")
    greatest = max(batch_size, settings.render.max_batch_size)
    sizes = {"fps": fps, "batch_size": batch_size, "max_batch_size": greatest}
    render: RenderSettings = settings.render.model_copy(update=sizes)
    model = settings.model.model_copy(update={"path": args.model} if args.model else {})
    if args.key is not None and args.background is not None:
        raise RenderError("--key cuts out of the avatar's own background: leave --background out")
    if args.background is not None:
        Backgrounds(args.background)  # wrong ones are said before the model is loaded
    avatar = avatar_named(args.avatar or "", Path())
    chosen = {"default": avatar if isinstance(avatar, str) else "", "background": args.background}
    avatars = settings.avatars.model_copy(
        update={name: value for name, value in chosen.items() if value}
    )
    return settings.model_copy(update={"render": render, "model": model, "avatars": avatars})


def _orders(args: argparse.Namespace) -> tuple[Sequence[Order | Failed], bool]:
    """What is to be made, and whether that is a single video."""
    output: Path | None = args.output
    if args.list is not None:
        outputs = output or Path()
        if args.list == "-":
            return of_list(sys.stdin, "standard input", Path(), _folder(outputs)), False
        path = Path(args.list)
        with _opened(path) as lines:
            return of_list(lines, path.name, path.parent, _folder(outputs)), False
    if output is None:
        raise RenderError("where to write to is missing: -o FILE.mp4")
    if args.audio is not None and args.audio.is_dir():
        return of_folder(args.audio, _folder(output), f".{args.format}"), False
    text = args.text or ""
    if args.text_file is not None:
        text = _text(args.text_file)
    return [Order(output, text, args.audio, voice=args.voice)], True


def _folder(path: Path) -> Path:
    """The folder of several videos, made where there is none."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RenderError(f"{path}: cannot be made a folder ({error.strerror})") from error
    return path


def _opened(path: Path) -> Any:
    try:
        return path.open(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RenderError(f"{path}: cannot be read ({error.strerror})") from error


def _text(name: str) -> str:
    if name == "-":
        return sys.stdin.read(MAX_TEXT_CHARS + 1)
    with _opened(Path(name)) as file:
        text: str = file.read(MAX_TEXT_CHARS + 1)
        return text


def _checked(orders: Sequence[Order | Failed], *, force: bool, alpha: bool) -> list[Order | Failed]:
    """The orders; those that cannot be written are failures before any work."""
    count = Counter(order.output for order in orders if isinstance(order, Order))
    checked: list[Order | Failed] = []
    for order in orders:
        if isinstance(order, Order):
            try:
                if count[order.output] > 1:
                    raise RenderError(f"{order.output}: {count[order.output]} videos would be it")
                is_cut = order.background == TRANSPARENT or (alpha and not order.background)
                _check_output(order.output, force=force, alpha=is_cut)
            except RenderError as error:
                reason = str(error).removeprefix(f"{order.output}: ")
                checked.append(Failed(str(order.output), reason))
                continue
        checked.append(order)
    return checked


def _check_output(path: Path, *, force: bool, alpha: bool) -> None:
    kind = kind_of(path)
    if kind is None:
        raise RenderError(f"{path}: the output must be a file of {' or '.join(KINDS)}")
    if alpha and not kind.has_alpha:
        raise RenderError(f"{path}: only a {WEBM.suffix} file can be transparent")
    if path.is_dir():
        raise RenderError(f"{path}: is a directory")
    if path.exists() and not force:
        raise RenderError(f"{path}: exists already (--force replaces it)")
    if not path.parent.is_dir():
        raise RenderError(f"{path}: there is no folder {path.parent}; make it first")
    try:  # only a write shows permissions, read-only file systems and full disks
        unfinished(path).write_bytes(b"")
        unfinished(path).unlink()
    except OSError as error:
        raise RenderError(f"{path}: cannot be written ({error.strerror})") from error


# -- the work -------------------------------------------------------------------------------------


def _made(
    args: argparse.Namespace,
    settings: Settings,
    orders: Sequence[Order | Failed],
    key: ColourKey | None,
    *,
    is_single: bool,
) -> Summary:
    default = avatar_named(args.avatar or "", Path())
    uses = Counter(one.avatar for one in orders if isinstance(one, Order))
    wanted = Counter({path: count for path, count in uses.items() if isinstance(path, Path)})
    if isinstance(default, Path):
        wanted[default] += 1
    with AvatarsOfFiles(settings, wanted) as files:
        settings = files.settings
        if isinstance(default, Path):
            avatars = settings.avatars.model_copy(update={"default": files.id_of(default)})
            settings = settings.model_copy(update={"avatars": avatars})
        return asyncio.run(_make_all(args, settings, orders, key, files, is_single=is_single))


async def _make_all(
    args: argparse.Namespace,
    settings: Settings,
    orders: Sequence[Order | Failed],
    key: ColourKey | None,
    files: AvatarsOfFiles,
    *,
    is_single: bool,
) -> Summary:
    voices = create_voices(settings.tts)
    renderer, avatars = await asyncio.to_thread(_loaded, settings)
    await renderer.start()
    try:
        fps = Fraction(settings.render.fps)
        maker = VideoMaker(renderer, avatars, fps, rest_s=args.rest, key=key)
        work = _Work(maker, avatars, files, voices, args.voice or settings.tts.voice)
        begun_s = time.monotonic()
        if is_single:
            assert isinstance(orders[0], Order)
            results: Sequence[Made | Failed] = [await work.single(orders[0])]
        else:
            at_once = len(assembly.configured_devices(settings)) + 1
            results = await work.several(orders, at_once)
        return Summary(results, time.monotonic() - begun_s, _stages_s(renderer.stats()))
    finally:
        avatars.close()
        await renderer.close()
        await voices.close()


def _loaded(settings: Settings) -> tuple[FacePool, AnyAvatars]:
    """What makes frames; a line on the terminal says meanwhile what it does."""
    with tqdm(bar_format="{desc}", leave=False, disable=None) as line:
        return assembly.load_renderer(settings, line.set_description_str)


@lru_cache(maxsize=4)
def _picture(path: Path) -> Background:
    return Background(PICTURE, read_still(path, max_side=MAX_SIDE))


class _Work:
    """Makes what is ordered, and shows how far it is."""

    def __init__(
        self,
        maker: VideoMaker,
        avatars: AnyAvatars,
        files: AvatarsOfFiles,
        voices: Voices,
        voice: str,
    ) -> None:
        self._maker = maker
        self._avatars = avatars
        self._files = files
        self._voices = voices
        self._voice = voice

    async def single(self, order: Order) -> Made:
        """Raises what makes it impossible."""
        with tqdm(desc=order.output.name, unit="frame", disable=None) as bar:

            def progress(done: int, total: int | None) -> None:
                bar.total = total
                bar.update(1)

            return await self._make(order, progress)

    async def several(self, orders: Sequence[Order | Failed], at_once: int) -> list[Made | Failed]:
        """One that fails does not stop the others. The results are in the orders' order."""
        results: dict[int, Made | Failed] = {}
        waiting = iter(enumerate(orders))
        with tqdm(total=len(orders), unit="video", disable=None) as bar:

            async def work() -> None:
                for index, order in waiting:
                    result = results[index] = await self._tried(order)
                    if isinstance(result, Failed):
                        tqdm.write(f"error: {result.output}: {result.error}", file=sys.stderr)
                    bar.update(1)

            async with asyncio.TaskGroup() as group:
                for number in range(at_once):
                    group.create_task(work(), name=f"make videos {number}")
        return [results[index] for index in range(len(orders))]

    async def _tried(self, order: Order | Failed) -> Made | Failed:
        if isinstance(order, Failed):
            return order
        try:
            return await self._make(order, lambda done, total: None)
        except (WsavatarError, OSError) as error:
            return Failed(str(order.output), str(error))

    async def _make(self, order: Order, progress: Progress) -> Made:
        async with self._avatar(order) as avatar_id:
            source = await self._source(order, avatar_id)
            background: str | Background | None = None
            if isinstance(order.background, Path):
                background = await asyncio.to_thread(_picture, order.background)
            elif order.background:
                background = order.background
            return await self._maker.make(source, avatar_id, order.output, progress, background)

    @asynccontextmanager
    async def _avatar(self, order: Order) -> AsyncIterator[str]:
        """The id of the order's avatar, while it is needed."""
        if not isinstance(order.avatar, Path):
            yield order.avatar or await asyncio.to_thread(lambda: self._avatars.default_id)
            return
        try:
            yield await asyncio.to_thread(self._files.id_of, order.avatar)
        finally:
            await asyncio.to_thread(self._files.release, order.avatar)

    async def _source(self, order: Order, avatar_id: str) -> SoundSource:
        if order.audio is not None:
            return await FileSource.open(order.audio)
        avatar: AvatarInfo = await asyncio.to_thread(self._avatars.get, avatar_id)
        voice = order.voice or self._voice or avatar.voice
        return TextSource(order.text, self._voices.voice(voice))


def _stages_s(stats: dict[str, Any]) -> dict[str, float]:
    """Seconds of each stage, of all devices."""
    total: Counter[str] = Counter()
    for device in stats["devices"].values():
        total.update(device.get("stage_s", {}))
    return {stage: round(seconds, 3) for stage, seconds in total.items()}


def _report(summary: Summary, path: Path | None) -> None:
    for one in summary.made:
        print(f"wrote {one.path}: {one.frame_count} frames, {one.seconds:.2f} s")
    for lost in summary.failed:
        print(f"failed {lost.output}: {lost.error}")
    if path is not None and str(path) == "-":
        print(json.dumps(summary.to_dict()))
        return
    print(summary)
    if path is not None:
        path.write_text(json.dumps(summary.to_dict(), indent=2) + "\n", encoding="utf-8")
