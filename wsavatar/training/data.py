"""Training data on the device: crops, speech, and the augmentation of speech.

All pictures and audio stay in device memory; a batch is a gather. Audio is augmented anew each
time: microphone, room, noise, codec and voice.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsavatar.media.audio_file import read_audio
from wsavatar.training.architecture import BLOCK, LEFT, WINDOW_POSITIONS
from wsavatar.training.mouth import mouth_controls

__all__ = [
    "Corpus",
    "Crops",
    "augment",
    "frame_windows",
    "log_mel",
    "random_speed",
    "vary_timbre",
]

RATE = 16_000
STEP = 320  # samples of one feature position
_GAP_S = 2.0  # silence between clips in the one long recording
_LEVEL = 0.06  # RMS that every clip is brought to


def _recording(file: Path) -> np.ndarray:
    """Read a clip and scale it to the common level: float32 [n] at 16 kHz.

    Raises ValueError where it has another rate.
    """
    track = read_audio(file)
    if track.sample_rate != RATE:
        raise ValueError(f"{file} has {track.sample_rate} Hz, not {RATE}")
    samples = track.samples[:, 0]
    loud = np.sqrt(np.mean(samples**2)) + 1e-6
    levelled: np.ndarray = np.clip(samples * (_LEVEL / loud), -1, 1)
    return levelled


class Corpus:
    """All clips in one recording at 16 kHz, and the mouth's controls at 100 Hz where labelled."""

    def __init__(self, folder: Path, visemes: dict[str, Any] | None, device: torch.device) -> None:
        self.clips = json.loads((folder / "clips.json").read_text())
        pieces, starts, at = [], {}, int(_GAP_S * RATE)
        pieces.append(np.zeros(at, np.float32))
        controls: list[tuple[int, np.ndarray]] = []
        self.names: list[str] = []
        files = [folder / "audio" / f"{clip['clip']}.ogg" for clip in self.clips]
        with ThreadPoolExecutor() as pool:  # nine hours take a minute on one core
            recordings = list(pool.map(_recording, files))
        for clip, samples in zip(self.clips, recordings, strict=True):
            starts[clip["clip"]] = at / RATE
            if clip["labelled"] and visemes:
                times = np.arange(0, clip["seconds"] + 0.5, 0.01) - 0.25 + 0.005
                self.names, weights, _ = mouth_controls(clip["segments"], times, visemes)
                controls.append((round((at / RATE - 0.25) * 100), weights))
            gap = np.zeros(int(_GAP_S * RATE) - (len(samples) % 160), np.float32)
            pieces += [samples, gap]
            at += len(samples) + len(gap)
        audio = np.concatenate(pieces)
        self.audio = torch.from_numpy(audio).to(device)
        self.start = starts
        training = [c for c in self.clips if c["split"] == "train"]
        self.spans = self._spans(training).to(device)
        self.labelled = self._spans([c for c in training if c["labelled"]]).to(device)
        self.controls = torch.zeros(len(audio) // 160 + 100, max(1, len(self.names)))
        for first, weights in controls:
            self.controls[first : first + len(weights)] = torch.from_numpy(weights)
        self.controls = self.controls.to(device)

    def _spans(self, clips: list[dict[str, Any]]) -> Tensor:
        """(start s, seconds, share) of clips. A voice's share is the root of its minutes, so that
        voices with many minutes do not outweigh all others."""
        spoken: dict[str, float] = defaultdict(float)
        for clip in clips:
            spoken[clip["voice"]] += clip["seconds"]
        return torch.tensor(
            [
                (self.start[c["clip"]], c["seconds"], c["seconds"] / spoken[c["voice"]] ** 0.5)
                for c in clips
            ]
        )

    def sample_times(self, count: int, spans: Tensor) -> Tensor:
        """Random times in spans (start, seconds, share), by share, up to 0.3 s outside them."""
        which = torch.multinomial(spans[:, 2], count, replacement=True)
        start, length, _ = spans[which].unbind(1)
        return start - 0.3 + torch.rand_like(start) * (length + 0.6)

    def audio_at(self, centre_s: Tensor, before: Tensor, samples: int, speed: Tensor) -> Tensor:
        """Audio [B, samples] from ``before`` samples before ``centre_s`` on, at ``speed``."""
        steps = torch.arange(samples, device=self.audio.device)[None] - before[:, None]
        at = centre_s[:, None].double() * RATE + steps * speed[:, None].double()
        at = at.clamp(0, len(self.audio) - 2)
        low = at.floor().long()
        part = (at - low).float()
        return self.audio[low] * (1 - part) + self.audio[low + 1] * part

    def controls_at(self, times_s: Tensor) -> Tensor:
        """Mouth controls at any times [...] -> [..., names]."""
        at = (times_s * 100 - 0.5).clamp(0, len(self.controls) - 2)
        low = at.floor().long()
        part = (at - low)[..., None]
        return self.controls[low] * (1 - part) + self.controls[low + 1] * part


def random_speed(count: int, device: torch.device) -> Tensor:
    """1 for half of the voices, for the others 0.8 to 1.3 (pitch changes with it)."""
    speed = torch.exp(torch.empty(count, device=device).uniform_(math.log(0.8), math.log(1.3)))
    return torch.where(torch.rand(count, device=device) < 0.5, torch.ones_like(speed), speed)


def _some(count: int, share: float, like: Tensor) -> Tensor:
    return (torch.rand(count, 1, device=like.device) < share).float()


def augment(audio: Tensor) -> Tensor:
    """Room, microphone, noise, another voice, codec. float32 [B, n] at level 0.06 -> [B, n]."""
    b, n = audio.shape
    dev = audio.device
    size = 1 << (n + 8000 - 1).bit_length()
    spectrum = torch.fft.rfft(audio, size)
    freq = torch.linspace(0, 1, spectrum.shape[1], device=dev)
    # Frequency response of microphone and room: a smooth random gain over frequency.
    knots = torch.randn(b, 1, 9, device=dev) * 5
    gain_db = F.interpolate(knots, size=spectrum.shape[1], mode="linear", align_corners=True)[:, 0]
    gain_db = gain_db * _some(b, 0.6, audio)
    # Low bandwidth: telephone and simple codecs.
    top = torch.empty(b, 1, device=dev).uniform_(0.4, 1.0)
    line = torch.sigmoid((top - freq[None]) * 60)
    line = torch.where(_some(b, 0.25, audio) > 0, line, torch.ones_like(line))
    spectrum = spectrum * 10 ** (gain_db / 20) * line
    # Reverberation: decaying noise after the direct sound.
    t = torch.arange(8000, device=dev) / RATE
    t60 = torch.empty(b, 1, device=dev).uniform_(0.08, 0.6)
    tail = torch.randn(b, 8000, device=dev) * torch.exp(-6.9 * t / t60)
    tail = tail / tail.norm(dim=1, keepdim=True)
    tail = tail * torch.empty(b, 1, device=dev).uniform_(0.1, 0.7) * _some(b, 0.35, audio)
    tail[:, :32] = 0
    tail[:, 0] = 1
    spectrum = spectrum * torch.fft.rfft(tail, size)
    audio = torch.fft.irfft(spectrum, size)[:, :n]
    # Noise: white to brown, at a level relative to the clip's speech, so that pauses stay pauses.
    tilt = torch.empty(b, 1, device=dev).uniform_(0, 1.0)
    noise = torch.fft.rfft(torch.randn(b, n, device=dev))
    shape = (torch.arange(noise.shape[1], device=dev)[None] + 20.0) ** -tilt
    noise = torch.fft.irfft(noise * shape, n)
    noise = noise / noise.std(dim=1, keepdim=True)
    snr = torch.empty(b, 1, device=dev).uniform_(8, 45)
    audio = audio + noise * _LEVEL * 10 ** (-snr / 20) * _some(b, 0.7, audio)
    # Another speaker in the distance.
    other = audio.roll(1, 0).detach()
    distance = torch.empty(b, 1, device=dev).uniform_(0.05, 0.2)
    audio = audio + other * distance * _some(b, 0.1, audio)
    # Level, clipping, 8-bit companding.
    level = torch.empty(b, 1, device=dev).uniform_(-22, 14)
    audio = (audio * 10 ** (level / 20)).clamp(-1, 1)
    mu = 255.0
    squeezed = torch.sign(audio) * torch.log1p(mu * audio.abs()) / math.log1p(mu)
    squeezed = (squeezed * 127).round() / 127
    companded = torch.sign(squeezed) * (torch.exp(squeezed.abs() * math.log1p(mu)) - 1) / mu
    return torch.where(_some(b, 0.1, audio) > 0, companded, audio)


_MEL: dict[torch.device, tuple[Tensor, Tensor]] = {}


def log_mel(audio: Tensor) -> Tensor:
    """Whisper's log-mel of windows of any length: [B, n] -> [B, 80, n / 160]."""
    if audio.device not in _MEL:
        from transformers import WhisperFeatureExtractor

        filters = torch.from_numpy(np.asarray(WhisperFeatureExtractor().mel_filters)).float()
        _MEL[audio.device] = (
            filters.T.contiguous().to(audio.device),
            torch.hann_window(400, device=audio.device),
        )
    filters, window = _MEL[audio.device]
    stft = torch.stft(audio, 400, 160, window=window, return_complex=True)
    power = stft[..., :-1].abs() ** 2
    log = (filters @ power).clamp(min=1e-10).log10()
    log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
    return (log + 4.0) / 4.0


def vary_timbre(mel: Tensor, group: int = 1) -> Tensor:
    """Change the timbre: stretch the mel axis (moves formants, not pitch), blur harmonics, drop
    bands.

    Half of the voices keep their formants. ``group`` consecutive windows belong to one voice.
    """
    b, bands, frames = mel.shape
    voices = b // group
    dev = mel.device
    stretch = torch.empty(voices, device=dev).uniform_(0.86, 1.16)
    stretch = torch.where(torch.rand(voices, device=dev) < 0.5, torch.ones_like(stretch), stretch)
    at = torch.arange(bands, device=dev)[None] * stretch.repeat_interleave(group)[:, None]
    at = at.clamp(0, bands - 1.001)
    low = at.floor().long()
    part = (at - low)[..., None]
    rows = torch.arange(b, device=dev)[:, None]
    mel = mel[rows, low] * (1 - part) + mel[rows, (low + 1).clamp(max=bands - 1)] * part
    # Without harmonics there is no pitch: only formants are left.
    blurred = F.avg_pool1d(mel.transpose(1, 2), 5, 1, 2, count_include_pad=False).transpose(1, 2)
    blur = _some(voices, 0.3, mel).repeat_interleave(group, 0)[..., None]
    mel = mel + blur * (blurred - mel)
    first = torch.rand(voices, 1, device=dev) * bands
    width = torch.rand(voices, 1, device=dev) * 10 * _some(voices, 0.4, mel)
    band = torch.arange(bands, device=dev)[None]
    gone = ((band >= first) & (band < first + width)).repeat_interleave(group, 0)
    return torch.where(gone[..., None], mel.amin(dim=(1, 2), keepdim=True), mel)


def frame_windows(corpus: Corpus, times_s: Tensor, *, clean: bool) -> tuple[Tensor, Tensor]:
    """The three feature blocks that one frame touches, at a random phase of the grid.

    Returns windows [B, 3, samples] and the phase [B]: the frame's ten positions are
    ``phase .. phase + 9`` of the three blocks' fifteen. A frame's middle is five positions after
    its first.
    """
    b, dev = len(times_s), times_s.device
    phase = torch.randint(0, BLOCK, (b,), device=dev)
    length = (WINDOW_POSITIONS + 2 * BLOCK) * STEP
    before = (phase + 5 + LEFT) * STEP
    speed = torch.ones(b, device=dev) if clean else random_speed(b, dev)
    audio = corpus.audio_at(times_s, before, length, speed)
    if not clean:
        audio = augment(audio)
    return audio.unfold(1, WINDOW_POSITIONS * STEP, BLOCK * STEP), phase


@dataclass
class Crops:
    """The pictures of several shards, uint8 on the device."""

    references: Tensor  # [R, 3, S, S]
    targets: Tensor  # [N, 3, S, S]
    ref_index: Tensor  # [N]
    times: Tensor  # [N] seconds in the corpus' recording
    lips: Tensor  # [N, 3]
    mouth_boxes: Tensor  # [R, 4] in crop pixels
    person: Tensor  # [N]
    names: list[str]

    @classmethod
    def load(cls, files: Iterable[Path], corpus: Corpus, device: torch.device) -> Crops:
        """Load whole shards. Raises ValueError without any."""
        parts: dict[str, list[Any]] = {k: [] for k in cls.__dataclass_fields__}
        count = 0
        for number, file in enumerate(files):
            with np.load(file) as shard:
                for key in ("references", "targets"):
                    picture = torch.from_numpy(shard[key]).to(device)
                    parts[key].append(picture.permute(0, 3, 1, 2).contiguous())
                parts["ref_index"].append(torch.from_numpy(shard["ref_index"]) + count)
                starts = np.array([corpus.start[c] for c in shard["clips"]])
                parts["times"].append(torch.from_numpy(starts + shard["times"]))
                parts["lips"].append(torch.from_numpy(shard["lips"]))
                parts["mouth_boxes"].append(torch.from_numpy(shard["mouth_boxes"]))
                parts["person"].append(torch.full((len(shard["targets"]),), number))
                parts["names"].append(file.stem)
                count += len(shard["references"])
        if not parts["names"]:
            raise ValueError("no shards to load")
        joined = {k: torch.cat(v).to(device) for k, v in parts.items() if k != "names"}
        return cls(**joined, names=parts["names"])

    def __len__(self) -> int:
        return len(self.targets)
