"""The quality figures of a bank, from what was measured of each anchor and candidate."""

from dataclasses import dataclass

import numpy as np

from clsp.config.quality import QualitySpec, metrics_of
from clsp.evaluate.frechet import Moments, frechet_distance

SCALE = 255**2  # of a squared difference of uint8 values, to that of pixels in [0, 1]
EQUAL = 2.0**-24  # a cosine nearer to 1 than float32 tells is of equal features


@dataclass(frozen=True)
class Measured:
    """What was measured of M anchors and their first K candidates.

    Attributes:
        rows: The anchors' rows in the training split, int64 (M,).
        others: The row of another, random anchor for each, int64 (M,).
        pixels: Values of an image P.
        own_cosine: Of each candidate's features with its anchor's, float64 (M, K).
        random_cosine: With the other anchor's, float64 (M, K).
        own_squares: Sum of squared differences of uint8 values from its anchor, int64 (M, K).
        random_squares: From the other anchor, int64 (M, K).
        pair_cosine: Of candidates i < j of an anchor, in the order of `pairs_of`, float64 (M, Q).
        pair_squares: The same in pixels, int64 (M, Q).
        nearest_feature: Row of the training image nearest in features, int64 (M, K).
        nearest_cosine: Cosine with it, float64 (M, K).
        neighbour_cosine: Cosine of that image with its own nearest other one, float64 (M, K).
        nearest_pixel: Row of the training image nearest in pixels, int64 (M, K).
        nearest_squares: Squared differences from it, int64 (M, K).
        neighbour_squares: Those of that image from its own nearest other one, int64 (M, K).
        labels: Of the anchors, -1 for unlabelled, int64 (M,); None: no label was read.
        predicted: The probe's class of each candidate, int64 (M, K), or None.
        anchor_predicted: Of each anchor, int64 (M,), or None.
    """

    rows: np.ndarray
    others: np.ndarray
    pixels: int
    own_cosine: np.ndarray
    random_cosine: np.ndarray
    own_squares: np.ndarray
    random_squares: np.ndarray
    pair_cosine: np.ndarray
    pair_squares: np.ndarray
    nearest_feature: np.ndarray
    nearest_cosine: np.ndarray
    neighbour_cosine: np.ndarray
    nearest_pixel: np.ndarray
    nearest_squares: np.ndarray
    neighbour_squares: np.ndarray
    labels: np.ndarray | None = None
    predicted: np.ndarray | None = None
    anchor_predicted: np.ndarray | None = None

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything under the names of its fields, for an npz."""
        found = {name: value for name, value in vars(self).items() if value is not None}
        return {**found, "pixels": np.int64(self.pixels)}


def pairs_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """First and second candidate of every pair i < j; the first k's pairs come first.

    Returns:
        Two int64 (Q,), Q = count (count - 1) / 2, ordered by j, then i.
    """
    second, first = np.tril_indices(count, -1)
    return first, second


def _percent(hits: np.ndarray) -> float:
    return 100.0 * float(hits.mean())


def _apart(cosine: np.ndarray) -> np.ndarray:
    """Euclidean distance of unit features; 0 where their cosine is 1 to rounding."""
    gap = 1 - cosine
    return np.where(gap < EQUAL, 0.0, np.sqrt(2 * np.clip(gap, 0, None)))


def _memorised(
    distance: np.ndarray, neighbour: np.ndarray, share: float
) -> tuple[float | None, np.ndarray]:
    """Median ratio of two distances, and which candidates are near copies.

    Args:
        distance: Of candidates to their nearest training image, float64 (n,), >= 0.
        neighbour: Of that image to its own nearest other one; 0 where it occurs twice.
        share: A candidate below this share of that distance is a near copy; an exact copy is one.

    Returns:
        The median over candidates whose training image occurs once, or None if there is none; and
        bool (n,).
    """
    known = neighbour > 0
    ratio = float(np.median(distance[known] / neighbour[known])) if known.any() else None
    return ratio, (distance < share * neighbour) | (distance == 0)


def _memorisation(found: Measured, k: int, share: float) -> dict[str, float | None]:
    """Whether candidates repeat training images, in features and in pixels.

    Distances are Euclidean: of features of length 1, and of pixels. Near copies of the own anchor,
    which a candidate is drawn to resemble, are told from those of other images, which the denoiser
    can only know by heart.
    """
    numbers: dict[str, float | None] = {}
    angles = found.nearest_cosine, found.neighbour_cosine
    squares = found.nearest_squares, found.neighbour_squares
    for space, rows, distances in (
        ("feature", found.nearest_feature, [_apart(each) for each in angles]),
        ("pixel", found.nearest_pixel, [np.sqrt(each) for each in squares]),
    ):
        own = rows[:, :k] == found.rows[:, None]
        numbers[f"nearest_own_{space}"] = _percent(own)
        ratio, copies = _memorised(*(each[:, :k].ravel() for each in distances), share)
        numbers |= {
            f"distance_ratio_{space}": ratio,
            f"near_copies_{space}": int(copies.sum()),
            f"copies_of_others_{space}": int((copies & ~own.ravel()).sum()),
        }
    return numbers


def numbers_of(
    spec: QualitySpec, found: Measured, k: int, candidates: Moments, training: Moments
) -> dict[str, float | int]:
    """Every number of the anchors' first k candidates that exists, by the names of `metrics_of`.

    Args:
        spec: What is measured.
        found: What was measured.
        k: At most as many candidates as were measured.
        candidates: Moments of the features of the first k candidates of every anchor.
        training: Of all training images.
    """
    scale, pairs = found.pixels * SCALE, k * (k - 1) // 2
    own, other = found.own_cosine[:, :k], found.random_cosine[:, :k]
    near, far = found.own_squares[:, :k], found.random_squares[:, :k]
    numbers: dict[str, float | None] = {
        spec.distance: frechet_distance(candidates, training),
        "own_cosine": float(own.mean()),
        "random_cosine": float(other.mean()),
        "nearer_cosine": _percent(own > other),
        "own_mse": float(near.mean()) / scale,
        "random_mse": float(far.mean()) / scale,
        "nearer_mse": _percent(near < far),
        **_memorisation(found, k, spec.near_copy),
    }
    if pairs:
        numbers["diversity_cosine"] = float((1 - found.pair_cosine[:, :pairs]).mean())
        numbers["diversity_mse"] = float(found.pair_squares[:, :pairs].mean()) / scale
    if found.labels is not None:
        known = found.labels >= 0
        right = found.labels[known]
        numbers["label_agreement"] = _percent(found.predicted[known, :k] == right[:, None])
        numbers["anchor_accuracy"] = _percent(found.anchor_predicted[known] == right)
    return {name: numbers[name] for name in metrics_of(spec, k) if numbers[name] is not None}
