"""What `finetune` learns of one person, as a file: a correction of an avatar's latents.

The networks stay as they are, so frames of tuned and other avatars make one batch. This module
knows the file's content, not how it is applied (`wsavatar.faces.musetalk.correction`) or learned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from wsavatar.errors import WsavatarError
from wsavatar.faces.musetalk.spec import ModelSpec

__all__ = ["HIDDEN", "Tuning", "TuningError", "array_shapes", "read_tuning"]

FORMAT_VERSION = 1
HIDDEN = 48
"""Channels between the two convolutions."""
_KEY = "wsavatar"


class TuningError(WsavatarError, ValueError):
    """A tuning cannot be used with this model; the message says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """A correction of latents [2C, h, w], float32, for the model with that fingerprint."""

    fingerprint: str
    offset: np.ndarray  # [2C, h, w]
    inwards: np.ndarray  # [HIDDEN, 2C, 3, 3]
    inwards_bias: np.ndarray  # [HIDDEN]
    outwards: np.ndarray  # [2C, HIDDEN, 3, 3]
    outwards_bias: np.ndarray  # [2C]

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "fingerprint"}

    @property
    def is_finite(self) -> bool:
        """Whether every number is one that can be used."""
        return all(np.isfinite(array).all() for array in self.arrays().values())

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        said = {"version": FORMAT_VERSION, "model": self.fingerprint}
        return save(self.arrays(), metadata={_KEY: json.dumps(said)})


def read_tuning(data: bytes, spec: ModelSpec) -> Tuning:
    """The tuning of `Tuning.to_bytes`, checked against the model. Raises TuningError."""
    try:
        arrays = load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        said = json.loads(header["__metadata__"][_KEY])
        version, model = said["version"], said["model"]
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise TuningError("it is damaged, or no file of finetune: run finetune again") from error
    if version != FORMAT_VERSION:
        raise TuningError(f"it has format {version}, not {FORMAT_VERSION}: run finetune again")
    if model != spec.fingerprint:
        raise TuningError("it was made for other weights of the model: run finetune again")
    _check(arrays, spec)
    return Tuning(spec.fingerprint, **arrays)


def array_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The shapes of a `Tuning`'s arrays, by name."""
    channels, size = 2 * spec.latent_channels, spec.latent_size
    return {
        "offset": (channels, size, size),
        "inwards": (HIDDEN, channels, 3, 3),
        "inwards_bias": (HIDDEN,),
        "outwards": (channels, HIDDEN, 3, 3),
        "outwards_bias": (channels,),
    }


def _check(arrays: Mapping[str, np.ndarray], spec: ModelSpec) -> None:
    expected = array_shapes(spec)
    if set(arrays) != set(expected):
        raise TuningError(f"it has arrays {sorted(arrays)}, not {sorted(expected)}")
    for name, array in arrays.items():
        if array.shape != expected[name] or array.dtype != np.float32:
            raise TuningError(
                f"its {name} is {array.dtype} {list(array.shape)}, not float32 "
                f"{list(expected[name])}"
            )
        if not np.isfinite(array).all():
            raise TuningError(f"its {name} has values that are not finite")
