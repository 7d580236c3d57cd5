"""How far the choice of test images alone may move a difference, from stored predictions.

Images are drawn anew, both sides on the same ones, and seeds are held: noise of another kind than
that between seeds, told beside it and never added to it (audit.md 3.2).
"""

from typing import Any

import numpy as np

from clsp.audit.finding import Number
from clsp.audit.recompute import correct_images, load_predictions
from clsp.audit.suite import Suite

DRAWS = 10_000
MALFORMED = (OSError, ValueError, KeyError, TypeError, EOFError)

Noise = dict[str, float | int]


def paired_bootstrap(left: np.ndarray, right: np.ndarray, draws: int = DRAWS) -> Noise:
    """Percentile interval of a difference over test images, in points.

    Args:
        left: Whether each run predicts each image correctly, bool (runs, N).
        right: The same of the other side, bool (its runs, N).
        draws: Resamples.

    Returns:
        Number of images, standard error, and both ends of the two-sided 95 % interval.
    """
    gaps, counts = np.unique(left.mean(axis=0) - right.mean(axis=0), return_counts=True)
    images = int(counts.sum())
    # Drawing N images and counting how often each gap occurs is one draw from a multinomial.
    generator = np.random.default_rng(0)
    means = 100 * (generator.multinomial(images, counts / images, draws) @ gaps) / images
    low, high = np.quantile(means, [0.025, 0.975])
    error = round(float(means.std()), 10)
    return {"images": images, "error": error, "low": round(low, 10), "high": round(high, 10)}


def _side(suite: Suite, runs: list[str], record: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Correctness (runs, N) and rows (N,) of the images, in one order."""
    hits, seen = [], None
    for run in runs:
        number = Number(run, record["task"], record["protocol"], record["variant"])
        probe, told = suite.told[number]
        names = told["predictions"]
        found = load_predictions(probe.folder / names["file"], names)
        if told["metric"] != "top1" or (seen is not None and not np.array_equal(seen, found.rows)):
            raise ValueError("other images, or a metric that is no share of them")
        seen = found.rows
        hits.append(correct_images(found))
    return np.array(hits), seen


def image_noise(suite: Suite, record: dict[str, Any]) -> Noise | None:
    """That of one verdict on a difference; None where its predictions do not allow it."""
    runs = record.get("left_runs") or [], record.get("right_runs") or []
    if not all(runs):
        return None
    try:
        (left, seen), (right, other) = (_side(suite, of, record) for of in runs)
    except MALFORMED:  # A19 reports it
        return None
    return paired_bootstrap(left, right) if np.array_equal(seen, other) else None
