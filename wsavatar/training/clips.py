"""Test clips: frames at rest, the same frames speaking, and the speech.

``synthesis clips`` writes them and ``evaluate`` reads them: one ``.npz`` for each clip, without
pickles, pictures as PNG. This module knows neither the renderer nor the model.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np

from wsavatar.errors import WsavatarError

__all__ = ["Clip", "ClipError", "load_clip", "save_clip"]


class ClipError(WsavatarError, ValueError):
    """A clip cannot be read or does not fit together; the message names the file."""


@dataclass(frozen=True, slots=True)
class Clip:
    """n frames of one person and their speech. Landmarks are iBUG-68, in pixels."""

    name: str  # the file's stem
    bundled: bool  # False: an identity outside the training data
    voice: str
    split: str  # of the corpus: "heldout_text" or "heldout_voice"
    clip: str  # of the corpus
    fps: int
    rate: int
    audio: np.ndarray  # float32 [samples] at `rate`; lasts as long as the frames
    rest: np.ndarray  # uint8 [n, H, W, 3] RGB, mouth at rest
    truth: np.ndarray  # the same frames, mouth speaking
    rest_landmarks: np.ndarray  # float32 [n, 68, 2]
    landmarks: np.ndarray  # float32 [n, 68, 2], of `truth`
    lips: np.ndarray  # float32 [n, 3], of `truth`: inner-lip gap, inner and outer width
    bilabial: np.ndarray  # bool [n]: inside the closure of an m, b or p
    silent: np.ndarray  # bool [n]: well inside a pause


_PER_FRAME = ("rest", "truth", "rest_landmarks", "landmarks", "lips", "bilabial", "silent")


def save_clip(path: Path, clip: Clip) -> None:
    """Write the clip whole or not at all."""
    arrays = {f.name: getattr(clip, f.name) for f in fields(clip) if f.name != "name"}
    # The difference of speaking and rest compresses to a tenth of the picture's size.
    changes = arrays.pop("truth") - clip.rest  # modulo 256
    for name, pictures in (("rest", clip.rest), ("changes", changes)):
        files = [cv2.imencode(".png", picture[..., ::-1])[1] for picture in pictures]
        arrays[name] = np.concatenate(files)
        arrays[f"{name}_sizes"] = np.array([len(file) for file in files])
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.savez(file, **arrays)
    os.replace(part, path)


def load_clip(path: Path) -> Clip:
    """Read a clip. Raises ClipError saying what is wrong with which file."""
    try:
        # np.load does not close a file that it cannot read.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        for name in ("rest", "changes"):
            arrays[name] = _decode(arrays[name], arrays[f"{name}_sizes"])
        arrays["truth"] = arrays["rest"] + arrays["changes"]  # modulo 256
        values = {
            f.name: arrays[f.name] if arrays[f.name].ndim else arrays[f.name].item()
            for f in fields(Clip)
            if f.name != "name"
        }
    except KeyError as error:
        raise ClipError(f"{path}: lacks {error}: it is no test clip of this version") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, cv2.error) as error:
        raise ClipError(f"{path}: is damaged or no test clip ({error})") from error
    lengths = {name: len(values[name]) for name in _PER_FRAME}
    if len(set(lengths.values())) != 1:
        raise ClipError(f"{path}: its frames do not fit together: {lengths}")
    return Clip(name=path.stem, **values)


def _decode(data: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """PNG files end to end -> uint8 [n, H, W, 3] RGB."""
    pictures: list[np.ndarray] = []
    for file in np.split(data, np.cumsum(sizes)[:-1]):
        picture = cv2.imdecode(file, cv2.IMREAD_COLOR)
        if picture is None:
            raise ValueError(f"picture {len(pictures)} cannot be decoded")
        pictures.append(picture[..., ::-1])
    return np.stack(pictures)
