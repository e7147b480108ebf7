"""Evaluates audio encoders by a linear probe on held-out voices, without drawing a picture.

The probe predicts the mouth's controls from the encoder's states; the figure is the correlation of
the predicted mouth opening with the true one, because the opening is what a viewer notices first.

    python -m wsavatar.training.evaluate_audio MODEL... --corpus DIR --visemes visemes.json

compares finished models, in a minute each on two cores. It serves to choose between runs and
between averages of them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from wsavatar.training.architecture import WINDOW_POSITIONS
from wsavatar.training.checkpoint import load_checkpoint
from wsavatar.training.data import RATE, STEP, Corpus, log_mel
from wsavatar.training.networks import Networks

__all__ = ["EVALUATED", "OpeningTest", "fit_probe", "main", "opening", "position_times"]

EVALUATED = slice(20, 47)
"""Positions of a window that are evaluated: those that a feature block can take."""
_BATCH = 256
_LOW = 0.85
"""No clip of a finished model should fall below this correlation."""


def position_times(centre_s: Tensor, speed: Tensor) -> Tensor:
    """Times in s, [B, E], of the evaluated positions of windows around ``centre_s`` [B]."""
    positions = torch.arange(WINDOW_POSITIONS, device=centre_s.device)[EVALUATED]
    offset = (positions + 0.5 - WINDOW_POSITIONS / 2) * STEP / RATE
    return centre_s[:, None] + offset[None] * speed[:, None]


def opening(controls: Tensor, names: list[str]) -> Tensor:
    """Controls [..., names] -> opening of the lips [...], 0 to 1. Sealed lips stay closed."""
    jaw, seal = controls[..., names.index("jawOpen")], controls[..., names.index("lipSeal")]
    return jaw * (1 - seal.clamp(0, 1))


class OpeningTest:
    """Clean windows over every labelled clip outside the training split, with true openings."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.clips = [c for c in corpus.clips if c["labelled"] and c["split"] != "train"]
        step = (EVALUATED.stop - EVALUATED.start) * STEP / RATE
        centres, owners = [], []
        for number, clip in enumerate(self.clips):
            count = int(clip["seconds"] / step)
            first = corpus.start[clip["clip"]] + step / 2
            centres += [first + step * k for k in range(count)]
            owners += [number] * count
        device = corpus.audio.device
        self.centres = torch.tensor(centres, device=device)
        self.owners = torch.tensor(owners, device=device)

    @torch.no_grad()
    def correlations(
        self, predict: Callable[[Tensor], Tensor]
    ) -> dict[str, dict[str, list[float]]]:
        """Correlation of predicted and true opening of each clip, by split and voice.

        ``predict`` maps log-mel [B, 80, 2P] to controls [B, E, names]. A clip in which either
        opening is constant has no correlation and is left out.
        """
        predicted, true = [], []
        for first in range(0, len(self.centres), _BATCH):
            mel, controls = _clean_windows(self.corpus, self.centres[first : first + _BATCH])
            predicted.append(opening(predict(mel), self.corpus.names))
            true.append(opening(controls, self.corpus.names))
        pairs = torch.stack([torch.cat(predicted), torch.cat(true)]).float()
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for number, clip in enumerate(self.clips):
            r = float(torch.corrcoef(pairs[:, self.owners == number].flatten(1))[0, 1])
            if math.isfinite(r):
                found[clip["split"]][clip["voice"]].append(r)
        return found

    def evaluate(self, predict: Callable[[Tensor], Tensor]) -> dict[str, dict[str, float]]:
        """The mean of ``correlations`` of each voice, by split; ``mean`` is over the voices."""
        return _means(self.correlations(predict))


def _clean_windows(corpus: Corpus, centre_s: Tensor) -> tuple[Tensor, Tensor]:
    """Windows around ``centre_s`` [B] without augmentation: log-mel [B, 80, 2P], controls
    [B, E, names]."""
    ones = torch.ones_like(centre_s)
    before = torch.full_like(centre_s, WINDOW_POSITIONS * STEP // 2).long()
    audio = corpus.audio_at(centre_s, before, WINDOW_POSITIONS * STEP, ones)
    return log_mel(audio), corpus.controls_at(position_times(centre_s, ones))


def _means(correlations: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    found = {
        split: {voice: sum(rs) / len(rs) for voice, rs in voices.items()}
        for split, voices in correlations.items()
    }
    return {s: {"mean": sum(v.values()) / len(v), **v} for s, v in found.items()}


@torch.no_grad()
def fit_probe(networks: Networks, corpus: Corpus, windows: int) -> Callable[[Tensor], Tensor]:
    """Fit a linear probe on ``windows`` clean windows of the training voices (ridge regression).

    Returns a function: log-mel [B, 80, 2P] -> controls [B, E, names].
    """

    def states(mel: Tensor) -> Tensor:
        found = networks.audio_states(mel)[:, EVALUATED].flatten(2)
        return torch.cat([found, torch.ones_like(found[..., :1])], 2)

    squares = products = torch.zeros(())
    for first in tqdm(range(0, windows, _BATCH), unit="batch", leave=False, desc="fitting"):
        centre = corpus.sample_times(min(_BATCH, windows - first), corpus.labelled)
        mel, controls = _clean_windows(corpus, centre)
        x, y = states(mel).flatten(0, 1).double(), controls.flatten(0, 1).double()
        squares, products = squares + x.T @ x, products + x.T @ y
    ridge = 3.0 * torch.eye(len(squares), dtype=squares.dtype, device=squares.device)
    weights = torch.linalg.solve(squares + ridge, products).float()
    return lambda mel: states(mel) @ weights


def main() -> None:
    """Print each model's correlations by split and voice, and how many clips are below 0.85."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", help="folders that training wrote")
    parser.add_argument("--corpus", type=Path, required=True, help="clips.json and audio/")
    parser.add_argument("--visemes", type=Path, required=True, help="JSON: viseme to controls")
    parser.add_argument("--windows", type=int, default=6000, help="windows that fit the probe")
    parser.add_argument("--json", type=Path, help="write the figures of every model here")
    args = parser.parse_args()
    for model in args.models:
        if not (model / "whisper" / "model.safetensors").is_file():
            parser.error(f"{model} holds no whisper/model.safetensors")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpus = Corpus(args.corpus, json.loads(args.visemes.read_text()), device)
    test = OpeningTest(corpus)
    report = {}
    for model in args.models:
        torch.manual_seed(0)  # the same windows for every model
        networks = Networks()
        load_checkpoint(networks, [], model)
        correlations = test.correlations(
            fit_probe(networks.to(device).eval(), corpus, args.windows)
        )
        report[str(model)] = figures = _means(correlations)
        for split, voices in correlations.items():
            shown = " ".join(f"{voice} {r:.3f}" for voice, r in figures[split].items())
            found = [r for rs in voices.values() for r in rs]
            low = sum(r < _LOW for r in found)
            print(f"{model} [{split}] {shown}, {low} of {len(found)} clips under {_LOW}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
