"""What `finetune` learns of one person, as a file: a correction of an avatar's latents.

The networks stay as they are, so frames of tuned and other avatars make one batch. This module
knows the file's content and how it is applied, not how it is learned.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from wsavatar.errors import WsavatarError
from wsavatar.faces.musetalk.spec import ModelSpec

__all__ = ["LatentCorrection", "Tuning", "TuningError", "read_tuning", "tuned"]

FORMAT_VERSION = 1
HIDDEN = 48
"""Channels between the two convolutions."""
_AT_ONCE = 64
_KEY = "wsavatar"


class TuningError(WsavatarError, ValueError):
    """A tuning cannot be used with this model; the message says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """The arrays of `LatentCorrection` for latents [2C, h, w], float32, and of which weights."""

    fingerprint: str
    offset: np.ndarray  # [2C, h, w]
    inwards: np.ndarray  # [HIDDEN, 2C, 3, 3]
    inwards_bias: np.ndarray  # [HIDDEN]
    outwards: np.ndarray  # [2C, HIDDEN, 3, 3]
    outwards_bias: np.ndarray  # [2C]

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "fingerprint"}

    def to_bytes(self) -> bytes:
        """As a safetensors file."""
        said = {"version": FORMAT_VERSION, "model": self.fingerprint}
        return save(self.arrays(), metadata={_KEY: json.dumps(said)})


class LatentCorrection(nn.Module):
    """latents [n, 2C, h, w], masked and reference, of frames -> the same, for one person.

    Adds an offset and what two convolutions make of them; untrained, nothing. The lower half of
    the masked latents says nothing of a frame, so there the UNet can be told of the person.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        channels, size = 2 * spec.latent_channels, spec.latent_size
        self.offset = nn.Parameter(torch.zeros(channels, size, size))
        self.inwards = nn.Conv2d(channels, HIDDEN, 3, padding=1)
        self.outwards = nn.Conv2d(HIDDEN, channels, 3, padding=1)
        nn.init.zeros_(self.outwards.weight)
        nn.init.zeros_(self.outwards.bias)  # type: ignore[arg-type]  # it has a bias

    def forward(self, latents: Tensor) -> Tensor:
        corrected: Tensor = latents + self.offset + self.outwards(F.silu(self.inwards(latents)))
        return corrected

    def tuning(self, fingerprint: str) -> Tuning:
        """What it has learned, for the model with that fingerprint."""
        values = {
            name.replace(".weight", "").replace(".bias", "_bias"): value.float().cpu().numpy()
            for name, value in self.state_dict().items()
        }
        return Tuning(fingerprint, **values)

    def load(self, tuning: Tuning) -> LatentCorrection:
        """Take a tuning's arrays."""
        names = {name.replace(".weight", "").replace(".bias", "_bias"): name
                 for name in self.state_dict()}  # fmt: skip
        arrays = tuning.arrays()
        self.load_state_dict({names[n]: torch.from_numpy(a.copy()) for n, a in arrays.items()})
        return self


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


def _check(arrays: Mapping[str, np.ndarray], spec: ModelSpec) -> None:
    expected = LatentCorrection(spec).tuning("").arrays()
    if set(arrays) != set(expected):
        raise TuningError(f"it has arrays {sorted(arrays)}, not {sorted(expected)}")
    for name, array in arrays.items():
        if array.shape != expected[name].shape or array.dtype != np.float32:
            raise TuningError(
                f"its {name} is {array.dtype} {list(array.shape)}, not float32 "
                f"{list(expected[name].shape)}"
            )
        if not np.isfinite(array).all():
            raise TuningError(f"its {name} has values that are not finite")


@torch.inference_mode()
def tuned(latents: np.ndarray, tuning: Tuning, spec: ModelSpec) -> np.ndarray:
    """Corrected latents, float16 [n, 2C, h, w]. Always on the CPU: the same on every device."""
    correction = LatentCorrection(spec).load(tuning).eval()
    limit = float(np.finfo(np.float16).max)
    made = np.empty(latents.shape, np.float16)
    for start in range(0, len(latents), _AT_ONCE):
        batch = torch.from_numpy(latents[start : start + _AT_ONCE].astype(np.float32))
        made[start : start + len(batch)] = correction(batch).clamp(-limit, limit).numpy()
    return made
