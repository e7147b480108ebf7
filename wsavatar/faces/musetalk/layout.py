"""Where the official layout keeps its files, and what to say when one is not there.

Names only: this module opens no file.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from wsavatar.faces.musetalk.spec import Decoder, Version

__all__ = ["Part", "PartFiles", "find", "missing", "part_files"]

Part = Literal["unet", "vae", "whisper", "tiny"]


@dataclass(frozen=True, slots=True)
class PartFiles:
    """One part's files, as paths within the model's directory; the first that exists is read."""

    part: Part
    config: str
    weights: tuple[str, ...]


_VAE = PartFiles(
    "vae",
    "sd-vae/config.json",
    ("sd-vae/diffusion_pytorch_model.safetensors", "sd-vae/diffusion_pytorch_model.bin"),
)
_WHISPER = PartFiles(
    "whisper",
    "whisper/config.json",
    ("whisper/model.safetensors", "whisper/pytorch_model.bin"),
)
_TINY = PartFiles(
    "tiny",
    "taesd/config.json",
    ("taesd/diffusion_pytorch_model.safetensors", "taesd/diffusion_pytorch_model.bin"),
)
_UNETS: dict[Version, PartFiles] = {
    "v15": PartFiles(
        "unet",
        "musetalkV15/musetalk.json",
        ("musetalkV15/unet.safetensors", "musetalkV15/unet.pth"),
    ),
    "v1": PartFiles(
        "unet",
        "musetalk/musetalk.json",
        ("musetalk/pytorch_model.safetensors", "musetalk/pytorch_model.bin"),
    ),
}


def part_files(version: Version, decoder: Decoder = "vae") -> tuple[PartFiles, ...]:
    """The files of every part of one version; the VAE is always one, for it encodes crops."""
    return (_UNETS[version], _VAE, _WHISPER, *((_TINY,) if decoder == "tiny" else ()))


def find(directory: Path, names: tuple[str, ...]) -> Path | None:
    """The first of ``names`` that is a file in ``directory``."""
    return next((directory / name for name in names if (directory / name).is_file()), None)


def missing(directory: Path, names: tuple[str, ...]) -> str:
    """Say that none of ``names`` is there, and which file probably is the one meant."""
    message = f"{names[0]}: missing"
    if len(names) > 1:
        message += f" (or {', '.join(names[1:])})"
    near = _near_miss(directory, names)
    return f"{message}; {near}" if near else message


def _near_miss(directory: Path, names: tuple[str, ...]) -> str:
    wanted = Path(names[0])
    folder = directory / wanted.parent
    if not folder.is_dir():
        beside = sorted(path.name for path in directory.iterdir() if path.is_dir())
        close = _closest(wanted.parent.name, beside)
        return f"found {close}/: rename it to {wanted.parent}/" if close else ""
    present = sorted(path.name for path in folder.iterdir() if path.is_file())
    for name in names:
        suffix = Path(name).suffix
        close = _closest(Path(name).name, [other for other in present if other.endswith(suffix)])
        if close:
            return f"found {wanted.parent}/{close}: rename it to {Path(name).name}"
    return ""


def _closest(name: str, candidates: list[str]) -> str:
    """The candidate most like ``name``: by case, by containing it, or by spelling."""
    others = [other for other in candidates if other != name]
    for other in others:
        if other.lower() == name.lower() or other.lower().startswith(name.lower() + "-"):
            return other
    close = get_close_matches(name, others, n=1, cutoff=0.6)
    return close[0] if close else ""
