"""The ``weights`` command: downloads MuseTalk's weights, checks them, or writes random ones.

It knows where the official files are published and where they belong;
`wsavatar.faces.musetalk.checkpoint` knows what makes a directory usable.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.faces.musetalk.configured import options
from wsavatar.faces.musetalk.spec import Decoder, Version

__all__ = ["WeightsError", "add_arguments", "download", "run"]

SIZES = ("full", "mini", "compact")


class WeightsError(WsavatarError):
    """A download failed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """A published file, and its folder in the official layout."""

    repository: str
    name: str
    folder: str = ""


_UNETS: dict[Version, tuple[HubFile, ...]] = {
    "v15": (
        HubFile("TMElyralab/MuseTalk", "musetalkV15/musetalk.json"),
        HubFile("TMElyralab/MuseTalk", "musetalkV15/unet.pth"),
    ),
    "v1": (
        HubFile("TMElyralab/MuseTalk", "musetalk/musetalk.json"),
        HubFile("TMElyralab/MuseTalk", "musetalk/pytorch_model.bin"),
    ),
}
_SHARED = (
    HubFile("stabilityai/sd-vae-ft-mse", "config.json", "sd-vae"),
    HubFile("stabilityai/sd-vae-ft-mse", "diffusion_pytorch_model.safetensors", "sd-vae"),
    HubFile("openai/whisper-tiny", "config.json", "whisper"),
    HubFile("openai/whisper-tiny", "preprocessor_config.json", "whisper"),
    HubFile("openai/whisper-tiny", "model.safetensors", "whisper"),
)
_TINY = (
    HubFile("madebyollin/taesd", "config.json", "taesd"),
    HubFile("madebyollin/taesd", "diffusion_pytorch_model.safetensors", "taesd"),
)
_DWPOSE = (
    HubFile("yzd-v/DWPose", "dw-ll_ucoco_384.onnx", "dwpose"),
    HubFile("yzd-v/DWPose", "yolox_l.onnx", "dwpose"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``weights``."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--download",
        metavar="DIR",
        nargs="?",
        const="models",
        help="download the official files to DIR (default: models), about 4 GB; existing files are "
        "kept, and interrupted downloads are resumed",
    )
    what.add_argument(
        "--check",
        metavar="DIR",
        help="print missing, misnamed and wrongly shaped files",
    )
    what.add_argument(
        "--random",
        metavar="DIR",
        help="write random weights in the official layout, for tests of speed",
    )
    parser.add_argument(
        "--size",
        choices=SIZES,
        default="full",
        help="with --random: full (as published, 1.9 GB), mini (for tests), compact (for two CPU "
        "cores); default full",
    )
    parser.add_argument(
        "--dwpose",
        action="store_true",
        help="with --download: also DWPose (350 MB), for avatars.landmarks=dwpose",
    )
    parser.epilog = (parser.epilog or "") + (
        "\n\nThe default is MuseTalk 1.5; for 1.0: --set model.version=v1. With --set "
        "model.decoder=tiny the small decoder (TAESD, 10 MB) is downloaded and checked too"
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Run the command. Returns 2 if the directory is not a usable model, else 0."""
    chosen = options(settings)
    version, decoder = chosen.version, chosen.decoder
    if args.random is not None:
        return _random(Path(args.random), args.size)
    if args.download is not None:
        directory = Path(args.download)
        download(directory, version, decoder=decoder, with_dwpose=args.dwpose)
        return _check(directory, version, decoder)
    return _check(Path(args.check), version, decoder)


def _check(directory: Path, version: Version, decoder: Decoder) -> int:
    from wsavatar.faces.musetalk.checkpoint import find_problems

    problems = find_problems(directory, version, decoder)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        print(f"error: {directory} is not a usable MuseTalk {version}: {count}", file=sys.stderr)
        return 2
    print(f"{directory} has a usable MuseTalk {version}; to serve it:")
    print(f"  python run.py --set model.path={directory} --set model.version={version}")
    return 0


def _random(directory: Path, size: str) -> int:
    from wsavatar.faces.musetalk.random import SIZES as KNOWN
    from wsavatar.faces.musetalk.random import write_random_model

    write_random_model(directory, next(known for known in KNOWN if known == size))
    print(f"wrote random weights ({size}); a face made with them is noise. To use them:")
    print(f"  python run.py bench --set model.path={directory}")
    return 0


def download(
    directory: Path,
    version: Version,
    *,
    decoder: Decoder = "vae",
    with_dwpose: bool = False,
    endpoint: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Download the official files of ``version`` in the official layout, with progress.

    Complete files are kept, incomplete ones resumed. ``endpoint`` None: the hub, or
    ``$HF_ENDPOINT``. Raises WeightsError if a download fails.
    """
    from wsavatar.hub import fetch

    # It prints its messages itself; in the log each line would appear twice.
    logging.getLogger("huggingface_hub").propagate = False
    files = (*_UNETS[version], *_SHARED, *(_TINY if decoder == "tiny" else ()))
    files += _DWPOSE if with_dwpose else ()
    for number, file in enumerate(files, start=1):
        target = directory / file.folder / file.name
        say(f"[{number}/{len(files)}] {file.repository}: {file.name} -> {target}")
        try:
            fetch(file.repository, file.name, target, endpoint=endpoint)
        except Exception as error:  # errors of the hub, the HTTP library and the disk
            raise WeightsError(_explain(error, file, directory, version)) from error


def _explain(error: Exception, file: HubFile, directory: Path, version: Version) -> str:
    """Why the download of ``file`` failed, and what to do."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    text = str(error).strip()
    why = f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
    target = directory / file.folder / file.name
    resumes = "the downloaded part is kept: run the same command again to resume"
    unreachable = isinstance(error, LocalEntryNotFoundError | ConnectionError | TimeoutError)
    if isinstance(error, RepositoryNotFoundError | EntryNotFoundError) and not unreachable:
        return (
            f"{file.repository} does not offer {file.name} ({why})\n"
            f"it was moved, or needs a login (hf auth login); you may also copy it to {target}"
        )
    if isinstance(error, HfHubHTTPError):
        return f"the hub refused {file.repository}/{file.name} ({why})\ntry later: {resumes}"
    if isinstance(error, OSError) and not unreachable:
        return f"cannot write {target} ({why})\n{resumes}"
    return _no_network(file, directory, version, why) + f"\n{resumes}"


def _no_network(file: HubFile, directory: Path, version: Version, why: str) -> str:
    return (
        f"cannot reach the hub for {file.repository}/{file.name} ({why})\n"
        "behind a proxy: set HTTPS_PROXY; where the hub is blocked: set HF_ENDPOINT to a mirror\n"
        "without a network: run `python run.py weights --download models` on a machine that has\n"
        f"one, copy its models/ to {directory} here, and check it with\n"
        f"  python run.py weights --check {directory} --set model.version={version}\n"
        "the embedded model needs no download: python run.py"
    )
