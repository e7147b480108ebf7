"""The stages that learn from pictures; see ``train`` for the order of all and their budgets."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wsavatar.training.architecture import CROP_SIZE, DECODE_FROM_ROW
from wsavatar.training.data import Corpus, Crops, frame_windows
from wsavatar.training.lipmeter import LipMeter
from wsavatar.training.losses import as_pixels, energy_loss, mouth_weight, picture_loss
from wsavatar.training.networks import TOP, Critic, Face
from wsavatar.training.optimisation import Trainer, autocast, clock, graphed
from wsavatar.training.ranks import ALONE, Ranks

__all__ = ["FaceStage", "train_meters", "train_vae"]


def train_vae(
    face: Face, ema: Face, crops: Crops, seconds: float, batch: int, ranks: Ranks = ALONE
) -> None:
    """Stage 2: reconstruct the lower rows; latents kept near unit size by a little pressure."""
    device = crops.targets.device
    trainer = Trainer([dict(params=list(face.vae.parameters()), lr=1.5e-3)], [(ema.vae, face.vae)])

    def step(pixels: Tensor, weight: Tensor) -> Tensor:
        with autocast(device):
            latents = face.encode(pixels)
            # Noise makes neighbouring latents decode alike: the UNet's errors stay small.
            made = face.decode(latents + 0.02 * torch.randn_like(latents))
        true = pixels[:, :, TOP:]
        loss = (
            picture_loss(made, true, weight)
            + 0.01 * energy_loss(made, true, weight)
            + 1e-4 * latents.float().pow(2).mean()
        )
        trainer.descend(loss)
        return loss.detach()

    run = None
    for i, share in clock(seconds, "vae", [trainer], ranks):
        trainer.progress(share, i)
        pick = torch.randint(0, len(crops), (batch,), device=device)
        pixels = as_pixels(crops.targets[pick])
        if i % 2:
            pixels = pixels.flip(3)
        boxes = crops.mouth_boxes[crops.ref_index[pick]]
        if i % 2:
            boxes = torch.stack(
                [CROP_SIZE - boxes[:, 2], boxes[:, 1], CROP_SIZE - boxes[:, 0], boxes[:, 3]], 1
            )
        args = [pixels.contiguous(memory_format=torch.channels_last), mouth_weight(boxes)]
        if run is None:
            run = graphed(step, args, lambda: trainer.optimizer.zero_grad(set_to_none=True))
        loss = run(*args)
        if i % 500 == 0:
            print(f"[vae] {i} {float(loss):.4f}", flush=True)


def train_meters(
    meters: list[LipMeter], crops: Crops, seconds: float, ranks: Ranks = ALONE
) -> None:
    """Stage 3: each meter on its own half of the people."""
    device = crops.targets.device
    for number, meter in enumerate(meters):
        mine = (crops.person % len(meters) == number).nonzero()[:, 0]
        average = copy.deepcopy(meter)
        trainer = Trainer([dict(params=list(meter.parameters()), lr=1e-3)], [(average, meter)])

        def step(
            pixels: Tensor, lips: Tensor, meter: LipMeter = meter, trainer: Trainer = trainer
        ) -> Tensor:
            with autocast(device):
                guess = meter(pixels)
            loss = F.smooth_l1_loss(guess / meter.scale, lips / meter.scale, beta=0.1)
            trainer.descend(loss)
            return loss.detach()

        def forget(trainer: Trainer = trainer) -> None:
            trainer.optimizer.zero_grad(set_to_none=True)

        run = None
        for i, share in clock(seconds / len(meters), f"meter {number}", [trainer], ranks):
            trainer.progress(share, i)
            pick = mine[torch.randint(0, len(mine), (192,), device=device)]
            pixels = as_pixels(crops.targets[pick])[:, :, TOP:]
            if i % 2:
                pixels = pixels.flip(3)
            if i % 3 == 0:  # a made picture is softer than a rendered one
                pixels = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
            pixels = pixels * torch.empty(len(pick), 1, 1, 1, device=device).uniform_(0.8, 1.2)
            args = [pixels.contiguous(), crops.lips[pick].float()]
            if run is None:
                run = graphed(step, args, forget)
            loss = run(*args)
            if i % 1000 == 0:
                print(f"[meter {number}] {i} {float(loss):.4f}", flush=True)
        meter.load_state_dict(average.state_dict())


class FaceStage:
    """Stage 4. The generator's step and the critic's, and what they share."""

    def __init__(
        self,
        face: Face,
        ema: Face,
        corpus: Corpus,
        crops: Crops,
        guide: LipMeter,
        batch: int,
        rates: dict[str, float],
        ranks: Ranks = ALONE,
    ) -> None:
        self.ranks = ranks
        self.face, self.corpus, self.crops, self.batch = face, corpus, crops, batch
        self.guide = guide.eval().requires_grad_(False)
        self.device = crops.targets.device
        self.critic = Critic().to(self.device)
        decoder = [*face.vae.decoder.parameters(), *face.vae.post_quant_conv.parameters()]
        face.vae.encoder.requires_grad_(False)
        face.vae.quant_conv.requires_grad_(False)
        self.trainer = Trainer(
            [
                dict(params=list(face.unet.parameters()), lr=rates["unet"]),
                dict(params=decoder, lr=rates["decoder"]),
                dict(params=list(face.audio.parameters()), lr=rates["audio"]),
            ],
            [(ema.unet, face.unet), (ema.vae, face.vae), (ema.audio, face.audio)],
        )
        self.critic_trainer = Trainer([dict(params=list(self.critic.parameters()), lr=4e-4)], [])
        self.adversarial = torch.zeros((), device=self.device)
        self.sharpness = torch.tensor(rates["sharp"], device=self.device)
        self.critic_weight = rates["critic"]
        self.latent_weight = torch.ones((), device=self.device)

    def draw(self, step: int) -> list[Tensor]:
        """One batch: reference, target, windows, phase, weights, true lips."""
        crops = self.crops
        pick = torch.randint(0, len(crops), (self.batch,), device=self.device)
        ref = crops.ref_index[pick]
        reference, target = as_pixels(crops.references[ref]), as_pixels(crops.targets[pick])
        boxes = crops.mouth_boxes[ref]
        if step % 2:
            reference, target = reference.flip(3), target.flip(3)
            boxes = torch.stack(
                [CROP_SIZE - boxes[:, 2], boxes[:, 1], CROP_SIZE - boxes[:, 0], boxes[:, 3]], 1
            )
        windows, phase = frame_windows(self.corpus, crops.times[pick], clean=step % 8 == 7)
        return [
            reference.contiguous(memory_format=torch.channels_last),
            target.contiguous(memory_format=torch.channels_last),
            windows.contiguous(),
            phase,
            mouth_weight(boxes),
            crops.lips[pick].float(),
        ]

    def make(self, reference: Tensor, windows: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            masked = reference.clone()
            masked[:, :, CROP_SIZE // 2 :] = -1
            seen, ref = self.face.encode(masked), self.face.encode(reference)
        latents = self.face(seen, ref, self.face.condition(windows, phase, strange=True))
        return latents, self.face.decode(latents)

    def step(
        self,
        reference: Tensor,
        target: Tensor,
        windows: Tensor,
        phase: Tensor,
        weight: Tensor,
        lips: Tensor,
    ) -> tuple[Tensor, ...]:
        with autocast(self.device):
            with torch.no_grad():
                wanted = self.face.encode(target)
            latents, made = self.make(reference, windows, phase)
            measured = self.guide(made)
            verdict = self.critic(made)
        true = target[:, :, TOP:]
        scale = self.guide.scale
        pixel = picture_loss(made, true, weight)
        latent = F.smooth_l1_loss(
            latents.float()[:, :, DECODE_FROM_ROW:],
            wanted.float()[:, :, DECODE_FROM_ROW:],
            beta=0.5,
        )
        lip = F.smooth_l1_loss(measured / scale, lips / scale, beta=0.1)
        sharp = energy_loss(made, true, weight)
        loss = (
            pixel
            + 0.1 * self.latent_weight * latent
            + 0.05 * lip
            + self.sharpness * sharp
            - self.adversarial * verdict.float().mean()
        )
        self.trainer.descend(loss)
        return made.detach(), pixel.detach(), latent.detach(), lip.detach(), sharp.detach()

    def critic_step(self, made: Tensor, true: Tensor) -> Tensor:
        with autocast(self.device):
            fake, real = self.critic(made), self.critic(true)
        loss = F.relu(1 + fake.float()).mean() + F.relu(1 - real.float()).mean()
        self.critic_trainer.descend(loss)
        return loss.detach()

    def run(
        self, seconds: float, sharpen_from: float, judge: Callable[[int, float], None], every: float
    ) -> None:
        generator = critic = None
        nextly = every
        started = time.monotonic()
        for i, share in clock(seconds, "face", [self.trainer, self.critic_trainer], self.ranks):
            self.trainer.progress(share, i)
            self.critic_trainer.progress(0.5, i)
            self.adversarial.fill_(
                0.0
                if share < sharpen_from
                else self.critic_weight * min(1.0, (share - sharpen_from) / 0.1)
            )
            self.latent_weight.fill_(1.0 if share < 0.4 else 0.2)
            args = self.draw(i)
            if generator is None:
                self.critic.requires_grad_(False)
                generator = graphed(
                    self.step, args, lambda: self.trainer.optimizer.zero_grad(set_to_none=True)
                )
            made, pixel, latent, lip, sharp = generator(*args)
            if share >= sharpen_from - 0.05:
                pair = [made.float().contiguous(), args[1][:, :, TOP:].contiguous()]
                if critic is None:
                    self.critic.requires_grad_(True)
                    critic = graphed(
                        self.critic_step,
                        pair,
                        lambda: self.critic_trainer.optimizer.zero_grad(set_to_none=True),
                    )
                critic(*pair)
            if i % 500 == 0:
                losses = dict(pixel=pixel, latent=latent, lip=lip, sharp=sharp)
                losses["skipped"] = self.trainer.skipped
                said = " ".join(f"{name} {float(value):.4f}" for name, value in losses.items())
                print(f"[face] {i} {share:.2f} {said}", flush=True)
            if time.monotonic() - started > nextly:
                judge(i, share)
                nextly += every
