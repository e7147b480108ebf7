"""The weights between a model and what further training made of it.

    python -m wsavatar.training.average BEFORE AFTER --out DIR [--share 0.5]

A run that hears new voices forgets a little of old ones, and of old faces. The mean of both models'
weights keeps most of what either knows, as long as one was trained from the other.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

__all__ = ["average", "main"]


def average(before: Path, after: Path, out: Path, share: float) -> None:
    """Write ``after``'s folder with weights ``share`` of the way there. Raises KeyError or
    RuntimeError where the two models are not of one shape."""
    shutil.copytree(after, out, dirs_exist_ok=True)
    for file in sorted(after.rglob("*.safetensors")):
        name = file.relative_to(after)
        if not (before / name).exists():
            continue
        old, new = load_file(before / name), load_file(file)
        mixed = {
            key: (old[key].float().lerp(new[key].float(), share)).to(new[key].dtype) for key in new
        }
        save_file(mixed, out / name)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path, help="the model that was resumed")
    parser.add_argument("after", type=Path, help="what training made of it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.5, help="0: before, 1: after")
    args = parser.parse_args()
    average(args.before, args.after, args.out, args.share)


if __name__ == "__main__":
    main()
