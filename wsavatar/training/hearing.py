"""How well the audio encoder hears voices kept out of training, before any picture is drawn.

The encoder's states are read off by a linear map, as the audio stage learns it; what is judged is
the mouth's opening alone, because it is what a viewer, and ``evaluate``, see first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from wsavatar.training.architecture import WINDOW_POSITIONS
from wsavatar.training.data import RATE, STEP, Corpus, log_mel

__all__ = ["JUDGED", "HearingTest", "opening", "position_times"]

JUDGED = slice(20, 47)
"""Positions of a window that are judged: those a block can come to hold."""
_BATCH = 256


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

    def windows(self, first: int) -> tuple[Tensor, Tensor]:
        """A batch from window ``first`` on: log-mel [B, 80, 2P] and true openings [B, judged]."""
        centre = self.centres[first : first + _BATCH]
        ones = torch.ones_like(centre)
        before = torch.full_like(centre, WINDOW_POSITIONS * STEP // 2).long()
        audio = self.corpus.listen(centre, before, WINDOW_POSITIONS * STEP, ones)
        controls = self.corpus.controls_at(position_times(centre, ones))
        return log_mel(audio), opening(controls, self.corpus.names)

    @torch.no_grad()
    def judge(self, read: Callable[[Tensor], Tensor]) -> dict[str, dict[str, float]]:
        """Correlation of the heard opening with the true one: the mean over a voice's clips.

        ``read`` makes controls [B, judged, names] of log-mel [B, 80, 2P]. Returns voices by split,
        with each split's mean over its voices as ``mean``.
        """
        heard, true = [], []
        for first in range(0, len(self.centres), _BATCH):
            mel, wanted = self.windows(first)
            heard.append(opening(read(mel), self.corpus.names))
            true.append(wanted)
        pairs = torch.stack([torch.cat(heard), torch.cat(true)]).float()
        figures: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for number, clip in enumerate(self.clips):
            r = torch.corrcoef(pairs[:, self.owners == number].flatten(1))[0, 1]
            if r.isfinite():
                figures[clip["split"]][clip["voice"]].append(float(r))
        found = {
            split: {voice: sum(rs) / len(rs) for voice, rs in voices.items()}
            for split, voices in figures.items()
        }
        return {s: {"mean": sum(v.values()) / len(v), **v} for s, v in found.items()}
