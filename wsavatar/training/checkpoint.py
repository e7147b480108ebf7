"""A checkpoint folder: the model in the official layout, its lip estimators and its figures."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from wsavatar.training.architecture import save
from wsavatar.training.lip_estimator import LipEstimator
from wsavatar.training.networks import Networks

__all__ = ["grow_encoder", "save_checkpoint", "load_checkpoint"]


def load_checkpoint(networks: Networks, estimators: list[LipEstimator], folder: Path) -> None:
    """Load the weights that the folder has.

    An encoder of fewer or narrower layers is enlarged by ``grow_encoder``, which raises ValueError
    where that is not possible.
    """

    def read(path: str) -> dict[str, Tensor]:
        file = folder / path
        return {k: v.float() for k, v in load_file(file).items()} if file.exists() else {}

    if vae := read("sd-vae/diffusion_pytorch_model.safetensors"):
        networks.vae.load_state_dict(vae)
        config = json.loads((folder / "sd-vae" / "config.json").read_text())
        networks.scale.fill_(config["scaling_factor"])
    if unet := read("musetalkV15/unet.safetensors"):
        networks.unet.load_state_dict(unet)
    if audio := read("whisper/model.safetensors"):
        audio = {k.removeprefix("model.encoder."): v for k, v in audio.items()}
        networks.audio.load_state_dict(grow_encoder(audio, networks.audio))
    # Folders written before the estimators had their name hold "lipmeters".
    if saved := read("lip_estimators.safetensors") or read("lipmeters.safetensors"):
        for i, estimator in enumerate(estimators):
            own = {k[2:]: v for k, v in saved.items() if k.startswith(f"{i}.")}
            estimator.load_state_dict(own, strict=False)  # scale and mean are constants


_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_FROM_UNITS, _TO_UNITS = ("fc1.weight", "fc1.bias"), "fc2.weight"
_OUTPUTS = ("self_attn.out_proj.weight", "self_attn.out_proj.bias", "fc2.weight", "fc2.bias")


def grow_encoder(small: dict[str, Tensor], encoder: WhisperEncoder) -> dict[str, Tensor]:
    """Weights for ``encoder`` that give the output of a smaller encoder's weights.

    New layers are put after each layer of the small encoder, and new units into its layers; their
    output weights are zero until trained. Raises ValueError where the larger depth is no multiple
    of the smaller one or anything else differs.
    """
    weights = {k: v.clone() for k, v in encoder.state_dict().items()}
    old = 1 + max(int(m[1]) for k in small if (m := _LAYER.match(k)))
    times, rest = divmod(len(encoder.layers), old)
    if rest or not times:
        raise ValueError(f"{old} layers do not grow to {len(encoder.layers)}")
    for name, mine in weights.items():
        layer = _LAYER.match(name)
        if layer and int(layer[1]) % times:
            if layer[2] in _OUTPUTS:
                mine.zero_()
            continue
        source = small[f"layers.{int(layer[1]) // times}.{layer[2]}" if layer else name]
        if layer and layer[2] in _FROM_UNITS and len(source) < len(mine):
            mine[: len(source)] = source
        elif layer and layer[2] == _TO_UNITS and source.shape[1] < mine.shape[1]:
            mine.zero_()[:, : source.shape[1]] = source
        elif source.shape != mine.shape:
            raise ValueError(f"{name} has {list(source.shape)} numbers, not {list(mine.shape)}")
        else:
            mine.copy_(source)
    return weights


def save_checkpoint(
    folder: Path, networks: Networks, estimators: list[LipEstimator], figures: dict[str, Any]
) -> None:
    """Write the model to ``folder``. Files are replaced only when all are written."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save(part, networks.vae, networks.unet, networks.audio, float(networks.scale))
    weights = {
        f"{i}.{k}": v.detach().half().cpu().contiguous()
        for i, estimator in enumerate(estimators)
        for k, v in estimator.state_dict().items()
    }
    save_file(weights, part / "lip_estimators.safetensors")
    (part / "figures.json").write_text(json.dumps(figures, indent=1))
    for file in sorted(p for p in part.rglob("*") if p.is_file()):
        target = folder / file.relative_to(part)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
    shutil.rmtree(part)
