"""Accuracy from stored logits, by a second path: numpy only, nothing of training or evaluation.

The same mistake must not sit on both sides of a comparison (audit.md, rule R4), so this file
imports nothing of the suite.
"""

import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

BROKEN = (  # what zipfile and numpy raise for damaged archives, besides OSError and ValueError
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
)


@dataclass(frozen=True)
class Predictions:
    """Stored predictions of one protocol.

    Attributes:
        logits: float (N, C).
        labels: int (N,).
        rows: int (N,), row of each image in the dataset's arrays.
    """

    logits: np.ndarray
    labels: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Score:
    """What the predictions amount to.

    Attributes:
        value: Percent.
        correct: Images predicted correctly.
        total: Images.
        per_class: [correct, total] of each class.
    """

    value: float
    correct: int
    total: int
    per_class: list[list[int]]


def _read(path: Path, names: tuple[str, str, str]) -> Predictions:
    with np.load(path, allow_pickle=False) as stored:
        if absent := [name for name in names if name not in stored.files]:
            raise ValueError(f"has no array {', '.join(absent)}")
        return Predictions(*(stored[name] for name in names))


def load_predictions(path: Path, logits: str, labels: str, rows: str) -> Predictions:
    """Read predictions from an npz without unpickling anything.

    Raises:
        ValueError: If the file is no whole npz, or an array is missing, is of a wrong kind or
            shape, or holds NaN or infinity.
        OSError: If the file cannot be read.
    """
    try:
        found = _read(path, (logits, labels, rows))
    except BROKEN as error:
        raise ValueError(f"not a whole npz file ({error})") from error
    if found.logits.dtype.kind != "f" or found.logits.ndim != 2:
        raise ValueError(f"logits are {found.logits.dtype} {found.logits.shape}")
    count = (len(found.logits),)
    for name, array in (("labels", found.labels), ("rows", found.rows)):
        if array.dtype.kind not in "iu" or array.shape != count:
            raise ValueError(f"{name} are {array.dtype} {array.shape} for {count[0]} logits")
    if not np.isfinite(found.logits).all():
        raise ValueError("logits hold NaN or infinity")
    return found


def score(predictions: Predictions, metric: str) -> Score:
    """Accuracy of stored predictions; of equal logits the lowest class index counts.

    Args:
        predictions: Logits and labels.
        metric: "top1" (all images alike) or "mean_per_class" (all classes that occur alike).

    Raises:
        ValueError: If the metric is unknown, a label is no class, or there is no image.
    """
    labels, classes = predictions.labels, predictions.logits.shape[1]
    if not len(labels):
        raise ValueError("there is no prediction")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels from {labels.min()} to {labels.max()} for {classes} classes")
    best = predictions.logits.max(axis=1, keepdims=True)
    columns = np.arange(classes)
    guess = np.where(predictions.logits == best, columns, classes).min(axis=1)
    hit = guess == labels
    per_class = [[int(hit[labels == c].sum()), int((labels == c).sum())] for c in columns]
    correct, total = int(hit.sum()), len(labels)
    if metric == "top1":
        return Score(100.0 * correct / total, correct, total, per_class)
    if metric == "mean_per_class":
        shares = [100.0 * right / count for right, count in per_class if count]
        return Score(sum(shares) / len(shares), correct, total, per_class)
    raise ValueError(f"unknown metric {metric!r}")


def mean_and_spread(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) of at least one value; none below two."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), spread
