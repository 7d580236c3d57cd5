"""Minimising the loss of a linear classifier by preconditioned L-BFGS, on any device.

Three things set this apart from a general L-BFGS, and each saves passes over the data:

- Variables are scaled by the root of the loss's own curvature at the start. Where columns of the
  inputs are uncorrelated, features of very different size then cost no iterations.
- Scores are linear in the point. A line search therefore works on the scores of the point and of
  the direction: an iteration reads the data twice, however many steps it tries.
- Inner products of past steps are kept as a small matrix on the host, and a direction is one
  combination of stored vectors (Chen et al., "Large-scale L-BFGS using MapReduce", 2014), so a GPU
  waits for the host a few times per iteration and not forty.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clsp.evaluate.losses import Loss

MEMORY = 10  # past steps
CURVATURE = 0.25  # a step may leave this share of the slope along the direction, either way
TRIES = 40  # steps tried per line search


class History:
    """The last steps and changes of the gradient, and all their inner products.

    Args:
        like: A vector of the space, float64.
    """

    def __init__(self, like: Tensor) -> None:
        # Rows 0 to MEMORY - 1 hold steps, the others changes of the gradient.
        self.vectors = like.new_zeros(2 * MEMORY, like.numel())
        self.products = np.zeros((2 * MEMORY, 2 * MEMORY))
        self.order: list[int] = []  # slots, oldest first

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember one iteration, unless rounding has eaten its curvature."""
        slot = len(self.order) if len(self.order) < MEMORY else self.order[0]
        kept = [*self.order, slot][-MEMORY:]
        rows = [slot, slot + MEMORY]
        saved = self.vectors[rows].clone()
        self.vectors[rows[0]], self.vectors[rows[1]] = step.flatten(), change.flatten()
        products = (self.vectors @ self.vectors[rows].T).cpu().numpy()  # (2 MEMORY, 2)
        if products[slot, 1] <= 1e-14 * products[slot + MEMORY, 1]:
            self.vectors[rows] = saved
            return
        self.products[:, rows], self.products[rows] = products, products.T
        self.order = kept

    def direction(self, gradient: Tensor) -> Tensor:
        """Minus the inverse Hessian's estimate times the gradient."""
        if not self.order:
            return -gradient
        flat = gradient.flatten()
        along = (self.vectors @ flat).cpu().numpy()  # (2 MEMORY,)
        weights, own = self._combine(along)
        packed = torch.from_numpy(weights).to(flat.device)
        return -torch.addmv(flat, self.vectors.T, packed, beta=own).view_as(gradient)

    def _combine(self, along: np.ndarray) -> tuple[np.ndarray, float]:
        """The two loops of L-BFGS, on coefficients of the stored vectors and of the gradient."""
        weights, products = np.zeros(2 * MEMORY), self.products
        shares = {}
        for slot in reversed(self.order):
            curvature = products[slot, slot + MEMORY]
            shares[slot] = (along[slot] + products[slot] @ weights) / curvature
            weights[slot + MEMORY] -= shares[slot]
        last = self.order[-1]
        own = products[last, last + MEMORY] / products[last + MEMORY, last + MEMORY]
        weights *= own
        for slot in self.order:
            change = slot + MEMORY
            back = (own * along[change] + products[change] @ weights) / products[slot, change]
            weights[slot] += shares[slot] - back
        return weights, float(own)


@dataclass
class State:
    """Where the descent is.

    Attributes:
        point: Weights and bias, float64 (classes, R + 1), the bias last.
        history: Of the scaled variables.
        gradient: At the point, float64 of the same shape, once computed.
        scale: What variables are multiplied by, float64 (1 or classes, R + 1), once computed.
        iterations: Spent so far.
    """

    point: Tensor
    history: History
    gradient: Tensor | None = None
    scale: Tensor | None = None
    iterations: int = 0

    @classmethod
    def at(cls, point: Tensor) -> "State":
        """A state that has no past."""
        return cls(point, History(point))


def descend(
    loss: Loss,
    state: State,
    decay: float,
    limit: int,
    done: Callable[[State], bool],
) -> None:
    """Move `state` until `done(state)`, `limit` iterations in all, or no step helps any more.

    Args:
        loss: What is minimised, apart from the penalty decay / 2 * ||weights||^2.
        state: Changed in place.
        decay: Of the penalty; the bias has none.
        limit: Iterations that `state` may have spent at the end.
        done: Judges a state whose gradient is known.
    """
    scores = loss.scores(state.point)
    if state.scale is None:
        state.scale = loss.scale(scores, decay)
    scale = state.scale
    residual = loss.residual(scores)
    state.gradient = loss.gradient(residual, state.point, decay)
    while state.iterations < limit and not done(state):
        direction = state.history.direction(state.gradient / scale) / scale
        step, scores, residual = search(loss, state, decay, direction, scores)
        if step == 0:
            return
        state.point = state.point + step * direction
        fresh = loss.gradient(residual, state.point, decay)
        state.history.add(step * direction * scale, (fresh - state.gradient) / scale)
        state.gradient = fresh
        state.iterations += 1


def search(
    loss: Loss, state: State, decay: float, direction: Tensor, scores: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Find a step along a direction at which the slope has shrunk to CURVATURE of what it was.

    The loss is convex, so a slope that is still negative proves that the loss fell; only beyond
    the minimum its value has to be looked at.

    Returns:
        Step (0 if none was found), and scores and residual there.
    """
    move = loss.scores(direction)
    weight, along = state.point[:, :-1], direction[:, :-1]
    start, cross, square = torch.stack(
        [(state.gradient * direction).sum(), (weight * along).sum(), along.square().sum()]
    ).tolist()
    low, low_slope, high, high_slope = 0.0, start, 0.0, 0.0  # high == 0: no upper end is known
    step = 1.0
    for _ in range(TRIES):
        if not start < 0:
            break
        there = scores + step * move
        residual = loss.residual(there)
        slope = loss.slope(residual, move) + decay * (cross + step * square)
        if slope < CURVATURE * start:
            low, low_slope = step, slope
        elif slope > -CURVATURE * start or (
            slope > 0
            and loss.rise(scores, there, step, move) + decay * step * (cross + 0.5 * step * square)
            > 0
        ):
            high, high_slope = step, slope
        else:
            return step, there, residual
        step = _next(low, low_slope, high, high_slope)
    return 0.0, scores, loss.residual(scores)


def _next(low: float, low_slope: float, high: float, high_slope: float) -> float:
    """The next step to try: where a straight line through both slopes crosses zero, with bounds."""
    if high == 0.0:
        return 4 * low
    share = low_slope / (low_slope - high_slope)
    return low + (high - low) * min(0.9, max(0.1, share))
