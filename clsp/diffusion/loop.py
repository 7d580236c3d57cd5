"""The training loop of a denoiser: plain epsilon MSE (arXiv:2006.11239, Eq. 14; methods.md 2.1)."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import mse_loss
from torch.optim.swa_utils import get_ema_multi_avg_fn

from clsp.config.denoisers import DenoiserSpec
from clsp.diffusion.feed import Feed
from clsp.diffusion.schedule import build_schedule, learning_rate
from clsp.diffusion.snapshots import Snapshots
from clsp.diffusion.state import Training, kept_state
from clsp.runtime.checkpoint import SAVE_EVERY
from clsp.runtime.errors import DivergedError
from clsp.runtime.history import StepLog
from clsp.runtime.progress import Progress
from clsp.runtime.rng import key_of
from clsp.runtime.stopping import Stop, stoppable
from clsp.runtime.team import Team

SAVE_SHARE = 0.05  # of the time at most goes into resume states, however large they are


def log_steps(spec: DenoiserSpec) -> int:
    """Steps between records of the step log."""
    return spec.log_every or 1


def dropout_key(spec: DenoiserSpec, step: int, rank: int) -> int:
    """Seed of dropout in one step of one process; process 0 has that of a single one."""
    return key_of(spec.seed, "dropout", step, *([rank] if rank else []))


def repeatable_attention(device: torch.device) -> AbstractContextManager[None]:
    """Attention whose gradients are the same every time, as exact resume needs.

    On a GPU torch's fused kernels sum gradients in any order, except in a deterministic mode that
    refuses rather than warns. Maps are small here (16 x 16), so the plain products cost little.
    """
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cuda" else nullcontext()


@dataclass
class Loop:
    """A training under way.

    Attributes:
        training: What changes.
        spec: What is wanted.
        feed: This process's part of every batch.
        team: This process among all.
        written: The step log; of process 0 alone.
        snapshots: Taken at the ends of epochs; of process 0 alone.
        scratch: Folder of the resume state.
        key: Of spec and data; state of another key is not continued.
        layout: Memory format of images.
    """

    training: Training
    spec: DenoiserSpec
    feed: Feed
    team: Team
    written: StepLog | None
    snapshots: Snapshots | None
    scratch: Path
    key: str
    layout: torch.memory_format

    def __post_init__(self) -> None:
        self.device = self.training.weights[0].device
        self.schedule = build_schedule(self.spec)
        self.total = self.spec.epochs * self.feed.per_epoch
        self.average = get_ema_multi_avg_fn(self.spec.ema_decay)  # from step 0: as the authors
        self.network: Callable[..., Any] = self.training.unet
        if self.spec.compile:
            self.network = torch.compile(self.training.unet, dynamic=False)
        self.saved, self.pause = time.monotonic(), SAVE_EVERY

    def loss(self, step: int) -> Tensor:
        """Mean squared error of the predicted noise over this process's part of a batch."""
        clean, noise, times, labels = self.feed.batch(step)
        torch.manual_seed(dropout_key(self.spec, step, self.team.rank))  # drawn from global state
        noisy = self.schedule.add_noise(clean, noise, times).to(memory_format=self.layout)
        half = self.spec.precision == "bf16"  # D28
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            predicted = self.network(noisy, times, class_labels=labels, return_dict=False)[0]
        return mse_loss(predicted.float(), noise)

    def advance(self) -> dict[str, float] | None:
        """Take one step; returns a record's values where one is due.

        Raises:
            DivergedError: If loss or gradient are not finite: before the update where every step
                is logged, else at the end of the window.
        """
        training, spec, step = self.training, self.spec, self.training.step
        rate, every = learning_rate(spec, step), log_steps(spec)
        loss = self.loss(step)
        training.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        mean = self.team.average(training.weights, loss)
        norm = torch.nn.utils.clip_grad_norm_(training.weights, spec.gradient_clip)
        training.window.add(mean, norm)
        values = self.read(rate) if every == 1 else None
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        training.optimizer.step()
        self.average(training.averages, training.weights, training.ema_updates)
        training.ema_updates += 1
        if every > 1 and ((step + 1) % every == 0 or step + 1 == self.total):
            values = self.read(rate)
        training.step += 1
        return values

    def read(self, rate: float) -> dict[str, float]:
        """Values of the window that ends with this step; begins the next one.

        Raises:
            DivergedError: If they are not finite.
        """
        window, step = self.training.window, self.training.step
        loss, norm = window.read()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            first = step - window.count + 1
            place = f"step {step} has" if first == step else f"steps {first} to {step} have mean"
            when = "; stopped before the update" if log_steps(self.spec) == 1 else "; stopped"
            raise DivergedError(
                f"train-denoiser: {place} loss {loss} and gradient norm {norm}{when} "
                f"(learning_rate {rate:.3g}); {kept_state(self.scratch, self.key)}"
            )
        window.clear()
        return {"loss": loss, "lr": rate, "grad_norm": norm}

    def keep(self) -> None:
        """Save what a killed job needs."""
        begun = time.monotonic()
        if self.written is not None:
            self.training.save(self.scratch, self.key, self.team.size, self.written)
        self.saved = time.monotonic()
        self.pause = max(SAVE_EVERY, (self.saved - begun) / SAVE_SHARE) if SAVE_EVERY else 0

    def run(self) -> None:
        """Take all steps that are left.

        Raises:
            DivergedError: If training stops being finite.
            SystemExit: If told to end by SIGTERM; the state is saved then.
            KeyboardInterrupt: The same by SIGINT.
        """
        self.training.unet.train()
        label, done = f"train denoiser {self.spec.dataset}", self.training.step
        shown = Progress(label, self.total, "step", done) if self.team.leads else nullcontext()
        orphaned = None if self.team.parent is None else lambda: self.team.orphaned
        with stoppable(orphaned) as stop, shown as progress, repeatable_attention(self.device):
            self._steps(progress, stop)
        if self.team.leads:
            self.training.refuse_broken(self.scratch, self.key)

    def _steps(self, progress: Progress | None, stop: Stop) -> None:
        training, per_epoch = self.training, self.feed.per_epoch
        shown: dict[str, float] = {}
        while training.step < self.total:
            step = training.step
            values = self.advance()
            if values is not None and self.written is not None:
                self.written.log(step, epoch=step // per_epoch, **values)
                shown = {"loss": values["loss"]}
            if progress is not None:
                progress.step(**shown)
            if (step + 1) % per_epoch == 0 and self.snapshots is not None:
                self.snapshots.after_epoch((step + 1) // per_epoch, training, self.written.path)
            told = self.team.largest(stop.number)
            if told or time.monotonic() - self.saved >= self.pause:
                self.keep()
            if told:
                raise KeyboardInterrupt if told == 2 else SystemExit(128 + told)
