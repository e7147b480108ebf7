"""Opening media files for reading, with every release of PyAV that the package takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
from av.container import InputContainer

__all__ = ["open_container", "reason"]

# Titles that are not UTF-8 are common, and not read here. PyAV raised at them before release 19,
# which has no such option.
_TOLERANT: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
)
_FORMATS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "ogg", "asf", "mxf", "nut"),
    *("rm", "ivf", "h264", "hevc", "m4v", "obu", "av1", "dv", "yuv4mpegpipe", "gif", "apng"),
    *("jpegxl_anim", "jpegxl_pipe", "webp_pipe", "png_pipe", "jpeg_pipe"),
    *("wav", "w64", "mp3", "flac", "aac", "loas", "aiff", "caf", "amr", "amrnb", "amrwb"),
    *("ac3", "eac3", "dts", "wv", "tta", "ape", "au", "gsm", "voc"),
)


def open_container(path: Path) -> InputContainer:
    """The file's container. Raises av.FFmpegError, or OSError where it cannot be read.

    Only of formats that hold their pictures and sound themselves, whatever the file's name says.
    Playlists and lists of files would make a file that someone sent read others, or addresses.
    """
    try:
        container: InputContainer = av.open(
            str(path),
            mode="r",
            options={"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "file"},
            **_TOLERANT,
        )
    except av.ArgumentError as error:  # what FFmpeg says of a format that is not in the list
        raise av.InvalidDataError(error.errno or 0, "its format is not read", str(path)) from error
    return container


def reason(error: Exception) -> object:
    """What an error of FFmpeg or the disk says, without the file that it names."""
    return getattr(error, "strerror", None) or error
