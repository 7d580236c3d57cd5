"""Accuracy from logits, and the record in which it is reported (audit.md 2.2, records 10, 11)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clsp.runtime.canonical import canonical_json

METRICS = ("top1", "mean_per_class")
SCHEMA = 1


@dataclass(frozen=True)
class Judged:
    """Predictions of one protocol on one test split, as they are stored.

    Attributes:
        task: Name of the dataset.
        metric: "top1" or "mean_per_class".
        epoch: Last epoch of the encoder's pretraining.
        logits: float32 (M, classes); the stored bytes decide the number, not what preceded them.
        labels: int64 (M,).
        predictions: Where they are stored: file name, and the names of the arrays in it.
    """

    task: str
    metric: str
    epoch: int
    logits: np.ndarray
    labels: np.ndarray
    predictions: dict[str, str]


def count_correct(logits: np.ndarray, labels: np.ndarray) -> list[list[int]]:
    """Correct and total predictions of each class.

    Args:
        logits: (M, classes); the prediction is the largest, and of equal ones the lowest index.
        labels: int64 (M,).

    Returns:
        One [correct, total] per class; [0, 0] for a class without a test image.

    Raises:
        ValueError: If shapes do not fit or a logit is NaN.
    """
    if logits.shape[:1] != labels.shape or logits.ndim != 2:
        raise ValueError(f"logits {logits.shape} do not fit labels {labels.shape}")
    if np.isnan(logits).any():
        raise ValueError("a logit is NaN")
    classes = logits.shape[1]
    hits = labels[logits.argmax(1) == labels]
    correct, total = np.bincount(hits, minlength=classes), np.bincount(labels, minlength=classes)
    return [[int(c), int(t)] for c, t in zip(correct, total, strict=True)]


def accuracy(per_class: list[list[int]], metric: str) -> float:
    """Accuracy in percent from the counts of each class.

    Args:
        per_class: From `count_correct`, with at least one test image.
        metric: "top1": all images weigh the same. "mean_per_class": all classes that have a test
            image weigh the same.

    Raises:
        ValueError: If the metric is unknown.
    """
    if metric == "top1":
        return 100 * sum(c for c, _ in per_class) / sum(t for _, t in per_class)
    if metric == "mean_per_class":
        shares = [100 * c / t for c, t in per_class if t]
        return sum(shares) / len(shares)
    raise ValueError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")


def make_result(
    judged: Judged, protocol: str, selected_on: str, selection: dict[str, Any], variant: str = ""
) -> dict[str, Any]:
    """One result record.

    Args:
        judged: What was predicted, and where it is stored.
        protocol: "linear", "knn" or "transfer".
        selected_on: Split on which anything was chosen: "none", "val" or "test".
        selection: What was chosen or fixed, such as {"k": 20}.
        variant: What sets this result apart from the headline, such as "best_of_k".

    Returns:
        Plain JSON types; `value` is in percent.
    """
    per_class = count_correct(judged.logits, judged.labels)
    return {
        "task": judged.task,
        "protocol": protocol,
        "variant": variant,
        "metric": judged.metric,
        "value": accuracy(per_class, judged.metric),
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
