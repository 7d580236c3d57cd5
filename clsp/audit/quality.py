"""Quality figures of a bank from what was stored, by a second path: numpy only.

The same mistake must not sit on both sides of a comparison (audit.md, rule R4), so this file
imports nothing of the suite but how to open an npz that may be damaged.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clsp.audit.arrays import check_npz
from clsp.audit.recompute import BROKEN

Arrays = dict[str, np.ndarray]
WHOLE = ("rows", "others")  # (M,)
SINGLE = (  # (M, K)
    "own_cosine",
    "random_cosine",
    "own_squares",
    "random_squares",
    "nearest_feature",
    "nearest_cosine",
    "neighbour_cosine",
    "nearest_pixel",
    "nearest_squares",
    "neighbour_squares",
)
PAIRS = ("pair_cosine", "pair_squares")  # (M, K (K - 1) / 2)
PROBE = ("labels", "predicted", "anchor_predicted")
MOMENTS = ("mean", "covariance")
ROUNDED = 2.0**-24
LARGEST = 255.0**2  # of a squared difference, to that of pixels in [0, 1]
Read = Iterator[tuple[str, float]]


def load_measured(path: Path, anchors: int, k: int, probed: bool) -> Arrays:
    """Read what was stored of a bank without unpickling anything.

    Args:
        path: The npz.
        anchors: M.
        k: Candidates of each anchor K.
        probed: Whether a probe looked at them.

    Raises:
        ValueError: If the file is no whole npz, or an array is missing, is of another shape, or
            holds NaN or infinity.
        OSError: If the file cannot be read.
    """
    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
    except BROKEN as error:
        raise ValueError(f"not a whole npz file ({error})") from error
    shapes = dict.fromkeys(WHOLE, (anchors,)) | dict.fromkeys(SINGLE, (anchors, k))
    shapes |= dict.fromkeys(PAIRS, (anchors, k * (k - 1) // 2)) | {"pixels": ()}
    if probed:
        shapes |= {"labels": (anchors,), "predicted": (anchors, k), "anchor_predicted": (anchors,)}
    elif read := [name for name in PROBE if name in found]:
        raise ValueError(f"holds {', '.join(read)}, although no label may be read")
    for name, shape in shapes.items():
        if name not in found or found[name].shape != shape:
            there = found[name].shape if name in found else "none"
            raise ValueError(f"{name}: expected shape {shape}, found {there}")
    for name, array in found.items():
        if array.dtype.kind not in "iuf" or not np.isfinite(array).all():
            raise ValueError(f"{name}: holds {array.dtype} that are not all finite numbers")
    return found


def frechet(
    mean: np.ndarray, covariance: np.ndarray, other: np.ndarray, spread: np.ndarray
) -> float:
    """Squared Frechet distance, through the symmetric root of one covariance."""
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ spread @ root), 0, None)).sum()
    gap = mean - other
    return float(gap @ gap + np.trace(covariance) + np.trace(spread) - 2 * cross)


def _repeated(found: Arrays, k: int, share: float) -> Read:
    """Numbers about memorisation; distances are those of unit features, and of pixels."""
    for space, near, own in (
        ("feature", "nearest_cosine", "neighbour_cosine"),
        ("pixel", "nearest_squares", "neighbour_squares"),
    ):
        rows = found[f"nearest_{space}"][:, :k]
        yield f"nearest_own_{space}", 100.0 * np.mean(rows == found["rows"].reshape(-1, 1))
        pair = [found[name][:, :k].astype(np.float64).reshape(-1) for name in (near, own)]
        if space == "feature":  # equal ones have a cosine of 1, but for rounding
            pair = [np.where(each > 1.0 - ROUNDED, 0.0, 2.0 - 2.0 * each) for each in pair]
        distance, yardstick = (each**0.5 for each in pair)
        copies = np.logical_or(distance < share * yardstick, distance == 0)
        yield f"near_copies_{space}", float(np.count_nonzero(copies))
        foreign = copies.reshape(rows.shape)[rows != found["rows"].reshape(-1, 1)]
        yield f"copies_of_others_{space}", float(np.count_nonzero(foreign))
        usable = yardstick > 0
        if usable.any():
            yield f"distance_ratio_{space}", float(np.median(distance[usable] / yardstick[usable]))


def _alike(found: Arrays, k: int) -> Read:
    scale = LARGEST * float(found["pixels"])
    own, other = found["own_cosine"][:, :k], found["random_cosine"][:, :k]
    yield "own_cosine", float(np.mean(own))
    yield "random_cosine", float(np.mean(other))
    yield "nearer_cosine", 100.0 * np.mean(own > other)
    own, other = found["own_squares"][:, :k], found["random_squares"][:, :k]
    yield "own_mse", float(np.mean(own)) / scale
    yield "random_mse", float(np.mean(other)) / scale
    yield "nearer_mse", 100.0 * np.mean(own < other)
    if k > 1:  # pairs come in the order (0, 1), (0, 2), (1, 2), (0, 3), ...
        pairs = sum(range(k))
        yield "diversity_cosine", 1.0 - float(np.mean(found["pair_cosine"][:, :pairs]))
        yield "diversity_mse", float(np.mean(found["pair_squares"][:, :pairs])) / scale


def _seen(found: Arrays, k: int) -> Read:
    if "labels" in found:
        known = found["labels"] >= 0
        right = found["labels"][known]
        hits = found["predicted"][known][:, :k] == right.reshape(-1, 1)
        yield "label_agreement", 100.0 * np.mean(hits)
        yield "anchor_accuracy", 100.0 * np.mean(found["anchor_predicted"][known] == right)


def recompute_numbers(found: Arrays, k: int, share: float, distance: str) -> dict[str, float]:
    """Every number of the first k candidates.

    Args:
        found: From `load_measured`.
        k: At most K.
        share: Below which a ratio of distances makes a near copy.
        distance: What the Frechet distance is called.

    Raises:
        KeyError, ValueError: If means or covariances are missing or do not fit each other.
    """
    moments = [found[f"{part}.{of}"] for of in (f"k{k}", "training") for part in MOMENTS]
    numbers = {distance: frechet(*moments)}
    return numbers | dict([*_alike(found, k), *_repeated(found, k, share), *_seen(found, k)])


def size_of_moments(found: Arrays, k: int) -> float:
    """The scale on which a Frechet distance is exact: the traces of its covariances."""
    return float(np.trace(found[f"covariance.k{k}"]) + np.trace(found["covariance.training"]))
