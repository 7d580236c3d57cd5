"""Stage probe-transfer: one frozen encoder, many downstream datasets (methods.md section 4).

Images enter at the size their dataset is stored at (D14).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsp.config.evaluation import LogisticSpec, TransferSpec
from clsp.evaluate.labelled import Task, open_task
from clsp.evaluate.logistic import Fit, LogisticRegression, grid
from clsp.evaluate.metrics import (
    Judged,
    accuracy,
    count_correct,
    make_result,
    write_arrays,
    write_results,
)
from clsp.models.features import FrozenEncoder, batch_size_for, extract, open_frozen
from clsp.runtime.device import resolve
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.progress import Progress
from clsp.runtime.rng import numpy_stream
from clsp.runtime.stage import Input, Inputs, Outcome, Output


@dataclass(frozen=True)
class Pool:
    """Train and validation features of one dataset in one array, and which of them validate."""

    features: np.ndarray  # float32 (N, F)
    labels: np.ndarray  # int64 (N,)
    validates: np.ndarray  # bool (N,)
    source: str  # "official" or "carved"


def carve(labels: np.ndarray, fraction: float, seed: int, name: str) -> np.ndarray:
    """Choose validation images where no official split exists, evenly by class (D15).

    Args:
        labels: int64 (N,).
        fraction: Share of each class, rounded; at least one image, and at least one is left to
            train on. A class of one image only trains.
        seed: With `name`, the key of the draw.
        name: Of the dataset.

    Returns:
        bool (N,), True for validation.

    Raises:
        DataError: If no class has two images.
    """
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        stream = numpy_stream(seed, "validation", name, int(label))
        chosen[stream.permutation(rows)[:count]] = True
    if not chosen.any():
        raise DataError(
            f'dataset "{name}": no validation split can be carved from {len(labels)} training '
            "images, because no class has two"
        )
    return chosen


def _pool(frozen: FrozenEncoder, task: Task, spec: LogisticSpec) -> Pool:
    parts = [
        extract(frozen, s.images, batch_size_for(s.images), f"features {task.name} {name}")
        for name, s in (("train", task.train), ("val", task.val))
        if len(s)
    ]
    labels = np.concatenate([task.train.labels, task.val.labels])
    if len(task.val):
        validates = np.arange(len(labels)) >= len(task.train)
        return Pool(np.concatenate(parts), labels, validates, "official")
    validates = carve(labels, spec.validation_fraction, spec.seed, task.name)
    return Pool(parts[0], labels, validates, "carved")


def _record(fit: Fit, log10_lambda: float, **more: Any) -> dict[str, Any]:
    return {
        "log10_lambda": log10_lambda,
        "iterations": fit.iterations,
        "gradient": fit.gradient,
        "converged": fit.converged,
        **more,
    }


def choose_and_refit(
    pool: Pool, task: Task, spec: LogisticSpec, device: torch.device, progress: Progress
) -> tuple[Fit, dict[str, Any], list[dict[str, Any]]]:
    """Choose lambda on validation, then fit train and validation together with it.

    Returns:
        The final fit; what was selected; and a record of every fit, the final one last. Of equal
        validation accuracies the strongest regulariser wins.
    """
    train, val = ~pool.validates, pool.validates
    problem = LogisticRegression(
        pool.features[train], pool.labels[train], task.classes, spec, device
    )
    fit: Fit | None = None
    tried: list[tuple[float, float, Fit]] = []
    for strength in grid(spec):
        fit = problem.fit(strength, fit)  # warm start from the next stronger one
        per_class = count_correct(fit.logits(pool.features[val]), pool.labels[val])
        tried.append((accuracy(per_class, task.metric), strength, fit))
        progress.step()
    value, strength, start = max(tried, key=lambda entry: entry[0])  # the first of equal ones
    whole = LogisticRegression(pool.features, pool.labels, task.classes, spec, device)
    final = whole.fit(strength, start)
    progress.step()
    selection = {
        "log10_lambda": strength,
        "validation": pool.source,
        "validation_value": value,
        "converged": final.converged,
        "not_converged_in_grid": sum(not fit.converged for *_, fit in tried),
    }
    records = [_record(fit, strength, validation_value=value) for value, strength, fit in tried]
    return final, selection, [*records, _record(final, strength, refit=True)]


def _check_names(spec: TransferSpec, given: list[str]) -> None:
    wanted = list(spec.datasets)
    if given != wanted:
        raise ConfigError(
            f"--datasets: the spec asks for {len(wanted)} in this order: {', '.join(wanted)}; "
            f"given are {len(given)}: {', '.join(given) or 'none'}"
        )


def _transfer(
    spec: LogisticSpec, frozen: FrozenEncoder, task: Task, file: Path
) -> tuple[dict[str, Any], dict[str, np.ndarray], list[dict[str, Any]]]:
    """Judge one dataset; returns its result, the arrays to store in `file` and the fits."""
    pool = _pool(frozen, task, spec)
    images = task.test.images
    test = extract(frozen, images, batch_size_for(images), f"features {task.name} test")
    with Progress(f"logistic {task.name}", spec.count + 1, "fit") as progress:
        final, selection, fits = choose_and_refit(pool, task, spec, frozen.device, progress)
    logits, labels = final.logits(test), task.test.labels
    names = {key: f"{task.name}.{key}" for key in ("logits", "labels", "rows")}
    arrays = {names["logits"]: logits, names["labels"]: labels, names["rows"]: task.rows()}
    stored = {"file": file.name, **names}
    judged = Judged(task.name, task.metric, frozen.epoch, logits, labels, stored)
    return make_result(judged, "transfer", "val", selection), arrays, fits


def probe_transfer(
    spec: TransferSpec, encoder: Input, datasets: Inputs, results: Output, predictions: Output
) -> Outcome:
    """Transfer a frozen encoder to downstream datasets, one test number each.

    Args:
        spec: Datasets and the logistic regression.
        encoder: The pretraining run that the spec names.
        datasets: Prepared datasets, in the order of the spec.
        results: One record per dataset, JSON.
        predictions: Test logits, labels and rows, npz with keys "<dataset>.logits" and so on.

    Raises:
        ConfigError: If run or datasets are not those of the spec.
        DataError: If a file is corrupt, a split is empty or an image is unlabelled.
    """
    _check_names(spec, [artefact.folder.name for artefact in datasets])
    frozen = open_frozen(encoder, spec.run, resolve())
    tasks = [open_task(artefact) for artefact in datasets]  # all are checked before any work
    found, arrays, fits = [], {}, {}
    for task in tasks:
        result, stored, fits[task.name] = _transfer(spec.logistic, frozen, task, predictions)
        found.append(result)
        arrays.update(stored)
    write_results(results, spec.run, found)
    write_arrays(predictions, arrays)
    metrics = {f"transfer/{r['task']}": r["value"] for r in found}
    counters = {
        "fits": sum(len(records) for records in fits.values()),
        "test_images": sum(len(task.test) for task in tasks),
    }
    return Outcome(metrics, counters, {"results": found, "fits": fits})
