"""Exponential moving averages of weights (methods.md 1.2)."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn


def frozen_copy(module: nn.Module) -> nn.Module:
    """A deep copy that gradients do not reach; it starts equal, buffers included."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update_average(average: nn.Module, online: nn.Module, decay: float) -> None:
    """Move an average: average <- decay * average + (1 - decay) * online, in place.

    Parameters only: batch-norm buffers of the average belong to its own forward passes.

    Args:
        average: The copy that moves.
        online: The network that is trained; same structure.
        decay: In [0, 1]; 1 leaves the average as it is.
    """
    old = list(average.parameters())
    torch._foreach_mul_(old, decay)
    torch._foreach_add_(old, list(online.parameters()), alpha=1 - decay)


def cosine_decay(start: float, end: float, step: int, steps: int) -> float:
    """Decay that rises from start (step 0) to end (step = steps) along half a cosine."""
    return end - (end - start) * (1 + math.cos(math.pi * step / steps)) / 2


class Teacher(nn.Module):
    """The moving average of an online network, with the schedule of its decay.

    `tau` records the decay of the last update and `updates` counts them. The network stays in train
    mode, so its batch norm uses the statistics of its own batches (methods.md 1.2).

    Args:
        online: The network that is followed; the average starts equal.
        start: Decay in step 0.
        end: Decay at the end of the run.
    """

    def __init__(self, online: nn.Module, start: float, end: float) -> None:
        super().__init__()
        self.network = frozen_copy(online)
        self.start, self.end = start, end
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))
        self.register_buffer("tau", torch.zeros((), dtype=torch.float64))

    def follow(self, online: nn.Module, step: int, steps: int) -> dict[str, float]:
        """Update at the start of a step, with the decay set at the end of the step before.

        The CLSP authors compute tau(s) after step s and use it in step s + 1; in step 0 both
        networks are equal, so that update changes nothing but rounding. solo-learn updates after
        each step with the same sequence of decays.

        Returns:
            The decay, for the step log.
        """
        decay = cosine_decay(self.start, self.end, max(step - 1, 0), steps)
        update_average(self.network, online, decay)
        self.tau.fill_(decay)
        self.updates += 1
        return {"momentum": decay}

    @torch.no_grad()
    def forward(self, images: Tensor) -> Any:
        """The average's output; no gradient is kept."""
        return self.network(images)
