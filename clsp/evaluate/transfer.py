"""Stage probe-transfer: logistic regression on cached features of many downstream datasets.

The protocol of methods.md section 4. Images entered at the size their dataset is stored at (D14).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsp.config.evaluation import LogisticSpec, TransferSpec
from clsp.evaluate.cache import Features, open_features
from clsp.evaluate.labelled import Task, check_given, open_task
from clsp.evaluate.logistic import Fit, LogisticRegression, grid
from clsp.evaluate.metrics import Judged, make_result, score, write_arrays, write_results
from clsp.evaluate.splits import validation_of
from clsp.runtime.device import resolve
from clsp.runtime.progress import Progress
from clsp.runtime.stage import Input, Inputs, Outcome, Output


@dataclass(frozen=True)
class Pool:
    """Train and validation images of one dataset together, and which of them validate.

    Attributes:
        features: float32 (N, F), mapped where there is no official validation split.
        labels: int64 (N,), or uint8 (N, classes).
        validates: bool (N,).
        rule: How those were chosen, for the record.
    """

    features: np.ndarray
    labels: np.ndarray
    validates: np.ndarray
    rule: dict[str, Any]


def _pool(features: Features, task: Task, spec: LogisticSpec) -> Pool:
    labels = np.concatenate([task.train.labels, task.val.labels])
    return Pool(features.pool(task), labels, *validation_of(task, spec))


def _record(fit: Fit, log10_lambda: float, **more: Any) -> dict[str, Any]:
    return {
        "log10_lambda": log10_lambda,
        "iterations": fit.iterations,
        "gradient": fit.gradient,
        "tolerance": fit.tolerance,
        "converged": fit.converged,
        **more,
    }


def _search(
    pool: Pool, task: Task, spec: LogisticSpec, device: torch.device, progress: Progress
) -> list[tuple[float, float, Fit]]:
    """Value on validation, log10 of lambda and fit, for the whole grid."""
    val = pool.validates
    problem = LogisticRegression(
        pool.features, pool.labels, task.classes, spec, device, chosen=~val
    )
    features, labels = pool.features[val], pool.labels[val]
    fit: Fit | None = None
    tried = []
    for strength in grid(spec):
        fit = problem.fit(strength, fit)  # warm start from the next stronger one
        tried.append((score(fit.logits(features), labels, task.metric), strength, fit))
        progress.step()
    return tried


def choose_and_refit(
    pool: Pool, task: Task, spec: LogisticSpec, device: torch.device, progress: Progress
) -> tuple[Fit, dict[str, Any], list[dict[str, Any]]]:
    """Choose lambda on validation, then fit train and validation together with it.

    Returns:
        The final fit; what was selected; and a record of every fit, the final one last. Of equal
        values on validation the strongest regulariser wins (D26).
    """
    tried = _search(pool, task, spec, device, progress)
    value, strength, start = max(tried, key=lambda entry: entry[0])  # the first of equal ones
    whole = LogisticRegression(pool.features, pool.labels, task.classes, spec, device)
    final = whole.fit(strength, start)
    progress.step()
    selection = {
        "log10_lambda": strength,
        "validation": pool.rule,
        "validation_value": value,
        "gradient": final.gradient,
        "converged": final.converged,
        "not_converged_in_grid": sum(not fit.converged for *_, fit in tried),
    }
    records = [_record(fit, strength, validation_value=value) for value, strength, fit in tried]
    return final, selection, [*records, _record(final, strength, refit=True)]


def _transfer(
    spec: LogisticSpec, features: Features, task: Task, device: torch.device, file: Path
) -> tuple[dict[str, Any], dict[str, np.ndarray], list[dict[str, Any]]]:
    """Judge one dataset; returns its result, the arrays to store in `file` and the fits."""
    pool = _pool(features, task, spec)
    with Progress(f"transfer {features.run} {task.name}", spec.count + 1, "fit") as progress:
        final, selection, fits = choose_and_refit(pool, task, spec, device, progress)
    selection["resolution"] = features.resolutions[task.name]
    logits, labels = final.logits(features.of(task, "test")), task.test.labels
    names = {key: f"{task.name}.{key}" for key in ("logits", "labels", "rows")}
    arrays = dict(zip(names.values(), (logits, labels, task.rows()), strict=True))
    rows = np.concatenate([task.train.rows, task.val.rows])
    arrays[f"{task.name}.validation_rows"] = rows[pool.validates]
    where = {"file": file.name, **names}
    judged = Judged(task.name, task.metric, features.epoch, logits, labels, where)
    return make_result(judged, "transfer", "val", selection), arrays, fits


def probe_transfer(
    spec: TransferSpec, features: Input, datasets: Inputs, results: Output, predictions: Output
) -> Outcome:
    """Transfer a frozen encoder to downstream datasets, one test number each.

    Args:
        spec: Datasets and the logistic regression.
        features: Features of the run or floor that the spec names.
        datasets: Prepared datasets, in the order of the spec.
        results: One record per dataset, JSON.
        predictions: Test logits, labels and rows, and rows of the validation images, npz with keys
            "<dataset>.logits" and so on.

    Raises:
        ConfigError: If run or datasets are not those of the spec.
        DataError: If a file is corrupt, a split is empty or no image has a label.
    """
    check_given(datasets, spec.datasets)
    cached, device = open_features(features, spec.run), resolve()
    tasks = [open_task(artefact) for artefact in datasets]  # all are checked before any work
    found, arrays, fits = [], {}, {}
    for task in tasks:
        result, stored, fits[task.name] = _transfer(
            spec.logistic, cached, task, device, predictions
        )
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
