"""Stage train-denoiser: the unconditional diffusion model (methods.md 2.1; arXiv:2006.11239)."""

import copy
import json
import time
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean

import diffusers
import numpy as np
import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clsp.config.denoisers import DenoiserSpec
from clsp.data.prepared import all_pixels, open_prepared
from clsp.diffusion.pixels import to_signed
from clsp.models.denoiser import build_denoiser
from clsp.runtime.canonical import sha256_json
from clsp.runtime.checkpoint import SAVE_EVERY, load_state, save_state, tensors_sha256
from clsp.runtime.device import resolve
from clsp.runtime.errors import ClspError, ConfigError
from clsp.runtime.history import History
from clsp.runtime.progress import Progress
from clsp.runtime.rng import integers, key_of, normal, numpy_stream, uniform
from clsp.runtime.stage import Input, Outcome, Output, Scratch


@dataclass
class Training:
    """Everything that changes from step to step, and so everything a resume needs."""

    unet: UNet2DModel
    ema: UNet2DModel
    optimizer: torch.optim.Adam
    history: History
    ema_updates: int = 0

    @property
    def step(self) -> int:
        """Optimizer steps done."""
        return len(self.history.records)

    def save(self, folder: Path, key: str) -> None:
        """Write the state; random numbers need none, since all are keyed by step or epoch."""
        state = {
            "key": key,
            "unet": self.unet.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "records": self.history.records,
            "ema_updates": self.ema_updates,
        }
        save_state(folder, state)

    def restore(self, folder: Path, key: str) -> None:
        """Continue from a state that was written for the same key; otherwise start fresh."""
        state = load_state(folder)
        if state is None or state["key"] != key:
            return
        self.unet.load_state_dict(state["unet"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = History(self.history.path, state["records"])
        self.ema_updates = state["ema_updates"]


def build_schedule(spec: DenoiserSpec) -> DDPMScheduler:
    """The forward process q(x_t | x_0): T steps, beta linear from beta_start to beta_end (D13)."""
    return DDPMScheduler(
        num_train_timesteps=spec.train_timesteps,
        beta_start=spec.beta_start,
        beta_end=spec.beta_end,
        beta_schedule="linear",
        variance_type="fixed_large",  # the authors' ancestral sampler (ddpm.py, p_mean_variance)
        clip_sample=False,
        prediction_type="epsilon",
        timestep_spacing="trailing",
    )


def learning_rate(spec: DenoiserSpec, step: int) -> float:
    """Rate used at a 0-based step: linear from 0 over warmup_steps, then constant.

    Source: train_diffusion.py of the authors, `warmup_lr`; their first step has rate 0 too.
    """
    if spec.warmup_steps == 0:
        return spec.learning_rate
    return spec.learning_rate * min(step, spec.warmup_steps) / spec.warmup_steps


def draw_batch(
    images: Tensor, rows: Tensor, epoch: int, spec: DenoiserSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """One batch's clean images, noise and times, each a function of (seed, row, epoch) alone.

    Args:
        images: The training split, uint8 (N, H, W, 3).
        rows: Rows of the batch, int64 (B,), on the images' device.
        epoch: 0-based epoch.
        spec: For seed, flip probability and train_timesteps.

    Returns:
        Clean images (B, 3, H, W) in [-1, 1], standard normal noise of that shape, times (B,).
    """
    clean = to_signed(images[rows])
    flipped = uniform(key_of(spec.seed, "flip"), rows, epoch, count=1)[:, 0] < spec.flip
    clean = torch.where(flipped.view(-1, 1, 1, 1), clean.flip(3), clean)
    drawn = normal(key_of(spec.seed, "noise"), rows, epoch, count=clean[0].numel())
    high = spec.train_timesteps
    times = integers(key_of(spec.seed, "times"), rows, epoch, high=high, count=1)[:, 0]
    return clean, drawn.view_as(clean), times


@lru_cache(maxsize=1)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return numpy_stream(seed, "denoiser order", epoch).permutation(count)


def _update(training: Training, spec: DenoiserSpec, loss: Tensor) -> dict[str, float]:
    """One optimizer and EMA step; refuses a loss or gradient that is not finite before it."""
    step, rate = training.step, learning_rate(spec, training.step)
    training.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    parameters = list(training.unet.parameters())
    norm = torch.nn.utils.clip_grad_norm_(parameters, spec.gradient_clip)
    values = {"loss": loss.item(), "lr": rate, "grad_norm": norm.item()}
    if not np.isfinite([values["loss"], values["grad_norm"]]).all():
        raise ClspError(
            f"train-denoiser: step {step} has loss {values['loss']} and gradient norm "
            f"{values['grad_norm']}; stopped before the update (learning_rate {rate:.3g})"
        )
    for group in training.optimizer.param_groups:
        group["lr"] = rate
    training.optimizer.step()
    average = get_ema_multi_avg_fn(spec.ema_decay)  # from step 0, no ramp: as the authors
    average(list(training.ema.parameters()), parameters, training.ema_updates)
    training.ema_updates += 1
    return values


def _train(training: Training, spec: DenoiserSpec, images: Tensor, scratch: Path, key: str) -> None:
    """Run all steps that are left."""
    schedule, per_epoch = build_schedule(spec), len(images) // spec.batch_size
    total, saved = spec.epochs * per_epoch, time.monotonic()
    training.unet.train()
    with Progress("train denoiser", total, "step", done=training.step) as progress:
        for step in range(training.step, total):
            epoch, position = divmod(step, per_epoch)
            order = _order(spec.seed, epoch, len(images))
            chosen = order[position * spec.batch_size :][: spec.batch_size]
            rows = torch.from_numpy(chosen).to(images.device)
            clean, noise, times = draw_batch(images, rows, epoch, spec)
            torch.manual_seed(key_of(spec.seed, "dropout", step))  # dropout draws from the global
            noisy = schedule.add_noise(clean, noise, times)
            predicted = training.unet(noisy, times, return_dict=False)[0]
            values = _update(training, spec, mse_loss(predicted, noise))
            training.history.log(step, epoch=epoch, **values)
            progress.step(loss=values["loss"])
            if time.monotonic() - saved >= SAVE_EVERY:
                training.save(scratch, key)
                saved = time.monotonic()


def _begin(spec: DenoiserSpec, size: int, device: torch.device, history: Path) -> Training:
    unet = build_denoiser(spec, size).to(device)
    optimizer = torch.optim.Adam(
        unet.parameters(), lr=spec.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True
    )
    ema = copy.deepcopy(unet).requires_grad_(False)
    return Training(unet, ema, optimizer, History(history))


def _index() -> str:
    """What DDPMPipeline.from_pretrained reads first."""
    entries = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": diffusers.__version__,
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    return json.dumps(entries, indent=2, sort_keys=True) + "\n"


def train_denoiser(
    spec: DenoiserSpec,
    dataset: Input,
    model_index: Output,
    unet: Output,
    raw: Output,
    scheduler: Output,
    history: Output,
    scratch: Scratch,
) -> Outcome:
    """Train the denoiser of one dataset; its labels are never read.

    Plain epsilon MSE over all pixels, times uniform, Adam, linear warm-up, gradient clipping and an
    EMA of the weights from step 0. The folder loads with diffusers' DDPMPipeline.from_pretrained;
    unet/ holds the EMA weights, raw/ those the optimizer left.

    Raises:
        ConfigError: If a batch is larger than the training split, the image size does not fit, or
            encoded images would take too much memory when decoded.
        ClspError: If the loss or its gradient stops being finite.
    """
    prepared = open_prepared(dataset)
    split = prepared.split("train").images
    if spec.batch_size > len(split):
        raise ConfigError(
            f"denoiser: batch_size {spec.batch_size} is larger than the {len(split)} training "
            f"images of dataset {spec.dataset}"
        )
    device = resolve()
    training = _begin(spec, split.shape[1], device, history)
    key = sha256_json([spec.canonical(), prepared.card["images_sha256"]])
    training.restore(scratch, key)
    images = torch.from_numpy(all_pixels(split, spec.dataset)).to(device)
    _train(training, spec, images, scratch, key)
    model_index.write_text(_index(), encoding="utf-8")
    training.ema.save_pretrained(unet)
    training.unet.save_pretrained(raw)
    build_schedule(spec).save_pretrained(scheduler)
    return _outcome(training, spec, len(split))


def _outcome(training: Training, spec: DenoiserSpec, available: int) -> Outcome:
    last = [r["loss"] for r in training.history.records if r["epoch"] == spec.epochs - 1]
    counters = {
        "steps": training.step,
        "epochs": spec.epochs,
        "ema_updates": training.ema_updates,
        "images": available,
        "parameters": sum(p.numel() for p in training.unet.parameters()),
    }
    facts = {
        "sampled_weights": "ema",
        "tensors_sha256": {
            "ema": tensors_sha256(training.ema.state_dict()),
            "raw": tensors_sha256(training.unet.state_dict()),
        },
        "label_conditioned": False,
    }
    return Outcome({"denoiser/loss": fmean(last)}, counters, facts)
