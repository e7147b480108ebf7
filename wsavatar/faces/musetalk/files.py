"""A model's files as a whole: what identifies them, and whether they are all there.

It reads bytes and JSON and knows no network, so that a model which was converted before is known
again without torch.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from wsavatar.errors import WsavatarError
from wsavatar.faces.musetalk.layout import find, part_files
from wsavatar.faces.musetalk.spec import (
    EXTRAS_FILE,
    Decoder,
    ModelExtras,
    SpecError,
    Version,
    read_extras,
)

__all__ = [
    "CheckpointError",
    "ModelFiles",
    "fingerprint",
    "one_line",
    "preprocessor_problems",
    "read_files",
]


class CheckpointError(WsavatarError):
    """A model directory is not usable. ``problems`` has one line for each problem."""

    def __init__(self, directory: Path, problems: list[str]) -> None:
        self.directory = directory
        self.problems = problems
        lines = "\n".join(f"  {problem}" for problem in problems)
        super().__init__(
            f"{directory} is not a usable model:\n{lines}\n"
            f"`python run.py weights --check {directory}` checks it again"
        )


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What is known of a model without its tensors."""

    fingerprint: str
    extras: ModelExtras


def read_files(directory: Path, version: Version, decoder: Decoder = "vae") -> ModelFiles | None:
    """None where a file is missing or wrong: `wsavatar.faces.musetalk.checkpoint` says which."""
    try:
        known = fingerprint(directory, version, decoder)
        extras = read_extras(directory, version)
    except (OSError, SpecError):
        return None
    if known is None or preprocessor_problems(directory):
        return None
    return ModelFiles(known, extras)


_WHOLE_FILE_BYTES = 64 * 1024 * 1024
_SAMPLES, _SAMPLE_BYTES = 64, 64 * 1024


def fingerprint(directory: Path, version: Version, decoder: Decoder = "vae") -> str | None:
    """Hex digits that change with the configs and the weights; None where one is missing.

    Small files count whole. Of large ones the size and 64 evenly spread samples do: training
    changes every tensor, and reading gigabytes twice would double the start.
    """
    parts = part_files(version, decoder)
    found = [find(directory, one) for part in parts for one in ((part.config,), part.weights)]
    if None in found:
        return None
    digest = hashlib.sha256(version.encode())
    for path in (find(directory, (EXTRAS_FILE,)), *found):
        if path is None:  # official models have no extras
            continue
        size = path.stat().st_size
        digest.update(f"{path.relative_to(directory).as_posix()} {size}\n".encode())
        with path.open("rb") as file:
            if size <= _WHOLE_FILE_BYTES:
                digest.update(file.read())
                continue
            for sample in range(_SAMPLES + 1):
                file.seek((size - _SAMPLE_BYTES) * sample // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()[:16]


def preprocessor_problems(directory: Path) -> list[str]:
    """The log-mel is fixed in code; a file that asks for another must not be ignored."""
    name = "whisper/preprocessor_config.json"
    path = find(directory, (name,))
    if path is None:
        return []
    try:
        values = json.loads(path.read_text("utf-8"))
        fixed = {"sampling_rate": 16_000, "hop_length": 160, "n_fft": 400}
        wrong = {key: values[key] for key in fixed if values.get(key, fixed[key]) != fixed[key]}
    except (OSError, ValueError, AttributeError) as error:
        return [f"{name}: cannot be read as JSON ({one_line(error)})"]
    return [f"{name}: {key} must be {fixed[key]}, not {value}" for key, value in wrong.items()]


def one_line(error: BaseException) -> str:
    """An error's text on one line, at most 300 characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
