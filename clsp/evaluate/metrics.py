"""Numbers from logits, and the record in which they are reported (audit.md 2.2, records 10, 11)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clsp.runtime.canonical import canonical_json

RANKED = ("map11",)  # metrics of images that show several classes
METRICS = ("top1", "mean_per_class", *RANKED)
SCHEMA = 1


@dataclass(frozen=True)
class Judged:
    """Predictions of one protocol on one test split, as they are stored.

    Attributes:
        task: Name of the dataset.
        metric: One of METRICS.
        epoch: Last epoch of the encoder's pretraining; None of a floor.
        logits: float32 (M, classes); the stored bytes decide the number, not what preceded them.
        labels: int64 (M,), or uint8 (M, classes) where images show several classes.
        predictions: Where they are stored: file name, and the names of the arrays in it.
    """

    task: str
    metric: str
    epoch: int | None
    logits: np.ndarray
    labels: np.ndarray
    predictions: dict[str, str]


def count_by_class(predicted: np.ndarray, labels: np.ndarray, classes: int) -> list[list[int]]:
    """[correct, total] of each class, from predicted and true classes, int (M,) each."""
    correct = np.bincount(labels[predicted == labels], minlength=classes)
    total = np.bincount(labels, minlength=classes)
    return [[int(c), int(t)] for c, t in zip(correct, total, strict=True)]


def count_correct(logits: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """Correct and total predictions of each class.

    Args:
        logits: (M, classes). Of one class per image the largest is the prediction, and of equal
            ones the lowest index. Of several, those above 0 are.
        labels: int64 (M,), or uint8 (M, classes).

    Returns:
        One [correct, total] per class, where total are the test images that show it and correct
        those of them for which it was predicted; [0, 0] for a class that none shows.

    Raises:
        ValueError: If shapes do not fit or a logit is NaN.
    """
    if logits.ndim != 2 or labels.shape not in (logits.shape[:1], logits.shape):
        raise ValueError(f"logits {logits.shape} do not fit labels {labels.shape}")
    if np.isnan(logits).any():
        raise ValueError("a logit is NaN")
    if labels.ndim == 1:
        return count_by_class(logits.argmax(1), labels, logits.shape[1])
    correct, total = ((logits > 0) & (labels != 0)).sum(0), (labels != 0).sum(0)
    return [[int(c), int(t)] for c, t in zip(correct, total, strict=True)]


def accuracy(per_class: list[list[int]], metric: str) -> float:
    """Accuracy in percent from the counts of each class.

    Args:
        per_class: From `count_correct`, with at least one test image.
        metric: "top1": all images weigh the same. "mean_per_class": all classes that have a test
            image weigh the same.

    Raises:
        ValueError: If the metric is no accuracy.
    """
    if metric == "top1":
        return 100 * sum(c for c, _ in per_class) / sum(t for _, t in per_class)
    if metric == "mean_per_class":
        shares = [100 * c / t for c, t in per_class if t]
        return sum(shares) / len(shares)
    raise ValueError(f"{metric!r} is no accuracy; known: top1, mean_per_class")


def average_precision(scores: np.ndarray, shown: np.ndarray) -> float:
    """Interpolated average precision of one class at eleven recalls, as Pascal VOC 2007 defines it.

    Images are retrieved from the highest score on, those of equal score together, so that no order
    of images decides. At each recall 0, 0.1, ..., 1 counts the highest precision of any retrieval
    that reaches it. The development kit orders images of equal score as they come.

    Args:
        scores: float (M,).
        shown: bool (M,), whether an image shows the class; at least one does.

    Returns:
        In [0, 1].
    """
    thresholds, place = np.unique(-scores, return_inverse=True)  # ascending: best scores first
    retrieved = np.cumsum(np.bincount(place, minlength=len(thresholds)))
    found = np.cumsum(np.bincount(place[shown], minlength=len(thresholds)))  # whole numbers
    best = np.maximum.accumulate((found / retrieved)[::-1])[
        ::-1
    ]  # of this retrieval or a later one
    # The first retrieval of recall k/10, in whole numbers: 3 of 10 do reach 0.3.
    reached = np.searchsorted(10 * found, np.arange(11) * found[-1])
    return float(best[reached].mean())


def score(logits: np.ndarray, labels: np.ndarray, metric: str) -> float:
    """The number that a metric gives to logits, in percent.

    Args:
        logits: (M, classes), M > 0.
        labels: int64 (M,), or uint8 (M, classes) for "map11": the mean of `average_precision` over
            the classes that an image shows.
        metric: One of METRICS.

    Raises:
        ValueError: If shapes do not fit, a logit is NaN, or no image shows a class.
    """
    per_class = count_correct(logits, labels)
    if metric not in RANKED:
        return accuracy(per_class, metric)
    shown = [c for c, (_, total) in enumerate(per_class) if total]
    if labels.ndim != 2 or not shown:
        raise ValueError(f"{metric} needs images that show classes, found labels {labels.shape}")
    points = [average_precision(logits[:, c], labels[:, c] != 0) for c in shown]
    return 100 * sum(points) / len(points)


def make_result(
    judged: Judged, protocol: str, selected_on: str, selection: dict[str, Any], variant: str = ""
) -> dict[str, Any]:
    """One result record.

    Args:
        judged: What was predicted, and where it is stored.
        protocol: "linear", "knn", "transfer" or "fine_tune".
        selected_on: Split on which anything was chosen: "none", "val" or "test".
        selection: What was chosen or fixed, such as {"k": 20}.
        variant: What sets this result apart from the headline, such as "best_of_k".

    Returns:
        Plain JSON types; `value` is in percent. Counts are those of `count_correct`; where images
        show several classes, `value` does not follow from them.
    """
    per_class = count_correct(judged.logits, judged.labels)
    return {
        "task": judged.task,
        "protocol": protocol,
        "variant": variant,
        "metric": judged.metric,
        "value": score(judged.logits, judged.labels, judged.metric),
        "correct": sum(c for c, _ in per_class),
        "total": sum(t for _, t in per_class),
        "per_class": per_class,
        "split": "test",
        "selected_on": selected_on,
        "epoch": judged.epoch,
        "selection": selection,
        "predictions": judged.predictions,
    }


def write_results(path: Path, run: str, results: list[dict[str, Any]]) -> None:
    """Write the results of one run as canonical JSON."""
    document = {"schema_version": SCHEMA, "run": run, "results": results}
    path.write_text(canonical_json(document) + "\n", encoding="utf-8")


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays to an uncompressed npz under exactly this file name."""
    with open(path, "wb") as stream:
        np.savez(stream, **arrays)
