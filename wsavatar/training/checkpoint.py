"""A folder of training: the model in the official layout, its lip meters, and its figures."""

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
from wsavatar.training.lipmeter import LipMeter
from wsavatar.training.networks import Face

__all__ = ["grown", "keep", "resume"]


def resume(face: Face, meters: list[LipMeter], folder: Path) -> None:
    """Continue from whatever saved weights the folder holds.

    An encoder of fewer or narrower layers grows; see ``grown``. Raises ValueError where it cannot.
    """

    def read(path: str) -> dict[str, Tensor]:
        file = folder / path
        return {k: v.float() for k, v in load_file(file).items()} if file.exists() else {}

    if vae := read("sd-vae/diffusion_pytorch_model.safetensors"):
        face.vae.load_state_dict(vae)
        config = json.loads((folder / "sd-vae" / "config.json").read_text())
        face.scale.fill_(config["scaling_factor"])
    if unet := read("musetalkV15/unet.safetensors"):
        face.unet.load_state_dict(unet)
    if audio := read("whisper/model.safetensors"):
        audio = {k.removeprefix("model.encoder."): v for k, v in audio.items()}
        face.audio.load_state_dict(grown(audio, face.audio))
    if saved := read("lipmeters.safetensors"):
        for i, meter in enumerate(meters):
            own = {k[2:]: v for k, v in saved.items() if k.startswith(f"{i}.")}
            meter.load_state_dict(own, strict=False)  # scale and mean are constants


_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_FROM_UNITS, _TO_UNITS = ("fc1.weight", "fc1.bias"), "fc2.weight"
_GIVES = ("self_attn.out_proj.weight", "self_attn.out_proj.bias", "fc2.weight", "fc2.bias")


def grown(small: dict[str, Tensor], encoder: WhisperEncoder) -> dict[str, Tensor]:
    """Weights of an encoder of fewer or narrower layers as weights of ``encoder`` that hear alike.

    Behind each layer of the small one stand as many new ones as it takes, which add nothing until
    they have learnt; and nothing comes of a layer's new units. Raises ValueError where the depths
    do not divide or anything else differs.
    """
    weights = {k: v.clone() for k, v in encoder.state_dict().items()}
    old = 1 + max(int(m[1]) for k in small if (m := _LAYER.match(k)))
    times, rest = divmod(len(encoder.layers), old)
    if rest or not times:
        raise ValueError(f"{old} layers do not grow to {len(encoder.layers)}")
    for name, mine in weights.items():
        layer = _LAYER.match(name)
        if layer and int(layer[1]) % times:
            if layer[2] in _GIVES:
                mine.zero_()
            continue
        given = small[f"layers.{int(layer[1]) // times}.{layer[2]}" if layer else name]
        if layer and layer[2] in _FROM_UNITS and len(given) < len(mine):
            mine[: len(given)] = given
        elif layer and layer[2] == _TO_UNITS and given.shape[1] < mine.shape[1]:
            mine.zero_()[:, : given.shape[1]] = given
        elif given.shape != mine.shape:
            raise ValueError(f"{name} has {list(given.shape)} numbers, not {list(mine.shape)}")
        else:
            mine.copy_(given)
    return weights


def keep(folder: Path, face: Face, meters: list[LipMeter], figures: dict[str, Any]) -> None:
    """Write the model whole or not at all, so that a run cut short loses only its last minutes."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    save(part, face.vae, face.unet, face.audio, float(face.scale))
    weights = {
        f"{i}.{k}": v.detach().half().cpu().contiguous()
        for i, meter in enumerate(meters)
        for k, v in meter.state_dict().items()
    }
    save_file(weights, part / "lipmeters.safetensors")
    (part / "figures.json").write_text(json.dumps(figures, indent=1))
    for file in sorted(p for p in part.rglob("*") if p.is_file()):
        target = folder / file.relative_to(part)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
    shutil.rmtree(part)
