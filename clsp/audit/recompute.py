"""Accuracy from stored logits, by a second path: numpy only, nothing of training or evaluation.

The same mistake must not sit on both sides of a comparison (audit.md, rule R4), so this file
imports nothing of the suite but what looks at an archive before it is read.
"""

import lzma
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clsp.audit.arrays import check_npz

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
        labels: int (N,); of several classes per image 0 or 1, (N, C).
        rows: int (N,), row of each image in the dataset's arrays.
        logits: float (N, C), or None where only predicted classes are stored.
        predicted: int (D, N), the predicted classes of D draws of training images, or None.
    """

    labels: np.ndarray
    rows: np.ndarray
    logits: np.ndarray | None = None
    predicted: np.ndarray | None = None


@dataclass(frozen=True)
class Score:
    """What the predictions amount to.

    Attributes:
        value: Percent.
        correct: Images predicted correctly, over all draws.
        total: Images, over all draws.
        per_class: [correct, total] of each class.
    """

    value: float
    correct: int
    total: int
    per_class: list[list[int]]


def _read(path: Path, names: dict[str, str]) -> Predictions:
    kinds = [kind for kind in ("logits", "predicted") if names.get(kind)]
    if len(kinds) != 1:
        raise ValueError("the record names neither logits nor predicted classes, or both")
    wanted = {kind: names[kind] for kind in ("labels", "rows", *kinds)}
    check_npz(path)
    with np.load(path, allow_pickle=False) as stored:
        if absent := [name for name in wanted.values() if name not in stored.files]:
            raise ValueError(f"has no array {', '.join(absent)}")
        return Predictions(**{kind: stored[name] for kind, name in wanted.items()})


def _check_logits(found: Predictions) -> None:
    logits, labels = found.logits, found.labels
    if logits.dtype.kind != "f" or logits.ndim != 2:
        raise ValueError(f"logits are {logits.dtype} {logits.shape}")
    if labels.dtype.kind not in "iu" or labels.shape not in (logits.shape[:1], logits.shape):
        raise ValueError(f"labels are {labels.dtype} {labels.shape} for logits {logits.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("logits hold NaN or infinity")


def _check_predicted(found: Predictions) -> None:
    guess, labels = found.predicted, found.labels
    if guess.dtype.kind not in "iu" or guess.ndim != 2 or not len(guess):
        raise ValueError(f"predicted classes are {guess.dtype} {guess.shape}")
    if labels.dtype.kind not in "iu" or labels.shape != guess.shape[1:]:
        raise ValueError(f"labels are {labels.dtype} {labels.shape} for classes {guess.shape}")


def load_predictions(path: Path, names: dict[str, str]) -> Predictions:
    """Read predictions from an npz without unpickling anything.

    Args:
        path: The npz.
        names: Of its arrays: labels, rows, and either logits or predicted.

    Raises:
        ValueError: If the file is no whole npz, or an array is missing, is of a wrong kind or
            shape, or holds NaN or infinity.
        OSError: If the file cannot be read.
    """
    try:
        found = _read(path, names)
    except BROKEN as error:
        raise ValueError(f"not a whole npz file ({error})") from error
    (_check_predicted if found.logits is None else _check_logits)(found)
    if found.rows.dtype.kind not in "iu" or found.rows.shape != found.labels.shape[:1]:
        count = len(found.labels)
        raise ValueError(f"rows are {found.rows.dtype} {found.rows.shape} for {count} images")
    return found


def _guesses(predictions: Predictions, classes: int) -> np.ndarray:
    """Predicted classes (D, N); of equal logits the lowest class index counts."""
    if predictions.predicted is not None:
        return predictions.predicted
    best = predictions.logits.max(axis=1, keepdims=True)
    columns = np.where(predictions.logits == best, np.arange(classes), classes)
    return columns.min(axis=1)[None]


def correct_images(predictions: Predictions) -> np.ndarray:
    """Whether each image of one class is predicted correctly, bool (N,), from its logits."""
    if predictions.logits is None or predictions.labels.ndim != 1:
        raise ValueError("no logits of images with one class each")
    return _guesses(predictions, predictions.logits.shape[1])[0] == predictions.labels


def eleven_points(scores: np.ndarray, positive: np.ndarray) -> float:
    """Average precision of one class at eleven recalls, 0 to 1 (Pascal VOC 2007).

    Images with equal scores are retrieved together.

    Args:
        scores: (N,).
        positive: bool (N,), at least one.

    Returns:
        Between 0 and 1.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # of images with one score
    hits = np.cumsum(positive[order])[ends]
    precision, total = hits / (ends + 1), int(positive.sum())
    return sum(precision[10 * hits >= k * total].max() for k in range(11)) / 11


def _score_ranking(predictions: Predictions) -> Score:
    """Mean average precision over the classes that some image shows."""
    positive = predictions.labels.astype(bool)
    shown = [c for c in range(positive.shape[1]) if positive[:, c].any()]
    if not shown:
        raise ValueError("no image shows any class")
    points = [eleven_points(predictions.logits[:, c], positive[:, c]) for c in shown]
    hit = (predictions.logits > 0) & positive
    per_class = [[int(hit[:, c].sum()), int(n)] for c, n in enumerate(positive.sum(axis=0))]
    return Score(100.0 * sum(points) / len(points), int(hit.sum()), int(positive.sum()), per_class)


def _score_classes(predictions: Predictions, metric: str, classes: int) -> Score:
    labels = predictions.labels
    guess = _guesses(predictions, classes)
    for what, part in (("labels", labels), ("predicted classes", guess)):
        if part.min() < 0 or part.max() >= classes:
            raise ValueError(f"{what} from {part.min()} to {part.max()} for {classes} classes")
    hit = guess == labels  # (D, N)
    per_class = [
        [int(hit[:, labels == c].sum()), int((labels == c).sum()) * len(hit)]
        for c in range(classes)
    ]
    correct, total = int(hit.sum()), hit.size
    if metric == "top1":
        return Score(100.0 * correct / total, correct, total, per_class)
    if metric == "mean_per_class":
        shares = [100.0 * right / count for right, count in per_class if count]
        return Score(sum(shares) / len(shares), correct, total, per_class)
    raise ValueError(f"unknown metric {metric!r}")


def score(predictions: Predictions, metric: str, classes: int | None = None) -> Score:
    """What stored predictions amount to.

    Args:
        predictions: Logits or predicted classes, and labels.
        metric: "top1" (all images alike), "mean_per_class" (all classes that occur alike), or
            "map11" (the mean over classes of the average precision at eleven recalls).
        classes: Of the dataset; None: as many as there are logits.

    Raises:
        ValueError: If the metric is unknown or does not fit, a label is no class, or there is no
            image.
    """
    if not len(predictions.labels):
        raise ValueError("there is no prediction")
    if predictions.logits is not None:
        classes = predictions.logits.shape[1]
    if classes is None:
        raise ValueError("the number of classes is not known")
    if (predictions.labels.ndim == 2) != (metric == "map11"):
        raise ValueError(f"metric {metric!r} does not fit labels {predictions.labels.shape}")
    if metric == "map11":
        return _score_ranking(predictions)
    return _score_classes(predictions, metric, classes)


def mean_and_spread(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (n - 1) of at least one value; none below two."""
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), spread
