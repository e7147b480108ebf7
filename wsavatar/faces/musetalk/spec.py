"""Values fixed by a model's files: sizes, the feature grid, the end of its crop.

The official files lack some values that a renderer needs. These are the same for every official
model and are the defaults here; another model has them in ``wsavatar.json`` at its root. This
module reads no weights.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from wsavatar.errors import WsavatarError
from wsavatar.speech.chunker import FeatureGrid

__all__ = [
    "EXTRAS_FILE",
    "CropMargin",
    "Decoder",
    "ModelExtras",
    "ModelSpec",
    "SpecError",
    "Version",
    "read_extras",
]

Decoder = Literal["vae", "tiny"]
"""The decoder of latents: the VAE, or a small network that was trained to replace it."""
Version = Literal["v15", "v1"]

EXTRAS_FILE = "wsavatar.json"

OFFICIAL_GRID = FeatureGrid(block_positions=5, left_positions=100, right_positions=15)
"""Whisper tiny gets at most 2 s before and 0.3 s after a block.

Offline MuseTalk gives the encoder up to 30 s on both sides, which is not possible live. Two seconds
back cover several words, which is what a mouth shape and the encoder's loudness floor depend on;
0.3 s ahead cover the next phoneme. The first frame needs positions up to 5, so block 1, so 10 + 15
positions: exactly the first 0.5 s of audio."""


class SpecError(WsavatarError, ValueError):
    """``wsavatar.json`` is not valid; the message says where."""


@dataclass(frozen=True, slots=True)
class CropMargin:
    """Margin of the crop below the chin: in pixels, or as a part of the face box's height."""

    pixels: int = 0
    relative: float = 0.0

    def below_chin(self, face_height: float) -> int:
        """Pixels to add under the chin of a face box ``face_height`` pixels tall."""
        return self.pixels + round(self.relative * face_height)


@dataclass(frozen=True, slots=True)
class ModelExtras:
    """The content of ``wsavatar.json``. The defaults are those of official models."""

    crop_size: int = 256
    extra_margin: CropMargin = CropMargin()
    grid: FeatureGrid = OFFICIAL_GRID
    window_positions: int = 1500
    """Encoder positions an audio window is zero-padded to (1500: Whisper's 30 s)."""
    decode_from_row: int = 0
    """Latent rows above this one are not decoded: they are never pasted, and come back black."""
    bfloat16: bool = False
    """Its pictures in bfloat16 were measured, and stay at 50 dB or better of those in float32."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """A loaded model as other packages know it."""

    version: Version
    crop_size: int
    latent_channels: int
    latent_size: int
    layers: int
    """Hidden states stacked per position: the embedding's and each encoder layer's, or those that
    the encoder gives."""
    dim: int
    grid: FeatureGrid
    extra_margin: CropMargin
    fingerprint: str
    """Changes with any weight or setting; cached latents are keyed by it."""
    decode_from_row: int = 0

    @property
    def decoded_from_y(self) -> int:
        """First pixel row of the crop that the model draws; rows above are black."""
        return self.decode_from_row * self.crop_size // self.latent_size


def read_extras(directory: Path, version: Version) -> ModelExtras:
    """Read ``wsavatar.json``, or give the official defaults where there is none.

    Raises SpecError naming the key that is unknown, missing or out of range.
    """
    official_margin = CropMargin(pixels=10 if version == "v15" else 0)
    path = directory / EXTRAS_FILE
    if not path.is_file():
        return ModelExtras(extra_margin=official_margin)
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise SpecError(f"{EXTRAS_FILE}: cannot be read as JSON ({error})") from error
    known = set(ModelExtras.__dataclass_fields__)
    if not isinstance(values, dict) or set(values) - known:
        raise SpecError(f"{EXTRAS_FILE}: expected an object with keys among {sorted(known)}")
    extras = ModelExtras(
        crop_size=_integer(values, "crop_size", 256, low=16, high=2048),
        extra_margin=_margin(values.get("extra_margin"), official_margin),
        grid=_grid(values.get("grid")),
        window_positions=_integer(values, "window_positions", 1500, low=1, high=1500),
        decode_from_row=_integer(values, "decode_from_row", 0, low=0, high=1024),
        bfloat16=_boolean(values, "bfloat16"),
    )
    grid = extras.grid
    heard = grid.left_positions + grid.block_positions + grid.right_positions
    if heard > extras.window_positions:
        raise SpecError(
            f"{EXTRAS_FILE}: a grid window of {heard} positions does not fit into "
            f"window_positions {extras.window_positions}"
        )
    return extras


def _integer(values: dict[str, Any], key: str, default: int, *, low: int, high: int) -> int:
    value = values.get(key, default)
    if type(value) is not int or not low <= value <= high:
        raise SpecError(f"{EXTRAS_FILE}: {key} must be an integer from {low} to {high}")
    return value


def _boolean(values: dict[str, Any], key: str) -> bool:
    value = values.get(key, False)
    if not isinstance(value, bool):
        raise SpecError(f"{EXTRAS_FILE}: {key} must be true or false")
    return value


def _margin(value: Any, official: CropMargin) -> CropMargin:
    if value is None:
        return official
    if type(value) is int and 0 <= value <= 1024:
        return CropMargin(pixels=value)
    relative = value.get("relative") if isinstance(value, dict) and len(value) == 1 else None
    if isinstance(relative, int | float) and 0 <= relative <= 1:
        return CropMargin(relative=float(relative))
    raise SpecError(
        f'{EXTRAS_FILE}: extra_margin must be pixels (0 to 1024) or {{"relative": 0.0 to 1.0}}'
    )


def _grid(value: Any) -> FeatureGrid:
    if value is None:
        return OFFICIAL_GRID
    keys = ("block_positions", "left_positions", "right_positions")
    if not isinstance(value, dict) or set(value) != set(keys):
        raise SpecError(f"{EXTRAS_FILE}: grid must have exactly the keys {list(keys)}")
    block, left, right = (
        _integer(value, key, 0, low=int(key == "block_positions"), high=1500) for key in keys
    )
    return FeatureGrid(block_positions=block, left_positions=left, right_positions=right)
