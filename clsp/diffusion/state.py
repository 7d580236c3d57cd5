"""What changes while a denoiser trains, and what a killed job leaves behind."""

import copy
import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d import UNet2DModel
from torch import Tensor

from clsp.config.denoisers import DenoiserSpec
from clsp.models.denoiser import build_denoiser
from clsp.runtime.checkpoint import load_state, save_state
from clsp.runtime.errors import ConfigError, DivergedError
from clsp.runtime.history import StepLog

log = logging.getLogger(__name__)
LOG = "history.jsonl"  # in the scratch folder


class Window:
    """Loss and gradient norm of the steps since the last record; they stay on the device.

    Attributes:
        loss: Sum of the losses, float64.
        norm: Largest gradient norm; NaN if one of them was.
        count: Steps.
    """

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.norm = torch.zeros((), dtype=torch.float64, device=device)
        self.count = 0

    def add(self, loss: Tensor, norm: Tensor) -> None:
        """Note one step."""
        self.loss += loss.double()
        self.norm = torch.maximum(self.norm, norm.double())
        self.count += 1

    def read(self) -> tuple[float, float]:
        """Mean loss and largest gradient norm; waits for the device."""
        loss, norm = torch.stack((self.loss, self.norm)).tolist()
        return loss / max(self.count, 1), norm

    def clear(self) -> None:
        """Begin the next window."""
        self.loss.zero_()
        self.norm.zero_()
        self.count = 0


def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no tensor holds NaN or infinity; one transfer from the device."""
    return bool(torch.stack([torch.isfinite(tensor).all() for tensor in tensors]).all())


@dataclass
class Training:
    """Everything that changes from step to step, and so everything a resume needs.

    Attributes:
        unet: The network that is trained; weights in full precision whatever `precision` says.
        ema: Moving average of its weights; never trained, never in train mode.
        optimizer: Adam over the network.
        window: What waits for the next record of the step log.
        step: Optimizer steps done.
        ema_updates: Updates of the average.
    """

    unet: UNet2DModel
    ema: UNet2DModel
    optimizer: torch.optim.Adam
    window: Window
    step: int = 0
    ema_updates: int = 0
    weights: list[Tensor] = field(init=False)
    averages: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.weights = list(self.unet.parameters())
        self.averages = list(self.ema.parameters())

    def refuse_broken(self, folder: Path, key: str) -> None:
        """Stop if a weight, or a loss that was not read yet, is no longer finite.

        Raises:
            DivergedError: Naming the steps since the last record.
        """
        found = self.window.read()
        if not all(map(math.isfinite, found)) or not all_finite([*self.weights, *self.averages]):
            raise DivergedError(
                f"train-denoiser: between steps {self.step - self.window.count} and "
                f"{self.step - 1} loss, gradient or weights stopped being finite (mean loss "
                f"{found[0]}, largest gradient norm {found[1]}), so training ended; "
                f"{kept_state(folder, key)}"
            )

    def save(self, folder: Path, key: str, processes: int, written: StepLog) -> None:
        """Write the state; random numbers need none, since all are keyed by step or epoch.

        Raises:
            DivergedError: If it is not finite; the state that was saved before stays.
        """
        self.refuse_broken(folder, key)
        state = {
            "key": key,
            "processes": processes,
            "step": self.step,
            "log_bytes": written.sync(),
            "window": [self.window.loss, self.window.norm, self.window.count],
            "unet": self.unet.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema_updates": self.ema_updates,
        }
        save_state(folder, state)

    def restore(self, folder: Path, key: str, processes: int) -> int:
        """Continue from a state that was written for the same key; otherwise start fresh.

        Returns:
            Bytes of the step log that count.

        Raises:
            ConfigError: If another number of processes wrote the state.
            DataError: If it is corrupt.
        """
        state = load_state(folder)
        if state is None:
            return 0
        if state["key"] != key:
            log.info("%s holds the state of another spec or dataset: starting anew", folder)
            return 0
        if state["processes"] != processes:
            raise ConfigError(
                f"train-denoiser: the state in {folder}, after step {state['step']}, is of "
                f"{state['processes']} processes, but this job has {processes}; dropout and "
                f"rounding depend on that number, so the result would be that of neither. Ask for "
                f"{state['processes']} again (docs/diffusion.md), or delete the folder to start "
                "anew"
            )
        self.unet.load_state_dict(state["unet"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        loss, norm, self.window.count = state["window"]
        self.window.loss.copy_(loss)
        self.window.norm.copy_(norm)
        self.step, self.ema_updates = state["step"], state["ema_updates"]
        log.info("resuming after step %d", self.step)
        return int(state["log_bytes"])


def kept_state(folder: Path, key: str) -> str:
    """The last good state of a job, for a message."""
    state = load_state(folder)
    if state is None or state["key"] != key:
        return "no state had been saved yet"
    return f"the last good state, after step {state['step']}, is kept in {folder}"


def begin(
    spec: DenoiserSpec,
    size: int,
    classes: int | None,
    device: torch.device,
    layout: torch.memory_format,
) -> Training:
    """A training that has not taken a step.

    Args:
        spec: Of the denoiser.
        size: Side of the images, pixels.
        classes: Of a class-conditional denoiser, else None.
        device: Where it trains.
        layout: Of images and weights in memory; changes no number but by rounding.
    """
    unet = build_denoiser(spec, size, classes).to(device).to(memory_format=layout)
    optimizer = torch.optim.Adam(
        unet.parameters(), lr=spec.learning_rate, betas=(0.9, 0.999), eps=1e-8, fused=True
    )
    ema = copy.deepcopy(unet).requires_grad_(False).eval()
    return Training(unet, ema, optimizer, Window(device))
