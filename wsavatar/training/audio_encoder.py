"""The audio stages: a teacher is tuned on the corpus, and the shipped encoder is distilled from it.

A teacher is a larger pretrained encoder of the same classes (Whisper base). Tuned on the corpus it
generalises to voices that the corpus lacks; an encoder trained on the corpus alone does not. The
student learns the teacher's output for the same augmented window, so it learns the teacher's
function and not only the corpus' voices. No weight of a teacher ships.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from wsavatar.faces.musetalk.features import hidden_states
from wsavatar.training.architecture import AUDIO_DIM, AUDIO_STATES, WINDOW_POSITIONS
from wsavatar.training.data import STEP, Corpus, augment, log_mel, random_speed, vary_timbre
from wsavatar.training.distributed import SINGLE_PROCESS, Ranks
from wsavatar.training.evaluate_audio import EVALUATED, OpeningTest, opening, position_times
from wsavatar.training.networks import Networks
from wsavatar.training.optimisation import Trainer, autocast, graphed, timed_steps

__all__ = ["MouthProbe", "Teacher", "train_audio", "train_teacher"]


class MouthProbe(nn.Module):
    """A linear probe: an encoder's states [..., dim] to the mouth's controls."""

    mean: Tensor
    deviation: Tensor
    spread: Tensor

    def __init__(self, dim: int, corpus: Corpus) -> None:
        super().__init__()
        controls = corpus.controls
        self.names = corpus.names
        self.map = nn.Linear(dim, controls.shape[1])
        self.register_buffer("mean", controls.mean(0))
        self.register_buffer("deviation", controls.std(0) + 0.02)
        self.register_buffer("spread", opening(controls, corpus.names).std())
        self.to(controls.device)

    def forward(self, states: Tensor) -> Tensor:
        """Controls [..., names], float32."""
        predicted: Tensor = self.map(states).float()
        return predicted * self.deviation + self.mean

    def loss(self, predicted: Tensor, mouth: Tensor, opening_weight: float) -> Tensor:
        """Distance of ``predicted`` controls to those of ``mouth``, both [..., names]."""
        error = (predicted - mouth) / self.deviation
        # The opening is what a viewer notices first, and no single control holds it.
        gap = (opening(predicted, self.names) - opening(mouth, self.names)) / self.spread
        return _smooth_l1(error) + opening_weight * _smooth_l1(gap)


def _smooth_l1(error: Tensor) -> Tensor:
    """Mean smooth L1 of an error in standard deviations."""
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.3)


class Teacher(nn.Module):
    """A pretrained encoder and the probe that predicts the mouth's controls from it."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: dict[str, Any], corpus: Corpus) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = WhisperEncoder(WhisperConfig(**shape))
        layers, dim = self.encoder.config.encoder_layers, self.encoder.config.d_model
        self.dim = layers * dim
        self.tuned = False
        self.probe = MouthProbe(dim, corpus)
        self.register_buffer("mean", torch.zeros(self.dim), persistent=False)
        self.register_buffer("deviation", torch.ones(self.dim), persistent=False)
        self.to(corpus.audio.device)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel [B, 80, 2P] -> all layers' states at the evaluated positions [B, E, dim], and the
        controls predicted from the last layer [B, E, names]."""
        states = hidden_states(self.encoder, mel)[:, EVALUATED, 1:]
        return states.flatten(2), self.probe(states[:, :, -1])

    def normalised(self, states: Tensor) -> Tensor:
        """States with mean 0 and deviation 1 in each number, by the statistics of ``measure``."""
        return (states.float() - self.mean) / self.deviation

    @torch.no_grad()
    def measure(self, mel: Tensor) -> None:
        """Set the states' means and deviations from these windows."""
        with autocast(mel.device):
            states = self(mel)[0].flatten(0, 1).float()
        self.mean.copy_(states.mean(0))
        self.deviation.copy_(states.std(0) + 1e-3)

    @classmethod
    def load(cls, file: Path, corpus: Corpus) -> Teacher:
        """Read an encoder's weights, with or without a probe among them, in the shape that
        ``teacher_config.json`` beside them gives."""
        teacher = cls(json.loads(_config(file).read_text()), corpus)
        weights = {
            k.removeprefix("model.").removeprefix("encoder."): v.float()
            for k, v in load_file(file).items()
        }
        # Files written before the probe had its name call it "reading".
        named = [k for k in weights if k.startswith(("probe.", "reading."))]
        probe = {k.split(".", 1)[1]: weights.pop(k) for k in named}
        teacher.encoder.load_state_dict(weights)
        teacher.tuned = bool(probe)
        if probe:
            teacher.probe.load_state_dict(probe)
        return teacher

    def save(self, file: Path) -> None:
        """Write weights and shape for ``load``, in float16."""
        _config(file).write_text(json.dumps(self.shape, indent=2) + "\n")
        save_file({k: v.half().cpu().contiguous() for k, v in self.state_dict().items()}, file)


def _config(file: Path) -> Path:
    return file.with_name("teacher_config.json")


def _batch(corpus: Corpus, spans: list[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    """Augmented windows, log-mel [B, 80, 2P], and their controls [B, E, names].

    ``spans`` gives (number of windows, where they come from) in turn.
    """
    device = corpus.audio.device
    centre = torch.cat([corpus.sample_times(count, span) for count, span in spans])
    speed = random_speed(len(centre), device)
    before = torch.full((len(centre),), WINDOW_POSITIONS * STEP // 2, device=device)
    audio = augment(corpus.audio_at(centre, before, WINDOW_POSITIONS * STEP, speed))
    mouth = corpus.controls_at(position_times(centre, speed))
    return vary_timbre(log_mel(audio)), mouth


def _run_stage(
    name: str,
    seconds: float,
    trainer: Trainer,
    batches: Callable[[], tuple[Tensor, Tensor]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    evaluate: Callable[[], dict[str, dict[str, float]]],
    ranks: Ranks,
) -> dict[str, dict[str, float]]:
    """Minimise ``loss_of`` the batches until the budget is spent.

    Prints the result of ``evaluate`` every minute and returns the last one.
    """

    def step(mel: Tensor, mouth: Tensor) -> Tensor:
        loss = loss_of(mel, mouth)
        trainer.step(loss)
        return loss.detach()

    run = None
    due_s = every = 60.0
    started = time.monotonic()
    for i, share in timed_steps(seconds, name, [trainer], ranks):
        trainer.schedule(share, i)
        batch = list(batches())
        if run is None:
            run = graphed(step, batch, lambda: trainer.optimizer.zero_grad(set_to_none=True))
        loss = run(*batch)
        if i % 500 == 0:
            print(f"[{name}] {i} {float(loss):.4f}", flush=True)
        if time.monotonic() - started > due_s:
            _print_correlations(evaluate())
            due_s += every
    figures = evaluate()
    _print_correlations(figures)
    return figures


def _print_correlations(figures: dict[str, dict[str, float]]) -> None:
    for split, voices in figures.items():
        shown = " ".join(f"{voice} {r:.3f}" for voice, r in voices.items())
        print(f"[opening {split}] {shown}", flush=True)


def _dropout(encoder: WhisperEncoder, share: float) -> None:
    for layer in encoder.layers:
        layer.dropout = share


def train_teacher(
    teacher: Teacher,
    corpus: Corpus,
    seconds: float,
    rates: dict[str, float],
    ranks: Ranks = SINGLE_PROCESS,
) -> dict[str, dict[str, float]]:
    """Tune a teacher on the corpus, in place. Returns the result of ``OpeningTest``."""
    learner = copy.deepcopy(teacher)
    _dropout(learner.encoder, rates["dropout"])
    encoder = [p for p in learner.encoder.parameters() if p.requires_grad]
    probe = list(learner.probe.parameters())
    groups = [dict(params=encoder, lr=rates["tune"]), dict(params=probe, lr=20 * rates["tune"])]
    trainer = Trainer(groups, [(teacher.encoder, learner.encoder), (teacher.probe, learner.probe)])
    windows, test = int(rates["windows"]), OpeningTest(corpus)

    def loss_of(mel: Tensor, mouth: Tensor) -> Tensor:
        with autocast(mel.device):
            predicted = learner(mel)[1]
        return learner.probe.loss(predicted, mouth, rates["opening"])

    def predict(mel: Tensor) -> Tensor:
        with autocast(mel.device):
            controls: Tensor = teacher(mel)[1]
        return controls

    figures = _run_stage(
        "teacher",
        seconds,
        trainer,
        lambda: _batch(corpus, [(windows, corpus.labelled)]),
        loss_of,
        lambda: test.evaluate(predict),
        ranks,
    )
    teacher.tuned = True
    return figures


def train_audio(
    networks: Networks,
    ema: Networks,
    corpus: Corpus,
    teachers: list[Teacher],
    seconds: float,
    rates: dict[str, float],
    ranks: Ranks = SINGLE_PROCESS,
) -> dict[str, dict[str, float]]:
    """Train the shipped encoder on labels and on the teachers' outputs.

    Returns the result of ``OpeningTest`` for the averaged encoder.
    """
    device = corpus.audio.device
    dim = AUDIO_STATES * AUDIO_DIM
    probe = MouthProbe(dim, corpus)
    average = copy.deepcopy(probe)
    to_teachers = nn.Linear(dim, sum(t.dim for t in teachers) or 1).to(device)
    parameters = [*networks.audio.parameters(), *probe.parameters(), *to_teachers.parameters()]
    trainer = Trainer(
        [dict(params=[p for p in parameters if p.requires_grad], lr=rates["student"])],
        [(ema.audio, networks.audio), (average, probe)],
    )
    _dropout(networks.audio, rates["dropout"])
    half, test = int(rates["windows"]) // 2, OpeningTest(corpus)

    def batches() -> tuple[Tensor, Tensor]:
        mel, mouth = _batch(corpus, [(half, corpus.labelled), (half, corpus.spans)])
        return mel, mouth[:half]

    for teacher in teachers:
        teacher.eval().requires_grad_(False)
        teacher.measure(batches()[0])
        ranks.mean([teacher.mean, teacher.deviation])

    def loss_of(mel: Tensor, mouth: Tensor) -> Tensor:
        with autocast(device):
            states = networks.audio_states(mel)[:, EVALUATED].flatten(2)
            predicted = probe(states)
            imitated = to_teachers(states).float()
        loss = rates["truth"] * probe.loss(predicted[:half], mouth, rates["opening"])
        if not teachers:
            return loss
        with torch.no_grad(), autocast(device):
            outputs = [(teacher, *teacher(mel)) for teacher in teachers]
        target = torch.cat([teacher.normalised(states) for teacher, states, _ in outputs], 2)
        loss = loss + rates["teacher"] * F.smooth_l1_loss(imitated, target, beta=0.5)
        if mouths := [controls for teacher, _, controls in outputs if teacher.tuned]:
            mean_mouth = torch.stack(mouths).mean(0)
            loss = loss + rates["teacher_mouth"] * probe.loss(
                predicted, mean_mouth, rates["opening"]
            )
        return loss

    def predict(mel: Tensor) -> Tensor:
        with autocast(device):
            controls: Tensor = average(ema.audio_states(mel)[:, EVALUATED].flatten(2))
        return controls

    figures = _run_stage(
        "audio", seconds, trainer, batches, loss_of, lambda: test.evaluate(predict), ranks
    )
    _dropout(networks.audio, 0.0)
    return figures
