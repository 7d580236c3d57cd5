"""Rows that processes exchange, with gradients (methods.md 7, 1).

Every process computes the loss of the whole batch from gathered embeddings, and its own graph leads
to its own rows alone. So the gradient of a gather is this process's slice, nothing is added up
here, and the sum of the parameters' gradients over all processes, which the loop takes once after
the backward pass, is the gradient of one process with the whole batch.
"""

from typing import Any

import torch
from torch import Tensor

from clsp.runtime.team import Team


class _Gathered(torch.autograd.Function):
    """Rows of all processes; the gradient of this process's."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, team: Team) -> Tensor:
        ctx.team = team
        return team.collect(part)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.team.part(gradient), None


class _Moved(torch.autograd.Function):
    """Rows that change process; their gradients go back the same way."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, team: Team, there: Tensor, back: Tensor) -> Tensor:
        ctx.team, ctx.back = team, back
        return team.collect(rows)[there]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return ctx.team.collect(gradient)[ctx.back], None, None, None


def gathered(team: Team, part: Tensor) -> Tensor:
    """The rows of the whole batch, in order.

    Args:
        team: Of the processes.
        part: This process's rows, (B / P, ...).

    Returns:
        (B, ...), equal on all processes; the gradient of this process's rows reaches `part`.
    """
    return part if team.size == 1 else _Gathered.apply(part, team)


def moved(team: Team, rows: Tensor, order: Tensor) -> Tensor:
    """Rows in another order over all processes.

    Args:
        team: Of the processes.
        rows: This process's rows, (N / P, ...).
        order: Numbers of the N rows in the wanted order, a permutation; the same on all processes,
            and on the device of the rows.

    Returns:
        This process's part of the rows in that order, (N / P, ...).
    """
    there, back = (team.part(o) for o in (order, order.argsort()))
    return _Moved.apply(rows, team, there, back)
