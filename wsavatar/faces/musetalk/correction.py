"""How a `Tuning` corrects latents: a small network of torch, the same on every device.

It does not know how the network learns (`wsavatar.faces.musetalk.finetune`).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wsavatar.faces.musetalk.spec import ModelSpec
from wsavatar.faces.musetalk.tuning import HIDDEN, Tuning

__all__ = ["LatentCorrection", "tuned"]

_AT_ONCE = 64


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
