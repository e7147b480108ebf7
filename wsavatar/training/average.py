"""The mean of models' weights.

    python -m wsavatar.training.average MODEL MODEL... --out DIR [--shares 0.25,0.75]

A run on new voices loses a little quality on old voices and faces, and runs with other seeds make
other mistakes. The mean of such models' weights makes fewer mistakes than each, provided that one
was trained from the other or all from one start. It costs nothing when serving.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

__all__ = ["average", "main"]


def average(models: Sequence[Path], out: Path, shares: Sequence[float] | None = None) -> None:
    """Copy the last model's folder to ``out`` with the weighted mean of all models' weights.

    ``shares`` are the weights of the models, with the sum 1; equal ones by default. A file of
    weights that one model lacks is copied from the last model. Raises ValueError where shares do
    not fit, FileNotFoundError for a missing folder, KeyError or RuntimeError where the models
    differ in shape.
    """
    shares = shares or [1 / len(models)] * len(models)
    if len(shares) != len(models) or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"{len(models)} models need as many shares, 1 in sum, not {shares}")
    for model in models:
        if not model.is_dir():
            raise FileNotFoundError(f"there is no model in {model}")
    parts = torch.tensor(shares)
    shutil.copytree(models[-1], out, dirs_exist_ok=True)
    for file in sorted(models[-1].rglob("*.safetensors")):
        name = file.relative_to(models[-1])
        if not all((model / name).exists() for model in models):
            continue
        every = [load_file(model / name) for model in models]
        mean = {
            key: torch.tensordot(parts, torch.stack([w[key].float() for w in every]), 1).to(
                last.dtype
            )
            for key, last in every[-1].items()
        }
        save_file(mean, out / name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", help="folders that training wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shares", help="weight of each model, with the sum 1; default: equal")
    args = parser.parse_args()
    try:
        shares = [float(share) for share in args.shares.split(",")] if args.shares else None
        average(args.models, args.out, shares)
    except (ValueError, KeyError, RuntimeError, OSError) as e:
        parser.error(str(e))


if __name__ == "__main__":
    main()
