"""Optimizer, parameter groups and learning rate of a recipe."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from clsp.config.recipe import RecipeSpec
from clsp.pretrain.contract import Group, Method

TINY = 1e-8  # methods.md 1.3


def learning_rate(
    recipe: RecipeSpec, step: int, per_epoch: int, peak: float | None = None
) -> float:
    """The rate used in a step: linear warm-up, then half a cosine to 0 (methods.md 1.4).

    Warm-up starts at `warmup_start`, reaches the peak at its last position and the next position
    holds it, as LinearWarmupCosineAnnealingLR does in the authors' code and in solo-learn.
    Positions are epochs in the CLSP authors' recipes and steps in solo-learn's (`schedule`).

    Args:
        recipe: Gives peak, warm-up and number of epochs.
        step: From 0.
        per_epoch: Steps per epoch.
        peak: Of a group with a rate of its own; None for the recipe's.

    Returns:
        Learning rate per step.
    """
    unit = per_epoch if recipe.schedule == "step" else 1
    place = step if recipe.schedule == "step" else step // per_epoch
    top = recipe.peak if peak is None else peak
    warmup, total = recipe.warmup_epochs * unit, recipe.epochs * unit
    if place < warmup:
        return recipe.warmup_start + (top - recipe.warmup_start) / max(warmup - 1, 1) * place
    return top * (1 + math.cos(math.pi * (place - warmup) / (total - warmup))) / 2


def momentum_buffers(optimizer: torch.optim.Optimizer, used: list[Tensor]) -> list[Tensor]:
    """Momentum of parameters; zero before the first step, which then becomes the gradient."""
    for parameter in used:
        if "momentum_buffer" not in optimizer.state[parameter]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return [optimizer.state[parameter]["momentum_buffer"] for parameter in used]


def _begin_momentum(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Give every parameter its buffer before torch's fused SGD takes a step.

    It wants buffers for all parameters of a group or for none, and prototypes that are frozen at
    first would get theirs later than the rest. The kernel also counts on gradients laid out in
    memory as their parameters, which autograd sees to.
    """
    for group in optimizer.param_groups:
        if group["momentum"]:
            momentum_buffers(optimizer, [p for p in group["params"] if p.grad is not None])


class Lars(torch.optim.Optimizer):
    """Layer-wise adaptive rates with heavy-ball momentum, as in solo-learn (methods.md 1.3).

    Args:
        groups: Parameters with their settings.
        trust: Trust coefficient.
        clip: Whether no rate exceeds the recipe's.
        fused: Momentum and update of all tensors in one kernel; equal up to rounding.

    For a tensor that takes weight decay, r = trust |p| / (|grad| + wd |p| + 1e-8), with clipping
    r = min(r / lr, 1), and d = r (grad + wd p); if either norm is 0, d = grad. A tensor without
    weight decay has d = grad. Then buf = momentum buf + d (buf = d at first) and p <- p - lr buf.
    Groups carry `adapted`, which says whether the first rule holds.
    """

    def __init__(
        self, groups: list[dict[str, Any]], trust: float, clip: bool, fused: bool = False
    ) -> None:
        super().__init__(groups, {"trust": trust, "clip": clip, "adapted": True})
        self.fused = fused

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Update every parameter that has a gradient; no closure is taken."""
        for group in self.param_groups:
            used = [p for p in group["params"] if p.grad is not None]
            if not used:
                continue
            changes = [p.grad for p in used]
            if group["adapted"]:
                changes = self._adapted(used, changes, group)
            buffers = momentum_buffers(self, used)
            momentum, rate = group["momentum"], group["lr"]
            if self.fused:
                torch._fused_sgd_(
                    used, changes, buffers, weight_decay=0.0, momentum=momentum, lr=rate,
                    dampening=0.0, nesterov=False, maximize=False, is_first_step=False,
                )  # fmt: skip
            else:
                torch._foreach_mul_(buffers, momentum)
                torch._foreach_add_(buffers, changes)
                torch._foreach_add_(used, buffers, alpha=-rate)

    @staticmethod
    def _adapted(used: list[Tensor], grads: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        sizes, slopes = (torch.stack(torch._foreach_norm(tensors)) for tensors in (used, grads))
        decay = group["weight_decay"]
        ratio = group["trust"] * sizes / (slopes + decay * sizes + TINY)
        if group["clip"]:
            ratio = (ratio / group["lr"]).clamp(max=1)
        active = (sizes > 0) & (slopes > 0)
        ratio = torch.where(active, ratio, torch.ones_like(ratio))
        decays = torch.where(active, decay * ratio, torch.zeros_like(ratio))
        return [
            r * grad + d * p
            for r, d, grad, p in zip(ratio.unbind(), decays.unbind(), grads, used, strict=True)
        ]


def _groups(method: Method) -> list[Group]:
    """The method's own groups, and one with everything else that is trained."""
    own = method.groups() if hasattr(method, "groups") else []
    own = [Group(list(group.parameters), group.rate, group.constant) for group in own]
    taken = {id(parameter) for group in own for parameter in group.parameters}
    rest = [p for p in method.parameters() if p.requires_grad and id(p) not in taken]
    return [Group(rest), *own]


def _split(group: Group, recipe: RecipeSpec) -> list[dict[str, Any]]:
    """Optimizer groups: tensors with weight decay, and those that the recipe leaves out."""
    whole = recipe.weight_decay_on == "all"
    trained = [p for p in group.parameters if p.requires_grad]
    decayed = [p for p in trained if whole or p.ndim > 1]
    bare = [p for p in trained if not whole and p.ndim <= 1]
    common = {
        "peak": recipe.peak if group.rate is None else group.rate,
        "constant": group.constant,
        "momentum": recipe.momentum,
    }
    common["lr"] = common["peak"]
    parts = [
        {"params": decayed, "weight_decay": recipe.weight_decay, "adapted": True},
        {"params": bare, "weight_decay": 0.0, "adapted": False},
    ]
    return [{**common, **part} for part in parts if part["params"]]


def build_optimizer(
    method: nn.Module, recipe: RecipeSpec, fused: bool = False
) -> torch.optim.Optimizer:
    """The recipe's optimizer over everything that requires a gradient.

    The CLSP authors' SGD decays biases and batch norm too, solo-learn's LARS does not (methods.md
    7, 16): `weight_decay_on`. Rates are set by `set_learning_rates`.

    Args:
        method: What is trained.
        recipe: Gives the optimizer and its settings.
        fused: Update all tensors in one kernel; equal up to rounding.
    """
    groups = [part for group in _groups(method) for part in _split(group, recipe)]
    if recipe.lars is not None:
        return Lars(groups, recipe.lars.trust, recipe.lars.clip, fused)
    optimizer = torch.optim.SGD(groups, lr=recipe.peak, foreach=not fused, fused=fused)
    if fused:
        optimizer.register_step_pre_hook(_begin_momentum)
    return optimizer


def set_learning_rates(
    optimizer: torch.optim.Optimizer, recipe: RecipeSpec, step: int, per_epoch: int
) -> float:
    """Set the rate of every parameter group for a step; returns the recipe's own."""
    for group in optimizer.param_groups:
        constant, peak = group["constant"], group["peak"]
        group["lr"] = peak if constant else learning_rate(recipe, step, per_epoch, peak)
    return learning_rate(recipe, step, per_epoch)
