"""Reads a model's files: finds them, checks every tensor's shape, builds the modules.

The architecture comes from the config files, so any size loads. Weights are safetensors, or .bin
and .pth read weights-only: nothing is ever unpickled. What is wrong is said file by file, all of
it at once. This module knows no devices and runs no model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from wsavatar.faces.musetalk.architecture import build, config_of
from wsavatar.faces.musetalk.features import AudioEncoder
from wsavatar.faces.musetalk.files import (
    CheckpointError,
    fingerprint,
    one_line,
    preprocessor_problems,
)
from wsavatar.faces.musetalk.layout import Part, PartFiles, find, missing, part_files
from wsavatar.faces.musetalk.networks import patch_of
from wsavatar.faces.musetalk.spec import (
    Decoder,
    ModelExtras,
    ModelSpec,
    SpecError,
    Version,
    read_extras,
)
from wsavatar.machine import one_torch_thread

__all__ = ["CheckpointError", "LoadedModules", "find_problems", "load_modules"]


@dataclass(frozen=True, slots=True)
class LoadedModules:
    """A model's parts on the CPU, in evaluation mode, and what they add up to."""

    spec: ModelSpec
    extras: ModelExtras
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    audio: AudioEncoder
    tiny: AutoencoderTiny | None = None
    """Decodes in the VAE's place, where it was asked for."""


@dataclass(slots=True)
class _Opened:
    """One part, built without memory for its weights, and the file that holds them."""

    files: PartFiles
    module: nn.Module
    weights: Path
    names: dict[str, str]
    """Our name for a tensor -> the file's."""


def find_problems(directory: Path, version: Version, decoder: Decoder = "vae") -> list[str]:
    """Missing, misnamed and wrongly shaped files, one line each; empty: no problem.

    Reads headers and configs only, so it is quick for a model of any size (old-style .bin files
    excepted).
    """
    return _open(Path(directory), version, decoder)[2]


def load_modules(
    directory: Path, version: Version, dtype: torch.dtype, decoder: Decoder = "vae"
) -> LoadedModules:
    """Load every part in ``dtype``. Raises CheckpointError with all problems."""
    directory = Path(directory)
    parts, extras, problems = _open(directory, version, decoder)
    if problems or extras is None:
        raise CheckpointError(directory, problems)
    known = fingerprint(directory, version, decoder)
    for opened in parts.values():
        try:
            with one_torch_thread():
                _fill(opened, dtype)
        except (OSError, RuntimeError, SafetensorError, ValueError) as error:
            problems.append(f"{opened.weights.relative_to(directory)}: {one_line(error)}")
    if not problems and (known is None or fingerprint(directory, version, decoder) != known):
        # Caches are keyed by the fingerprint, so it must be that of these weights.
        problems.append("its files changed while they were read: try again")
    if problems or known is None:
        raise CheckpointError(directory, problems)
    unet, vae, audio = (parts[part].module for part in ("unet", "vae", "whisper"))
    assert isinstance(unet, UNet2DConditionModel)
    assert isinstance(vae, AutoencoderKL)
    assert isinstance(audio, AudioEncoder)
    tiny = parts["tiny"].module if "tiny" in parts else None
    assert tiny is None or isinstance(tiny, AutoencoderTiny)
    spec = ModelSpec(
        version=version,
        crop_size=extras.crop_size,
        latent_channels=int(config_of(vae)["latent_channels"]),
        latent_size=_latent_size(vae, extras),
        layers=len(audio.given),
        dim=audio.config.d_model,
        grid=extras.grid,
        extra_margin=extras.extra_margin,
        fingerprint=known,
        decode_from_row=extras.decode_from_row,
    )
    return LoadedModules(spec, extras, unet, vae, audio, tiny)


def _open(
    directory: Path, version: Version, decoder: Decoder
) -> tuple[dict[Part, _Opened], ModelExtras | None, list[str]]:
    if not directory.is_dir():
        return {}, None, [f"{directory}: no such directory"]
    problems: list[str] = []
    parts: dict[Part, _Opened] = {}
    wanted = part_files(version, decoder)
    for files in wanted:
        opened = _open_part(directory, files, problems)
        if opened is not None:
            parts[files.part] = opened
    extras = None
    try:
        extras = read_extras(directory, version)
    except SpecError as error:
        problems.append(str(error))
    problems += preprocessor_problems(directory)
    if extras is not None and len(parts) == len(wanted):
        problems += _misfits(parts, extras)
    return parts, extras, problems


def _open_part(directory: Path, files: PartFiles, problems: list[str]) -> _Opened | None:
    config = find(directory, (files.config,))
    weights = find(directory, files.weights)
    if config is None:
        problems.append(missing(directory, (files.config,)))
    if weights is None:
        problems.append(missing(directory, files.weights))
    if config is None or weights is None:
        return None
    try:
        values = json.loads(config.read_text("utf-8"))
        with torch.device("meta"):
            module = build(files.part, values)
    except Exception as error:  # a config can fail in any way that diffusers can
        problems.append(f"{files.config}: does not describe a {files.part} ({one_line(error)})")
        return None
    name = str(weights.relative_to(directory))
    try:
        shapes = _shapes(weights)
    except Exception as error:  # so can a damaged file
        problems.append(f"{name}: cannot be read, download it again ({one_line(error)})")
        return None
    names = _our_names(files.part, shapes)
    found = {ours: shapes[theirs] for ours, theirs in names.items()}
    wrong = _shape_problems(module, found)
    problems += [f"{name}: {problem}" for problem in wrong]
    return None if wrong else _Opened(files, module, weights, names)


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    return {name: tuple(tensor.shape) for name, tensor in _load_torch(path).items()}


def _load_torch(path: Path) -> dict[str, Tensor]:
    try:
        values = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError:  # written before torch 1.6: no zip, so no mapping into memory
        values = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(values, dict) and isinstance(values.get("state_dict"), dict):
        values = values["state_dict"]
    if not isinstance(values, dict):
        raise ValueError("holds no state dict")
    return {name: tensor for name, tensor in values.items() if isinstance(tensor, Tensor)}


_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _our_names(part: Part, names: dict[str, tuple[int, ...]]) -> dict[str, str]:
    """Our names for a file's tensors.

    Whisper's file holds the whole model: the encoder's tensors are taken, with whatever prefix.
    The published sd-vae-ft-mse names its attention as diffusers did before 0.12.
    """
    if part == "whisper":
        for prefix in ("model.encoder.", "encoder."):
            inside = [name for name in names if name.startswith(prefix)]
            if inside:
                return {name[len(prefix) :]: name for name in inside}
        return {name: name for name in names}
    if part == "vae":
        return {_modern_attention(name): name for name in names}
    return {name.removeprefix("module."): name for name in names}


def _modern_attention(name: str) -> str:
    head, _, tail = name.rpartition(".")
    parent, _, layer = head.rpartition(".")
    if ".attentions." in name and layer in _OLD_ATTENTION:
        return f"{parent}.{_OLD_ATTENTION[layer]}.{tail}"
    return name


def _shape_problems(module: nn.Module, found: dict[str, tuple[int, ...]]) -> list[str]:
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    absent = sorted(set(expected) - set(found))
    extra = sorted(set(found) - set(expected))
    wrong = [
        f"{name} is {list(found[name])}, its config says {list(shape)}"
        for name, shape in expected.items()
        if name in found and _squeezed(found[name], shape) != shape
    ]
    return (
        _listed(f"{len(absent)} tensors missing", absent)
        + _listed(f"{len(extra)} tensors that the config has no place for", extra)
        + _listed(f"{len(wrong)} tensors of the wrong shape", wrong)
    )


def _listed(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f", … and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"]


def _squeezed(found: tuple[int, ...], expected: tuple[int, ...]) -> tuple[int, ...]:
    """Old VAE attention is a 1x1 convolution where diffusers now has a linear layer."""
    return found[:2] if len(expected) == 2 and found[2:] == (1, 1) else found


def _fill(opened: _Opened, dtype: torch.dtype) -> None:
    expected = opened.module.state_dict()
    tensors = {}

    def keep(ours: str, tensor: Tensor) -> None:
        # A copy even where nothing converts: a module must not hold on to a file's mapping.
        tensors[ours] = tensor.reshape(expected[ours].shape).to(dtype, copy=True)

    if opened.weights.suffix == ".safetensors":
        with safe_open(opened.weights, "pt") as file:
            for ours, theirs in opened.names.items():
                keep(ours, file.get_tensor(theirs))
    else:
        values = _load_torch(opened.weights)
        for ours, theirs in opened.names.items():
            keep(ours, values[theirs])
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ValueError(_listed(f"{len(broken)} tensors are not finite in {dtype}", broken)[0])
    opened.module.load_state_dict(tensors, assign=True)
    opened.module.eval().requires_grad_(False)


def _misfits(parts: dict[Part, _Opened], extras: ModelExtras) -> list[str]:
    """Problems of parts that are valid but do not fit together."""
    unet, vae, whisper = (parts[part].module for part in ("unet", "vae", "whisper"))
    assert isinstance(whisper, AudioEncoder)
    channels = config_of(vae)["latent_channels"]
    size = _latent_size(vae, extras)
    config = whisper.config
    expected = (
        ("the UNet's in_channels", config_of(unet)["in_channels"], 2 * channels),
        ("the UNet's out_channels", config_of(unet)["out_channels"], channels),
        ("the UNet's cross_attention_dim", config_of(unet)["cross_attention_dim"], config.d_model),
    )
    problems = [
        f"{parts['unet'].files.config}: {what} is {found}, the other parts need {needed}"
        for what, found, needed in expected
        if found != needed
    ]
    if size * _pixels_per_latent(vae) != extras.crop_size:
        problems.append(f"sd-vae/config.json: does not divide a crop of {extras.crop_size} pixels")
    if "tiny" in parts:
        tiny = config_of(parts["tiny"].module)
        # Each block but the last doubles the picture.
        fits = 2 ** (len(tiny["decoder_block_out_channels"]) - 1) == _pixels_per_latent(vae)
        if tiny["latent_channels"] != channels or not fits or tiny["out_channels"] != 3:
            problems.append(f"{parts['tiny'].files.config}: does not decode this VAE's latents")
    if extras.decode_from_row > size // 2:
        problems.append(f"wsavatar.json: decode_from_row must be at most {size // 2}")
    if extras.window_positions > config.max_source_positions:
        problems.append(
            f"whisper/config.json: max_source_positions is {config.max_source_positions}, but the "
            f"window has {extras.window_positions} positions"
        )
    return problems


def _pixels_per_latent(vae: nn.Module) -> int:
    patch = patch_of(cast("AutoencoderKL", vae))
    return patch * int(2 ** (len(config_of(vae)["block_out_channels"]) - 1))


def _latent_size(vae: nn.Module, extras: ModelExtras) -> int:
    return extras.crop_size // _pixels_per_latent(vae)
