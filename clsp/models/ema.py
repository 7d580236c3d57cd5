"""Exponential moving averages of weights (methods.md 1.2)."""

import copy
import math

import torch
from torch import nn


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
