"""The best learning rate of the linear probe, chosen on validation images (D35).

All rates of the grid are trained at once on the other training images, the best is refitted on all
of them. It yields a result beside the headline, whose rate is fixed in advance.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsp.config.evaluation import LinearSpec, RateGridSpec
from clsp.evaluate.labelled import Task
from clsp.evaluate.linear import Samples, is_finite, train_rates
from clsp.evaluate.metrics import score
from clsp.evaluate.splits import stratified_draw
from clsp.runtime.canonical import sha256_array
from clsp.runtime.errors import ConfigError, DataError


@dataclass(frozen=True)
class BestRate:
    """A probe at the rate that was best on validation.

    Attributes:
        weight: (classes, F).
        bias: (classes,).
        selection: What was chosen, among what and on what, for the result.
        facts: The value on validation of every rate, and the rates that diverged.
        rows: Of the validation images in the dataset's arrays, int64 (V,).
    """

    weight: Tensor
    bias: Tensor
    selection: dict[str, Any]
    facts: dict[str, Any]
    rows: np.ndarray


def _validation(task: Task, grid: RateGridSpec, seed: int) -> np.ndarray:
    """Positions of the validation images among the training images, int64 (V,)."""
    drawn = stratified_draw(task.train.labels, grid.validation_fraction, seed, task.name)
    if len(drawn) == 0:
        raise DataError(
            f'dataset "{task.name}": no validation images can be carved from '
            f"{len(task.train)} training images of one class each (evaluation.linear.grid)"
        )
    return drawn


def _value(logits: Tensor, labels: np.ndarray, metric: str) -> float | None:
    """The metric on validation; None where a rate diverged."""
    return score(logits.cpu().numpy(), labels, metric) if logits.isfinite().all() else None


def _try_all(
    spec: LinearSpec,
    grid: RateGridSpec,
    samples: Samples,
    task: Task,
    drawn: np.ndarray,
    **how: Any,
) -> dict[float, float | None]:
    """The value on validation of every rate, learnt from the other images."""
    others = np.setdiff1d(np.arange(len(task.train)), drawn)
    layers = train_rates(spec, samples, grid.learning_rates, images=others, **how)
    inputs = samples.inputs[torch.from_numpy(drawn).to(samples.inputs.device)]  # as they are
    labels = task.train.labels[drawn]
    found = (torch.addmm(bias, inputs, weight.T) for weight, bias in zip(*layers, strict=True))
    values = [_value(logits, labels, task.metric) for logits in found]
    return dict(zip(grid.learning_rates, values, strict=True))


def choose_rate(
    spec: LinearSpec, grid: RateGridSpec, samples: Samples, task: Task, *, seed: int, label: str
) -> BestRate:
    """Choose a learning rate on validation images and refit with it.

    Args:
        spec: Optimisation; its own rate plays no part.
        grid: Rates, and the share of training images that validate.
        samples: Features of the training images of the task.
        task: What is judged. Neither its test images nor an official validation split are used.
        seed: Decides which images validate, first weights, order and flips.
        label: What the progress line says.

    Returns:
        The probe at the best rate, of equally good ones the lowest. One that diverges on all
        training images makes way for the next best.

    Raises:
        ConfigError: If every rate diverges.
        DataError: If no class has images enough to validate.
    """
    drawn = _validation(task, grid, seed)
    how = {"seed": seed, "label": label}
    values = _try_all(spec, grid, samples, task, drawn, **how)
    sound = {rate: value for rate, value in values.items() if value is not None}
    spoilt = []
    for rate in sorted(sound, key=lambda rate: (-sound[rate], rate)):
        weight, bias = (tensor[0] for tensor in train_rates(spec, samples, [rate], **how))
        if is_finite(weight, bias):
            break
        spoilt.append(rate)
    else:
        raise ConfigError(
            f"{label}: diverged at every rate of evaluation.linear.grid.learning_rates "
            f"({', '.join(map(str, grid.learning_rates))}); lower them"
        )
    rows = task.train.rows[drawn]
    selection = {
        "probe_epoch": spec.epochs,
        "learning_rate": rate,
        "among": list(grid.learning_rates),
        "validation": {
            "rule": "stratified",
            "seed": seed,
            "fraction": grid.validation_fraction,
            "count": len(rows),
            "rows_sha256": sha256_array(rows),
        },
        "validation_value": values[rate],
    }
    facts = {
        "validation_by_rate": [{"learning_rate": r, "value": v} for r, v in values.items()],
        "diverged": [r for r, value in values.items() if value is None],
        "diverged_on_all_images": spoilt,
    }
    return BestRate(weight, bias, selection, facts, rows)
