"""Losses of linear classifiers and their derivatives, in one arithmetic, on one device."""

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 8192  # images of which squares are held at a time
FLAT = 1e-9  # least curvature, as a share of the largest: a certain prediction has none


class Loss:
    """Mean loss over images, without its penalty.

    One label per image: cross-entropy of the softmax over classes. Several: the sum over classes of
    binary cross-entropies, each of which has no part in the others.

    Scores are kept as (classes, N), the faster layout for few classes.

    Args:
        inputs: float (N, R); its type is that of the arithmetic.
        targets: (classes, N), 1 where an image shows a class, else 0, of the same type.
        exclusive: Whether every image shows one class.
    """

    def __init__(self, inputs: Tensor, targets: Tensor, exclusive: bool) -> None:
        self.inputs, self.targets, self.exclusive = inputs, targets, exclusive
        self.count = len(inputs)

    def scale(self, scores: Tensor, decay: float) -> Tensor:
        """Roots of the curvature with its penalty along each variable, about.

        Binary losses have p (1 - p) in each score. The softmax has diag(p) - p p', of which the
        mean eigenvalue is taken, the one that is always 0 left out: alike for all classes.

        Args:
            scores: Where the curvature is asked for, (classes, N).
            decay: Of the penalty.

        Returns:
            float64 (1 or classes, R + 1), > 0.
        """
        if self.exclusive:
            left = 1 - scores.softmax(0).square().sum(0, keepdim=True)  # (1, N)
            spread = left / max(1, len(scores) - 1)
        else:
            spread = scores.sigmoid() * scores.neg().sigmoid()  # (classes, N)
        parts = zip(spread.split(BLOCK, 1), self.inputs.split(BLOCK), strict=True)
        power = torch.stack([part @ inputs.square() for part, inputs in parts]).sum(0)
        curvature = torch.cat([power, spread.sum(1, keepdim=True)], 1).double() / self.count
        curvature[:, :-1] += decay
        return (curvature + FLAT * curvature.max()).sqrt()

    def scores(self, point: Tensor) -> Tensor:
        """Scores (classes, N) at weights and bias (classes, R + 1), the bias last."""
        packed = point.to(self.inputs.dtype)
        return torch.addmm(packed[:, -1:], packed[:, :-1], self.inputs.T)

    def _normaliser(self, scores: Tensor) -> Tensor:
        """What the loss subtracts from the score of a target: (1, N) or (classes, N)."""
        if self.exclusive:
            return scores.logsumexp(0, keepdim=True)
        return functional.softplus(scores)

    def value(self, scores: Tensor) -> float:
        """The loss."""
        lost = self._normaliser(scores).sum(dtype=torch.float64)
        return float(lost - (self.targets * scores).sum(dtype=torch.float64)) / self.count

    def rise(self, before: Tensor, after: Tensor, step: float, move: Tensor) -> float:
        """By how much the loss rises from scores `before` to `after` = before + step * move."""
        change = (self._normaliser(after) - self._normaliser(before)).sum(dtype=torch.float64)
        gain = step * (self.targets * move).sum(dtype=torch.float64)
        return float(change - gain) / self.count

    def residual(self, scores: Tensor) -> Tensor:
        """Derivative of the loss in every score, (classes, N)."""
        chances = scores.softmax(0) if self.exclusive else scores.sigmoid()
        return chances.sub_(self.targets).div_(self.count)

    def slope(self, residual: Tensor, move: Tensor) -> float:
        """Derivative of the loss along scores (classes, N)."""
        return float((residual * move).sum(dtype=torch.float64))

    def gradient(self, residual: Tensor, point: Tensor, decay: float) -> Tensor:
        """Gradient with the penalty, float64 (classes, R + 1)."""
        bias = residual.sum(1, dtype=torch.float64)
        weight = torch.add((residual @ self.inputs).double(), point[:, :-1], alpha=decay)
        return torch.cat([weight, bias[:, None]], 1)
