"""Optimizer and learning rate of a recipe."""

import math

import torch
from torch import nn

from clsp.config.schema import RecipeSpec


def learning_rate(recipe: RecipeSpec, epoch: int) -> float:
    """The rate used in an epoch: linear warm-up, then half a cosine to 0 (methods.md 1.4, CLSP).

    Warm-up starts at `warmup_start`, reaches the peak in its last epoch and the next epoch holds
    it, as LinearWarmupCosineAnnealingLR does in the authors' code.

    Args:
        recipe: Gives peak, warm-up and number of epochs.
        epoch: From 0.

    Returns:
        Learning rate per step.
    """
    peak, warmup = recipe.learning_rate, recipe.warmup_epochs
    if epoch < warmup:
        rise = (peak - recipe.warmup_start) / max(warmup - 1, 1)
        return recipe.warmup_start + rise * epoch
    return peak * (1 + math.cos(math.pi * (epoch - warmup) / (recipe.epochs - warmup))) / 2


def build_optimizer(method: nn.Module, recipe: RecipeSpec) -> torch.optim.Optimizer:
    """Plain SGD over everything that requires a gradient.

    Weight decay acts on biases and batch norm too, as in the authors' code (methods.md 3.1).
    """
    trained = [parameter for parameter in method.parameters() if parameter.requires_grad]
    return torch.optim.SGD(
        trained,
        lr=learning_rate(recipe, 0),
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        foreach=True,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = rate
