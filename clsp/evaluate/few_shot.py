"""Stage probe-few-shot: transfer with few labels, from the features that transfer reads.

For every point of the curves, k images per class or a share of each class, training images are
drawn several times out of train and val together, which have no other use here: so few images
leave none to choose a regulariser on, and it is fixed in advance. Features are L2-normalised, so
that it means the same for every encoder and floor.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsp.config.evaluation import FewShotJobSpec, FewShotSpec
from clsp.evaluate.cache import Features, open_features
from clsp.evaluate.labelled import Task, check_given, open_task
from clsp.evaluate.logistic import LogisticRegression
from clsp.evaluate.metrics import accuracy, count_by_class, write_arrays, write_results
from clsp.runtime.canonical import sha256_array
from clsp.runtime.device import resolve
from clsp.runtime.errors import DataError
from clsp.runtime.progress import Progress
from clsp.runtime.rng import numpy_stream
from clsp.runtime.stage import Input, Inputs, Outcome, Output

TINY = 1e-12  # shortest feature that is divided by its length


@dataclass(frozen=True)
class Pool:
    """What training images are drawn from, and the test images, of one dataset."""

    features: np.ndarray  # float32 (N, F), of length 1
    labels: np.ndarray  # int64 (N,)
    rows: np.ndarray  # int64 (N,), in the dataset's arrays
    test: np.ndarray  # float32 (M, F), of length 1


@dataclass(frozen=True)
class Point:
    """All draws of one point of a curve.

    Attributes:
        predicted: Class of each test image, int32 (D, M).
        drawn: Rows of the training images in the dataset's arrays, int64 (D, n).
        short: Classes with fewer images than were asked for.
        unfinished: Draws whose fit did not converge.
    """

    predicted: np.ndarray
    drawn: np.ndarray
    short: int
    unfinished: int


def unit(features: np.ndarray) -> np.ndarray:
    """Features (N, F) divided by their Euclidean length; a feature of length 0 stays."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.maximum(length, TINY)).astype(np.float32)


def count_of(wanted: float | int, there: int) -> int:
    """Images drawn of a class that has `there`: shots (int), or a share, rounded, at least one."""
    if isinstance(wanted, int):
        return min(wanted, there)
    return max(1, round(wanted * there))


def draw_images(labels: np.ndarray, wanted: float | int, *key: int | str) -> np.ndarray:
    """Draw training images class by class, without replacement.

    Args:
        labels: int64 (N,).
        wanted: Shots, an int, or a share of each class, a float.
        key: With the class, the key of the draw: nothing else changes what is drawn.

    Returns:
        int64 (n,), positions in `labels`, classes ascending.
    """
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        stream = numpy_stream(*key, int(label))
        chosen.append(stream.permutation(rows)[: count_of(wanted, len(rows))])
    return np.concatenate(chosen)


def _pool(features: Features, task: Task) -> Pool:
    if task.multilabel:
        raise DataError(
            f'dataset "{task.name}": images show several classes, so that k images of each class '
            "are not defined; leave it out of few-shot evaluation"
        )
    return Pool(
        unit(features.pool(task)),
        np.concatenate([task.train.labels, task.val.labels]),
        np.concatenate([task.train.rows, task.val.rows]),
        unit(features.of(task, "test")),
    )


def _judge_point(
    spec: FewShotSpec, pool: Pool, task: Task, point: str, device: torch.device, progress: Progress
) -> Point:
    """Fit and predict once per draw."""
    predicted, drawn, unfinished = [], [], 0
    wanted = spec.points[point]
    for number in range(spec.draws):
        rows = draw_images(pool.labels, wanted, spec.seed, "few-shot", task.name, point, number)
        problem = LogisticRegression(
            pool.features, pool.labels, task.classes, spec, device, chosen=rows
        )
        fit = problem.fit(spec.log10_lambda)
        unfinished += not fit.converged
        predicted.append(fit.logits(pool.test).argmax(1).astype(np.int32))
        drawn.append(pool.rows[rows])
        progress.step()
    there = np.bincount(pool.labels, minlength=task.classes)
    short = int((there < wanted).sum()) if isinstance(wanted, int) else int((there == 0).sum())
    return Point(np.stack(predicted), np.stack(drawn), short, unfinished)


def _spread(values: list[float]) -> float | None:
    """Sample standard deviation, None below two values."""
    if len(values) < 2:
        return None
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


def _result(
    spec: FewShotSpec, features: Features, task: Task, name: str, point: Point, file: Path
) -> dict[str, Any]:
    """The record of one point: counts are summed over draws, so that the value is their mean."""
    labels = task.test.labels
    counts = [count_by_class(one, labels, task.classes) for one in point.predicted]
    pooled = np.sum(counts, axis=0).tolist()
    values = [accuracy(one, task.metric) for one in counts]
    return {
        "task": task.name,
        "protocol": "few_shot",
        "variant": name,
        "metric": task.metric,
        "value": accuracy(pooled, task.metric),
        "correct": sum(c for c, _ in pooled),
        "total": sum(t for _, t in pooled),
        "per_class": pooled,
        "split": "test",
        "selected_on": "none",
        "epoch": features.epoch,
        "selection": {
            "log10_lambda": spec.log10_lambda,
            "draws": spec.draws,
            "images": point.drawn.shape[1],
            "short_classes": point.short,
            "drawn_sha256": sha256_array(point.drawn),
            "values": values,
            "std": _spread(values),
            "converged": point.unfinished == 0,
            "not_converged": point.unfinished,
            "resolution": features.resolutions[task.name],
        },
        "predictions": {
            "file": file.name,
            "predicted": f"{task.name}.{name}.predicted",
            "labels": f"{task.name}.labels",
            "rows": f"{task.name}.rows",
        },
    }


def _curves(
    spec: FewShotSpec, features: Features, task: Task, device: torch.device, file: Path
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
    """Every point of one dataset: its results, and the arrays to store in `file`."""
    pool = _pool(features, task)
    results: list[dict[str, Any]] = []
    arrays = {f"{task.name}.labels": task.test.labels, f"{task.name}.rows": task.rows()}
    with Progress(
        f"few-shot {features.run} {task.name}", len(spec.points) * spec.draws, "fit"
    ) as progress:
        for name in spec.points:
            point = _judge_point(spec, pool, task, name, device, progress)
            arrays[f"{task.name}.{name}.predicted"] = point.predicted
            arrays[f"{task.name}.{name}.drawn"] = point.drawn
            results.append(_result(spec, features, task, name, point, file))
    return results, arrays


def metric_name(result: dict[str, Any]) -> str:
    """Name of a result among the metrics; MLflow allows no equals sign in it."""
    return f"few_shot/{result['task']}/{result['variant'].replace('=', '_')}"


def probe_few_shot(
    spec: FewShotJobSpec, features: Input, datasets: Inputs, results: Output, predictions: Output
) -> Outcome:
    """Judge cached features with few labels on every downstream dataset.

    Args:
        spec: Datasets, and the points of the curves.
        features: Features of the run or floor that the spec names.
        datasets: Prepared datasets, in the order of the spec.
        results: One record per dataset and point, JSON.
        predictions: Predicted classes (D, M) and drawn rows (D, n) per dataset and point, test
            labels and rows per dataset, npz with keys "<dataset>.<point>.predicted" and so on.

    Raises:
        ConfigError: If run or datasets are not those of the spec.
        DataError: If a file is corrupt, a split is empty, or an image has no or several labels.
    """
    check_given(datasets, spec.datasets)
    cached = open_features(features, spec.run)
    tasks = [open_task(artefact) for artefact in datasets]  # all are checked before any work
    found: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    device = resolve()
    for task in tasks:
        records, stored = _curves(spec.few_shot, cached, task, device, predictions)
        found += records
        arrays |= stored
    write_results(results, spec.run, found)
    write_arrays(predictions, arrays)
    counters = {
        "fits": len(found) * spec.few_shot.draws,
        "test_images": sum(len(task.test) for task in tasks),
    }
    return Outcome({metric_name(r): r["value"] for r in found}, counters, {"results": found})
