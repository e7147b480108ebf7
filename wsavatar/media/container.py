"""Opening media files for reading, with every release of PyAV that the package takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

__all__ = ["open_container"]

# Titles that are not UTF-8 are common, and not read here. PyAV raised at them before release 19,
# which has no such option.
_TOLERANT: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)


def open_container(path: Path) -> InputContainer:
    """The file's container. Raises av.FFmpegError, or OSError where it cannot be read."""
    container: InputContainer = av.open(str(path), mode="r", **_TOLERANT)
    return container
