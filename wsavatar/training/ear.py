"""The audio stages: a teacher learns to see a mouth in sound, and the encoder that ships from it.

A teacher is a larger encoder of the same classes that has heard the world (Whisper base). Tuned on
the corpus it hears voices that the corpus lacks nearly as well as those that it has; an encoder
that learns from the corpus alone does not. The student is to hear what the teacher hears in the
very same window, however that was bent: it learns the teacher's function, and not only what the
corpus' voices do. No weight of a teacher's ships.
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
from wsavatar.training.data import STEP, Corpus, augment, log_mel, random_speed, strange_voice
from wsavatar.training.hearing import JUDGED, HearingTest, opening, position_times
from wsavatar.training.networks import Face
from wsavatar.training.optimisation import Trainer, autocast, clock, graphed
from wsavatar.training.ranks import ALONE, Ranks

__all__ = ["MouthReading", "Teacher", "train_audio", "train_teacher"]


class MouthReading(nn.Module):
    """A linear map from an encoder's states [..., dim] to the mouth's controls."""

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
        read: Tensor = self.map(states).float()
        return read * self.deviation + self.mean

    def loss(self, read: Tensor, mouth: Tensor, opening_weight: float) -> Tensor:
        """How far controls ``read`` are from those of ``mouth``, both [..., names]."""
        off = (read - mouth) / self.deviation
        # How far the lips part is seen first, and no single control says it.
        gap = (opening(read, self.names) - opening(mouth, self.names)) / self.spread
        return _smooth(off) + opening_weight * _smooth(gap)


def _smooth(off: Tensor) -> Tensor:
    """The mean smooth L1 of what is off, in deviations of what is read."""
    return F.smooth_l1_loss(off, torch.zeros_like(off), beta=0.3)


class Teacher(nn.Module):
    """An encoder that has heard the world, and how a mouth is read off it."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: dict[str, Any], corpus: Corpus) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = WhisperEncoder(WhisperConfig(**shape))
        layers, dim = self.encoder.config.encoder_layers, self.encoder.config.d_model
        self.dim = layers * dim
        self.tuned = False
        self.reading = MouthReading(dim, corpus)
        self.register_buffer("mean", torch.zeros(self.dim), persistent=False)
        self.register_buffer("deviation", torch.ones(self.dim), persistent=False)
        self.to(corpus.audio.device)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel [B, 80, 2P] -> what the layers say of the judged positions [B, judged, dim], and
        the controls read off the last [B, judged, names]."""
        states = hidden_states(self.encoder, mel)[:, JUDGED, 1:]
        return states.flatten(2), self.reading(states[:, :, -1])

    def normed(self, states: Tensor) -> Tensor:
        """Every number of the states brought to mean 0 and deviation 1, as ``measure`` found it."""
        return (states.float() - self.mean) / self.deviation

    @torch.no_grad()
    def measure(self, mel: Tensor) -> None:
        """Take the states' means and deviations from these windows."""
        with autocast(mel.device):
            states = self(mel)[0].flatten(0, 1).float()
        self.mean.copy_(states.mean(0))
        self.deviation.copy_(states.std(0) + 1e-3)

    @classmethod
    def load(cls, file: Path, corpus: Corpus) -> Teacher:
        """Read an encoder's weights, with or without a reading among them, in the shape that
        ``teacher_config.json`` beside them says."""
        teacher = cls(json.loads(_config(file).read_text()), corpus)
        weights = {
            k.removeprefix("model.").removeprefix("encoder."): v.float()
            for k, v in load_file(file).items()
        }
        named = [k for k in weights if k.startswith("reading.")]
        reading = {k.removeprefix("reading."): weights.pop(k) for k in named}
        teacher.encoder.load_state_dict(weights)
        teacher.tuned = bool(reading)
        if reading:
            teacher.reading.load_state_dict(reading)
        return teacher

    def save(self, file: Path) -> None:
        """Write what ``load`` reads, float16."""
        _config(file).write_text(json.dumps(self.shape, indent=2) + "\n")
        save_file({k: v.half().cpu().contiguous() for k, v in self.state_dict().items()}, file)


def _config(file: Path) -> Path:
    return file.with_name("teacher_config.json")


def _draw(corpus: Corpus, spans: list[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    """Windows as a stranger through a bad microphone would say them, and what the mouth does: log-
    mel [B, 80, 2P] and controls [B, judged, names], so many of each of ``spans`` in turn."""
    device = corpus.audio.device
    centre = torch.cat([corpus.draw(count, span) for count, span in spans])
    speed = random_speed(len(centre), device)
    before = torch.full((len(centre),), WINDOW_POSITIONS * STEP // 2, device=device)
    audio = augment(corpus.listen(centre, before, WINDOW_POSITIONS * STEP, speed))
    mouth = corpus.controls_at(position_times(centre, speed))
    return strange_voice(log_mel(audio)), mouth


def _learn(
    name: str,
    seconds: float,
    trainer: Trainer,
    draw: Callable[[], tuple[Tensor, Tensor]],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    judge: Callable[[], dict[str, dict[str, float]]],
    ranks: Ranks,
) -> dict[str, dict[str, float]]:
    """Descend ``loss_of`` what ``draw`` gives until the budget is spent; say every minute, and
    return in the end, what ``judge`` finds."""

    def step(mel: Tensor, mouth: Tensor) -> Tensor:
        loss = loss_of(mel, mouth)
        trainer.descend(loss)
        return loss.detach()

    run = None
    nextly = every = 60.0
    started = time.monotonic()
    for i, share in clock(seconds, name, [trainer], ranks):
        trainer.progress(share, i)
        batch = list(draw())
        if run is None:
            run = graphed(step, batch, lambda: trainer.optimizer.zero_grad(set_to_none=True))
        loss = run(*batch)
        if i % 500 == 0:
            print(f"[{name}] {i} {float(loss):.4f}", flush=True)
        if time.monotonic() - started > nextly:
            _say_hearing(judge())
            nextly += every
    figures = judge()
    _say_hearing(figures)
    return figures


def _say_hearing(figures: dict[str, dict[str, float]]) -> None:
    for split, voices in figures.items():
        said = " ".join(f"{voice} {r:.3f}" for voice, r in voices.items())
        print(f"[hearing {split}] {said}", flush=True)


def _dropout(encoder: WhisperEncoder, share: float) -> None:
    for layer in encoder.layers:
        layer.dropout = share


def train_teacher(
    teacher: Teacher,
    corpus: Corpus,
    seconds: float,
    rates: dict[str, float],
    ranks: Ranks = ALONE,
) -> dict[str, dict[str, float]]:
    """Tune a teacher on the corpus, in place. Returns what ``HearingTest`` says of it."""
    learner = copy.deepcopy(teacher)
    _dropout(learner.encoder, rates["dropout"])
    encoder = [p for p in learner.encoder.parameters() if p.requires_grad]
    reading = list(learner.reading.parameters())
    groups = [dict(params=encoder, lr=rates["tune"]), dict(params=reading, lr=20 * rates["tune"])]
    trainer = Trainer(
        groups, [(teacher.encoder, learner.encoder), (teacher.reading, learner.reading)]
    )
    windows, test = int(rates["windows"]), HearingTest(corpus)

    def loss_of(mel: Tensor, mouth: Tensor) -> Tensor:
        with autocast(mel.device):
            read = learner(mel)[1]
        return learner.reading.loss(read, mouth, rates["opening"])

    def read(mel: Tensor) -> Tensor:
        with autocast(mel.device):
            controls: Tensor = teacher(mel)[1]
        return controls

    figures = _learn(
        "teacher",
        seconds,
        trainer,
        lambda: _draw(corpus, [(windows, corpus.labelled)]),
        loss_of,
        lambda: test.judge(read),
        ranks,
    )
    teacher.tuned = True
    return figures


def train_audio(
    face: Face,
    ema: Face,
    corpus: Corpus,
    teachers: list[Teacher],
    seconds: float,
    rates: dict[str, float],
    ranks: Ranks = ALONE,
) -> dict[str, dict[str, float]]:
    """See a mouth in sound, and what the teachers hear. Returns what ``HearingTest`` says of the
    averaged encoder."""
    device = corpus.audio.device
    heard_dim = AUDIO_STATES * AUDIO_DIM
    reading = MouthReading(heard_dim, corpus)
    average = copy.deepcopy(reading)
    to_teachers = nn.Linear(heard_dim, sum(t.dim for t in teachers) or 1).to(device)
    learnt = [*face.audio.parameters(), *reading.parameters(), *to_teachers.parameters()]
    trainer = Trainer(
        [dict(params=[p for p in learnt if p.requires_grad], lr=rates["ear"])],
        [(ema.audio, face.audio), (average, reading)],
    )
    _dropout(face.audio, rates["dropout"])
    half, test = int(rates["windows"]) // 2, HearingTest(corpus)

    def draw() -> tuple[Tensor, Tensor]:
        mel, mouth = _draw(corpus, [(half, corpus.labelled), (half, corpus.spans)])
        return mel, mouth[:half]

    for teacher in teachers:
        teacher.eval().requires_grad_(False)
        teacher.measure(draw()[0])
        ranks.mean([teacher.mean, teacher.deviation])

    def loss_of(mel: Tensor, mouth: Tensor) -> Tensor:
        with autocast(device):
            states = face.hear(mel)[:, JUDGED].flatten(2)
            read = reading(states)
            heard = to_teachers(states).float()
        loss = rates["truth"] * reading.loss(read[:half], mouth, rates["opening"])
        if not teachers:
            return loss
        with torch.no_grad(), autocast(device):
            said = [(teacher, *teacher(mel)) for teacher in teachers]
        taught = torch.cat([teacher.normed(states) for teacher, states, _ in said], 2)
        loss = loss + rates["teacher"] * F.smooth_l1_loss(heard, taught, beta=0.5)
        if mouths := [controls for teacher, _, controls in said if teacher.tuned]:
            echo = torch.stack(mouths).mean(0)
            loss = loss + rates["echo"] * reading.loss(read, echo, rates["opening"])
        return loss

    def read(mel: Tensor) -> Tensor:
        with autocast(device):
            controls: Tensor = average(ema.hear(mel)[:, JUDGED].flatten(2))
        return controls

    figures = _learn("audio", seconds, trainer, draw, loss_of, lambda: test.judge(read), ranks)
    _dropout(face.audio, 0.0)
    return figures
