"""A folder of training: the model in the official layout, its lip meters, and its figures."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from wsavatar.training.architecture import save
from wsavatar.training.lipmeter import LipMeter
from wsavatar.training.networks import Face

__all__ = ["keep", "resume"]


def resume(face: Face, meters: list[LipMeter], folder: Path) -> None:
    """Continue from whatever saved weights the folder holds."""

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
        face.audio.load_state_dict({k.removeprefix("model.encoder."): v for k, v in audio.items()})
    if saved := read("lipmeters.safetensors"):
        for i, meter in enumerate(meters):
            own = {k[2:]: v for k, v in saved.items() if k.startswith(f"{i}.")}
            meter.load_state_dict(own, strict=False)  # scale and mean are constants


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
