"""L2-regularised logistic regression by L-BFGS (methods.md section 4, "Transfer").

Minimises, over weight W (classes, F) and bias b (classes,),

    (1/N) sum_i cross_entropy(W x_i + b, y_i)  +  lambda / (2 N) ||W||^2

which is scikit-learn's objective with C = 1/lambda: it minimises C times the *sum* of losses plus
||W||^2 / 2, and divides by C N before optimising, so that tolerances mean the same. The bias is not
penalised. With two classes both have a weight, where scikit-learn fits one: then its C is twice
ours. Where images show several classes, the loss is the sum of binary cross-entropies: one binary
regression per class, each scikit-learn's own with C = 1/lambda, all solved at once.

Features are neither standardised nor scaled. Inside, they are centred, which moves the optimum of b
by -W mean and nothing else, because b is free; and turned to their principal axes, which changes
neither the loss nor ||W||, but leaves clsp/evaluate/descent.py few iterations to make. Of more
features than images only the span is kept, where the optimum lies.

Most of them are made in float32. The last ones, and the gradient that decides about convergence,
are float64.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clsp.config.evaluation import FewShotSpec, LogisticSpec
from clsp.evaluate.descent import State, descend
from clsp.evaluate.losses import Loss
from clsp.evaluate.threads import few_threads

BLOCK = 8192  # images that are worked on at a time where all would take memory
# A gradient counts as zero if it is within the tolerance asked for and small beside the two forces
# that are in balance at a solution, of the data and of the penalty. A fixed tolerance would stop
# anywhere where weak regularisers leave both forces below it, as on classes that can be separated.
BALANCE = 0.01  # of the penalty's largest force
LEAST = 1e-5  # of the tolerance asked for: where the penalty has no force, all weights being 0
ROUGH = 2 * torch.finfo(torch.float32).eps  # of a feature's size: below, float32 says little


@dataclass(frozen=True)
class Fit:
    """One solution and how good it is.

    Attributes:
        weight: float64 (classes, F).
        bias: float64 (classes,), for features as given (not centred).
        iterations: L-BFGS iterations spent.
        gradient: Largest absolute entry of the gradient of the objective at the solution.
        tolerance: What it must not exceed.
        converged: Whether it does not.
    """

    weight: Tensor
    bias: Tensor
    iterations: int
    gradient: float
    tolerance: float
    converged: bool

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits float32 (M, classes) for features (M, F)."""
        found = np.empty((len(features), len(self.bias)), np.float32)
        for start in range(0, len(features), BLOCK):
            part = slice(start, start + BLOCK)
            inputs = torch.from_numpy(features[part]).to(self.weight)
            found[part] = torch.addmm(self.bias, inputs, self.weight.T).float().cpu().numpy()
        return found


def grid(spec: LogisticSpec) -> list[float]:
    """Log10 of the regularisers lambda, strongest first: the order of the warm starts."""
    return [float(x) for x in np.linspace(spec.high, spec.low, spec.count)]


def principal_axes(inputs: Tensor) -> Tensor:
    """Orthonormal axes (F, min(N, F)) that span centred features (N, F) and are uncorrelated."""
    span = None
    if len(inputs) < inputs.shape[1]:
        span = torch.linalg.qr(inputs.T).Q  # (F, N)
        inputs = inputs @ span
    axes = torch.linalg.eigh(inputs.T @ inputs).eigenvectors
    return axes if span is None else span @ axes


def turn(inputs: Tensor, axes: Tensor) -> Tensor:
    """Inputs (N, F) along axes (F, R), (N, R); in the place of `inputs` where there is room."""
    turned = (
        inputs if axes.shape[0] == axes.shape[1] else inputs.new_empty(len(inputs), len(axes.T))
    )
    for start in range(0, len(inputs), BLOCK):
        part = slice(start, start + BLOCK)
        turned[part] = inputs[part] @ axes
    return turned


def targets_of(labels: np.ndarray, classes: int) -> np.ndarray:
    """1 where an image shows a class, uint8 (classes, N), from labels (N,) or (N, classes)."""
    if labels.ndim == 2:
        return np.ascontiguousarray(labels.T, np.uint8)
    return (labels == np.arange(classes)[:, None]).astype(np.uint8)


def _doubles(features: np.ndarray, rows: np.ndarray, device: torch.device) -> Tensor:
    """Some features in float64 on the device, (n, F); never all of them in float32 beside it."""
    inputs = torch.empty(len(rows), features.shape[1], dtype=torch.float64, device=device)
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        inputs[part] = torch.from_numpy(features[rows[part]]).to(device)
    return inputs


class LogisticRegression:
    """The problem for one training set; solved for one lambda after another.

    Args:
        features: float32 (N, F).
        labels: int64 (N,), in [0, classes); a class may be absent. Or uint8 (N, classes), 1 for
            every class that an image shows.
        classes: Number of classes.
        spec: Iterations allowed and tolerance.
        device: Where everything is computed.
        chosen: Those of the images that are fitted, bool (N,) or int64 (n,); without it, all.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        classes: int,
        spec: LogisticSpec | FewShotSpec,
        device: torch.device,
        chosen: np.ndarray | None = None,
    ) -> None:
        rows = np.arange(len(labels)) if chosen is None else np.arange(len(labels))[chosen]
        labels = labels[rows]
        inputs = _doubles(features, rows, device)
        self.mean = inputs.mean(0)  # (F,)
        inputs -= self.mean
        self.axes = principal_axes(inputs)  # (F, R)
        inputs = turn(inputs, self.axes)  # (N, R)
        targets = torch.from_numpy(targets_of(labels, classes)).to(device)
        exclusive = labels.ndim == 1
        self.fine = Loss(inputs, targets.double(), exclusive)
        self.rough = Loss(inputs.float(), targets.float(), exclusive)
        self.spec = spec
        sizes = torch.linalg.vector_norm(inputs, 1, dim=0) / len(inputs)  # mean absolute values
        self.floor = ROUGH * float(sizes.max())

    def objective(self, weight: Tensor, bias: Tensor, log10_lambda: float) -> float:
        """What is minimised, at any weight (classes, F) and bias for features as given."""
        point = self._inner(weight, bias)
        decay = 10.0**log10_lambda / self.fine.count
        penalty = 0.5 * decay * float(weight.square().sum())
        return self.fine.value(self.fine.scores(point)) + penalty

    def _inner(self, weight: Tensor, bias: Tensor) -> Tensor:
        """Weight and bias for centred features along their axes, (classes, R + 1)."""
        return torch.cat([weight @ self.axes, (bias + weight @ self.mean)[:, None]], 1)

    def _largest(self, gradient: Tensor) -> float:
        """Largest entry of a gradient along the axes, once it is that for features as given."""
        bias = gradient[:, -1:]
        weight = gradient[:, :-1] @ self.axes.T + bias * self.mean
        return float(torch.maximum(weight.abs().max(), bias.abs().max()))

    def _tolerance(self, point: Tensor, decay: float) -> float:
        """What no entry of the gradient may exceed at a solution."""
        pull, wanted = decay * float(point[:, :-1].abs().max()), self.spec.tolerance
        return min(wanted, max(BALANCE * pull, LEAST * wanted))

    def _judge(self, decay: float, floor: float) -> Callable[[State], bool]:
        """Whether a state is a solution, to a tolerance that is no less than `floor`."""

        def done(state: State) -> bool:
            tolerance = max(floor, self._tolerance(state.point, decay))
            # Entries along the axes are at hand; in features as given they take a product.
            along = float(state.gradient.abs().max())
            return along <= tolerance and self._largest(state.gradient) <= tolerance

        return done

    def fit(self, log10_lambda: float, start: Fit | None = None) -> Fit:
        """Solve for one regulariser.

        Args:
            log10_lambda: Log10 of lambda.
            start: Warm start, of this or another training set; zeros without one.
        """
        fine, spec = self.fine, self.spec
        point = fine.inputs.new_zeros(len(fine.targets), self.axes.shape[1] + 1)
        if start is not None:
            point = self._inner(start.weight, start.bias)
        decay = 10.0**log10_lambda / fine.count
        state = State.at(point)
        with few_threads(self.axes.shape[1] * fine.targets.numel()):
            rough = self._judge(decay, self.floor)
            descend(self.rough, state, decay, spec.max_iterations // 2, rough)
            descend(fine, state, decay, spec.max_iterations, self._judge(decay, 0.0))
        weight = state.point[:, :-1] @ self.axes.T
        bias = state.point[:, -1] - weight @ self.mean
        gradient, tolerance = self._largest(state.gradient), self._tolerance(state.point, decay)
        return Fit(weight, bias, state.iterations, gradient, tolerance, gradient <= tolerance)
