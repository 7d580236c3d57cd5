"""L2-regularised multinomial logistic regression by L-BFGS (methods.md section 4, "Transfer").

Minimises, over weight W (classes, F) and bias b (classes,),

    (1/N) sum_i cross_entropy(W x_i + b, y_i)  +  lambda / (2 N) ||W||^2

which is scikit-learn's objective with C = 1/lambda: it minimises C times the *sum* of losses plus
||W||^2 / 2, and divides by C N before optimising, so that tolerances mean the same. The bias is not
penalised. With two classes both have a weight, where scikit-learn fits one: then its C is twice
ours. SciPy's L-BFGS-B drives; loss and gradient are computed in float64 on the device.

Features are neither standardised nor scaled. They are centred internally, which moves the optimum
of b by -W mean and nothing else, because b is free; it saves L-BFGS most of its iterations, for
features behind a ReLU share a large mean.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from clsp.config.evaluation import LogisticSpec


@dataclass(frozen=True)
class Fit:
    """One solution and how good it is.

    Attributes:
        weight: float64 (classes, F).
        bias: float64 (classes,), for features as given (not centred).
        iterations: L-BFGS iterations spent.
        gradient: Largest absolute entry of the gradient of the objective at the solution.
        converged: Whether that is within the tolerance.
    """

    weight: Tensor
    bias: Tensor
    iterations: int
    gradient: float
    converged: bool

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Logits float32 (M, classes) for features (M, F)."""
        inputs = torch.from_numpy(features).to(self.weight)
        return torch.addmm(self.bias, inputs, self.weight.T).float().cpu().numpy()


def grid(spec: LogisticSpec) -> list[float]:
    """Log10 of the regularisers lambda, strongest first: the order of the warm starts."""
    return [float(x) for x in np.linspace(spec.high, spec.low, spec.count)]


class LogisticRegression:
    """The problem for one training set; solved for one lambda after another.

    Args:
        features: float32 (N, F).
        labels: int64 (N,), in [0, classes); a class may be absent.
        classes: Number of classes.
        spec: Iterations allowed and tolerance.
        device: Where loss and gradient are computed.
    """

    def __init__(
        self,
        features: np.ndarray,
        labels: np.ndarray,
        classes: int,
        spec: LogisticSpec,
        device: torch.device,
    ) -> None:
        inputs = torch.from_numpy(features).to(device, torch.float64)
        self.mean = inputs.mean(0)  # (F,)
        self.inputs = inputs - self.mean  # (N, F)
        self.targets = torch.from_numpy(labels).to(device)[:, None]  # (N, 1)
        self.classes, self.spec = classes, spec

    def _unpack(self, point: np.ndarray) -> tuple[Tensor, Tensor]:
        packed = torch.from_numpy(point).to(self.inputs.device)
        packed = packed.view(self.classes, -1)  # (classes, F + 1), the bias last
        return packed[:, :-1], packed[:, -1]

    def objective(self, point: np.ndarray, penalty: float) -> tuple[float, np.ndarray]:
        """Loss and gradient at weights and centred bias packed as (classes * (F + 1),)."""
        weight, bias = self._unpack(point)
        count = len(self.inputs)
        logits = torch.addmm(bias, self.inputs, weight.T)  # (N, classes)
        log_probabilities = logits - logits.logsumexp(1, keepdim=True)
        loss = -log_probabilities.gather(1, self.targets).mean()
        loss = loss + 0.5 * penalty / count * weight.square().sum()
        residual = log_probabilities.exp_()
        residual.scatter_add_(1, self.targets, residual.new_full(self.targets.shape, -1.0))
        residual /= count
        slope = torch.empty(self.classes, weight.shape[1] + 1).to(residual)
        slope[:, :-1] = torch.addmm(weight, residual.T, self.inputs, beta=penalty / count)
        slope[:, -1] = residual.sum(0)
        return float(loss), slope.flatten().cpu().numpy()

    def fit(self, log10_lambda: float, start: Fit | None = None) -> Fit:
        """Solve for one regulariser.

        Args:
            log10_lambda: Log10 of lambda.
            start: Warm start, of this or another training set; zeros without one.
        """
        point = np.zeros(self.classes * (self.inputs.shape[1] + 1))
        if start is not None:
            bias = start.bias + start.weight @ self.mean
            point = torch.cat([start.weight, bias[:, None]], 1).flatten().cpu().numpy()
        options = {
            "maxiter": self.spec.max_iterations,
            "maxfun": 2 * self.spec.max_iterations,
            "gtol": self.spec.tolerance,
            "ftol": 0.0,  # a small decrease is no proof of convergence; only the gradient is
            "maxls": 50,
        }
        found = minimize(
            self.objective,
            point,
            args=(10.0**log10_lambda,),
            jac=True,
            method="L-BFGS-B",
            options=options,
        )
        weight, bias = self._unpack(found.x)
        gradient = float(np.abs(found.jac).max())
        return Fit(
            weight.clone(),
            bias - weight @ self.mean,
            int(found.nit),
            gradient,
            gradient <= self.spec.tolerance,
        )
