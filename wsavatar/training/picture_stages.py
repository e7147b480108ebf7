"""The training stages on pictures; see ``train`` for the order and budgets of all stages."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wsavatar.faces.musetalk.losses import energy_loss, picture_loss
from wsavatar.training.architecture import CROP_SIZE, DECODE_FROM_ROW
from wsavatar.training.data import Corpus, Crops, frame_windows
from wsavatar.training.distributed import SINGLE_PROCESS, Ranks
from wsavatar.training.lip_estimator import LipEstimator
from wsavatar.training.losses import as_pixels, mouth_weight
from wsavatar.training.networks import TOP, Critic, Networks
from wsavatar.training.optimisation import Trainer, autocast, graphed, timed_steps
from wsavatar.training.pair_styles import restyle_pairs

__all__ = ["FaceStage", "train_lip_estimators", "train_vae"]


def train_vae(
    networks: Networks,
    ema: Networks,
    crops: Crops,
    seconds: float,
    batch: int,
    rate: float,
    ranks: Ranks = SINGLE_PROCESS,
) -> None:
    """Reconstruct the lower rows, with a small penalty on the size of latents."""
    device = crops.targets.device
    trainer = Trainer(
        [dict(params=list(networks.vae.parameters()), lr=rate)], [(ema.vae, networks.vae)]
    )

    def step(pixels: Tensor, weight: Tensor) -> Tensor:
        with autocast(device):
            latents = networks.encode(pixels)
            # Noise makes neighbouring latents decode alike, so errors of the UNet stay small.
            made = networks.decode(latents + 0.02 * torch.randn_like(latents))
        true = pixels[:, :, TOP:]
        loss = (
            picture_loss(made, true, weight)
            + 0.01 * energy_loss(made, true, weight)
            + 1e-4 * latents.float().pow(2).mean()
        )
        trainer.step(loss)
        return loss.detach()

    run = None
    for i, share in timed_steps(seconds, "vae", [trainer], ranks):
        trainer.schedule(share, i)
        pick = torch.randint(0, len(crops), (batch,), device=device)
        pixels = as_pixels(crops.targets[pick])
        if i % 2:
            pixels = pixels.flip(3)
        pixels = restyle_pairs(pixels, pixels)[1]
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


def train_lip_estimators(
    estimators: list[LipEstimator], crops: Crops, seconds: float, ranks: Ranks = SINGLE_PROCESS
) -> None:
    """Train each estimator on its own half of the people."""
    device = crops.targets.device
    for number, estimator in enumerate(estimators):
        mine = (crops.person % len(estimators) == number).nonzero()[:, 0]
        average = copy.deepcopy(estimator)
        trainer = Trainer(
            [dict(params=list(estimator.parameters()), lr=1e-3)], [(average, estimator)]
        )

        def step(
            pixels: Tensor,
            lips: Tensor,
            estimator: LipEstimator = estimator,
            trainer: Trainer = trainer,
        ) -> Tensor:
            with autocast(device):
                guess = estimator(pixels)
            loss = F.smooth_l1_loss(guess / estimator.scale, lips / estimator.scale, beta=0.1)
            trainer.step(loss)
            return loss.detach()

        def reset(trainer: Trainer = trainer) -> None:
            trainer.optimizer.zero_grad(set_to_none=True)

        run = None
        for i, share in timed_steps(
            seconds / len(estimators), f"estimator {number}", [trainer], ranks
        ):
            trainer.schedule(share, i)
            pick = mine[torch.randint(0, len(mine), (192,), device=device)]
            pixels = as_pixels(crops.targets[pick])[:, :, TOP:]
            if i % 2:
                pixels = pixels.flip(3)
            if i % 3 == 0:  # a generated picture is softer than a rendered one
                pixels = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
            pixels = pixels * torch.empty(len(pick), 1, 1, 1, device=device).uniform_(0.8, 1.2)
            args = [pixels.contiguous(), crops.lips[pick].float()]
            if run is None:
                run = graphed(step, args, reset)
            loss = run(*args)
            if i % 1000 == 0:
                print(f"[estimator {number}] {i} {float(loss):.4f}", flush=True)
        estimator.load_state_dict(average.state_dict())


class FaceStage:
    """The face stage: the steps of the generator and of the critic, and their shared state."""

    def __init__(
        self,
        networks: Networks,
        ema: Networks,
        corpus: Corpus,
        crops: Crops,
        guide: LipEstimator,
        batch: int,
        rates: dict[str, float],
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        self.ranks = ranks
        self.networks, self.corpus, self.crops, self.batch = networks, corpus, crops, batch
        self.guide = guide.eval().requires_grad_(False)
        self.device = crops.targets.device
        self.critic = Critic().to(self.device)
        decoder = [*networks.vae.decoder.parameters(), *networks.vae.post_quant_conv.parameters()]
        networks.vae.encoder.requires_grad_(False)
        networks.vae.quant_conv.requires_grad_(False)
        self.trainer = Trainer(
            [
                dict(params=list(networks.unet.parameters()), lr=rates["unet"]),
                dict(params=decoder, lr=rates["decoder"]),
                dict(params=list(networks.audio.parameters()), lr=rates["audio"]),
            ],
            [(ema.unet, networks.unet), (ema.vae, networks.vae), (ema.audio, networks.audio)],
        )
        self.critic_trainer = Trainer([dict(params=list(self.critic.parameters()), lr=4e-4)], [])
        self.adversarial = torch.zeros((), device=self.device)
        self.sharpness = torch.tensor(rates["sharp"], device=self.device)
        self.critic_weight = rates["critic"]
        self.latent_weight = torch.ones((), device=self.device)

    def draw(self, step: int) -> list[Tensor]:
        """One batch: reference, target, windows, phase, weights, true lips, whose lips to read."""
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
        reference, target, plain = restyle_pairs(reference, target)
        windows, phase = frame_windows(self.corpus, crops.times[pick], clean=step % 8 == 7)
        return [
            reference.contiguous(memory_format=torch.channels_last),
            target.contiguous(memory_format=torch.channels_last),
            windows.contiguous(),
            phase,
            mouth_weight(boxes),
            crops.lips[pick].float(),
            plain,
        ]

    def make(self, reference: Tensor, windows: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            masked = reference.clone()
            masked[:, :, CROP_SIZE // 2 :] = -1
            seen, ref = self.networks.encode(masked), self.networks.encode(reference)
        latents = self.networks(seen, ref, self.networks.condition(windows, phase, vary_voice=True))
        return latents, self.networks.decode(latents)

    def step(
        self,
        reference: Tensor,
        target: Tensor,
        windows: Tensor,
        phase: Tensor,
        weight: Tensor,
        lips: Tensor,
        plain: Tensor,
    ) -> tuple[Tensor, ...]:
        with autocast(self.device):
            with torch.no_grad():
                wanted = self.networks.encode(target)
            latents, made = self.make(reference, windows, phase)
            measured = self.guide(made)
            score = self.critic(made)
        true = target[:, :, TOP:]
        scale = self.guide.scale
        pixel = picture_loss(made, true, weight)
        latent = F.smooth_l1_loss(
            latents.float()[:, :, DECODE_FROM_ROW:],
            wanted.float()[:, :, DECODE_FROM_ROW:],
            beta=0.5,
        )
        error = F.smooth_l1_loss(measured / scale, lips / scale, beta=0.1, reduction="none")
        lip = (error.mean(1) * plain).mean()
        sharp = energy_loss(made, true, weight)
        loss = (
            pixel
            + 0.1 * self.latent_weight * latent
            + 0.05 * lip
            + self.sharpness * sharp
            - self.adversarial * score.float().mean()
        )
        self.trainer.step(loss)
        return made.detach(), pixel.detach(), latent.detach(), lip.detach(), sharp.detach()

    def critic_step(self, made: Tensor, true: Tensor) -> Tensor:
        with autocast(self.device):
            fake, real = self.critic(made), self.critic(true)
        loss = F.relu(1 + fake.float()).mean() + F.relu(1 - real.float()).mean()
        self.critic_trainer.step(loss)
        return loss.detach()

    def run(
        self, seconds: float, sharpen_from: float, checkpoint: Callable[[int], None], every: float
    ) -> None:
        generator = critic = None
        due_s = every
        started = time.monotonic()
        for i, share in timed_steps(
            seconds, "face", [self.trainer, self.critic_trainer], self.ranks
        ):
            self.trainer.schedule(share, i)
            self.critic_trainer.schedule(0.5, i)
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
                shown = " ".join(f"{name} {float(value):.4f}" for name, value in losses.items())
                print(f"[face] {i} {share:.2f} {shown}", flush=True)
            if time.monotonic() - started > due_s:
                checkpoint(i)
                due_s += every
