"""How well the audio encoder hears voices kept out of training, before any picture is drawn.

The encoder's states are read off by a linear map, as the audio stage learns it; what is judged is
the mouth's opening alone, because it is what a viewer, and ``evaluate``, see first.

    python -m wsavatar.training.hearing MODEL... --corpus DIR --visemes visemes.json

compares finished models so, in a minute each on two cores: cheap enough to choose between runs, and
between averages of them, before a single picture is judged.
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
from wsavatar.training.checkpoint import resume
from wsavatar.training.data import RATE, STEP, Corpus, log_mel
from wsavatar.training.networks import Face

__all__ = ["JUDGED", "HearingTest", "linear_reading", "main", "opening", "position_times"]

JUDGED = slice(20, 47)
"""Positions of a window that are judged: those a block can come to hold."""
_BATCH = 256
_BADLY = 0.85
"""What no clip of a finished model should fall below."""


def position_times(centre_s: Tensor, speed: Tensor) -> Tensor:
    """When the judged positions of windows around ``centre_s`` [B] are: s, [B, judged]."""
    positions = torch.arange(WINDOW_POSITIONS, device=centre_s.device)[JUDGED]
    offset = (positions + 0.5 - WINDOW_POSITIONS / 2) * STEP / RATE
    return centre_s[:, None] + offset[None] * speed[:, None]


def opening(controls: Tensor, names: list[str]) -> Tensor:
    """Controls [..., names] -> how far the lips part [...], 0 to 1: a jaw opens sealed lips not."""
    jaw, seal = controls[..., names.index("jawOpen")], controls[..., names.index("lipSeal")]
    return jaw * (1 - seal.clamp(0, 1))


class HearingTest:
    """Clean windows over every labelled clip that is not in training, with the true openings."""

    def __init__(self, corpus: Corpus) -> None:
        self.corpus = corpus
        self.clips = [c for c in corpus.clips if c["labelled"] and c["split"] != "train"]
        step = (JUDGED.stop - JUDGED.start) * STEP / RATE
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
    def correlations(self, read: Callable[[Tensor], Tensor]) -> dict[str, dict[str, list[float]]]:
        """Of the heard opening with the true one, a clip each: by split, by voice.

        ``read`` makes controls [B, judged, names] of log-mel [B, 80, 2P]. A clip in which either
        opening never changes has none.
        """
        heard, true = [], []
        for first in range(0, len(self.centres), _BATCH):
            mel, controls = _clean_windows(self.corpus, self.centres[first : first + _BATCH])
            heard.append(opening(read(mel), self.corpus.names))
            true.append(opening(controls, self.corpus.names))
        pairs = torch.stack([torch.cat(heard), torch.cat(true)]).float()
        found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for number, clip in enumerate(self.clips):
            r = float(torch.corrcoef(pairs[:, self.owners == number].flatten(1))[0, 1])
            if math.isfinite(r):
                found[clip["split"]][clip["voice"]].append(r)
        return found

    def judge(self, read: Callable[[Tensor], Tensor]) -> dict[str, dict[str, float]]:
        """Voices by split: the mean of ``correlations`` over a voice's clips, and each split's mean
        over its voices as ``mean``."""
        return _means(self.correlations(read))


def _clean_windows(corpus: Corpus, centre_s: Tensor) -> tuple[Tensor, Tensor]:
    """The sound around ``centre_s`` [B] as it is, and what the mouth does: log-mel [B, 80, 2P],
    controls [B, judged, names]."""
    ones = torch.ones_like(centre_s)
    before = torch.full_like(centre_s, WINDOW_POSITIONS * STEP // 2).long()
    audio = corpus.listen(centre_s, before, WINDOW_POSITIONS * STEP, ones)
    return log_mel(audio), corpus.controls_at(position_times(centre_s, ones))


def _means(correlations: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    found = {
        split: {voice: sum(rs) / len(rs) for voice, rs in voices.items()}
        for split, voices in correlations.items()
    }
    return {s: {"mean": sum(v.values()) / len(v), **v} for s, v in found.items()}


@torch.no_grad()
def linear_reading(face: Face, corpus: Corpus, windows: int) -> Callable[[Tensor], Tensor]:
    """The linear map from the encoder's states to controls that fits ``windows`` clean windows of
    the training voices best (ridge regression): log-mel [B, 80, 2P] -> controls [B, judged, names].
    """

    def states(mel: Tensor) -> Tensor:
        heard = face.hear(mel)[:, JUDGED].flatten(2)
        return torch.cat([heard, torch.ones_like(heard[..., :1])], 2)

    squares = products = torch.zeros(())
    for first in tqdm(range(0, windows, _BATCH), unit="batch", leave=False, desc="fitting"):
        centre = corpus.draw(min(_BATCH, windows - first), corpus.labelled)
        mel, controls = _clean_windows(corpus, centre)
        x, y = states(mel).flatten(0, 1).double(), controls.flatten(0, 1).double()
        squares, products = squares + x.T @ x, products + x.T @ y
    ridge = 3.0 * torch.eye(len(squares), dtype=squares.dtype, device=squares.device)
    weights = torch.linalg.solve(squares + ridge, products).float()
    return lambda mel: states(mel) @ weights


def main() -> None:
    """Print how each model hears, by split and voice, and how many clips it hears badly."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", help="folders that training wrote")
    parser.add_argument("--corpus", type=Path, required=True, help="clips.json and audio/")
    parser.add_argument("--visemes", type=Path, required=True, help="JSON: viseme to controls")
    parser.add_argument("--windows", type=int, default=6000, help="so many fit the linear map")
    parser.add_argument("--json", type=Path, help="write the figures of every model here")
    args = parser.parse_args()
    for model in args.models:
        if not (model / "whisper" / "model.safetensors").is_file():
            parser.error(f"{model} holds no whisper/model.safetensors")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    corpus = Corpus(args.corpus, json.loads(args.visemes.read_text()), device)
    test = HearingTest(corpus)
    report = {}
    for model in args.models:
        torch.manual_seed(0)  # the same windows for every model
        face = Face()
        resume(face, [], model)
        correlations = test.correlations(
            linear_reading(face.to(device).eval(), corpus, args.windows)
        )
        report[str(model)] = figures = _means(correlations)
        for split, voices in correlations.items():
            said = " ".join(f"{voice} {r:.3f}" for voice, r in figures[split].items())
            found = [r for rs in voices.values() for r in rs]
            badly = sum(r < _BADLY for r in found)
            print(f"{model} [{split}] {said}, {badly} of {len(found)} clips under {_BADLY}")
    if args.json:
        args.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
