"""Which images a limit keeps (D16)."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from clsp.data.catalog import UNLABELLED, Item


def strata(items: Sequence[Item]) -> np.ndarray:
    """What a limit is drawn evenly by: the class; images without a label are one more.

    Of several classes of an image, the one that the fewest images show: common classes come along
    with rare ones, not the other way round.

    Args:
        items: Of one split.

    Returns:
        int64 (N,).
    """
    shown = [item.label if isinstance(item.label, tuple) else (item.label,) for item in items]
    counts = Counter(label for labels in shown for label in labels)
    return np.array(
        [min(labels, key=lambda n: (counts[n], n), default=UNLABELLED) for labels in shown],
        dtype=np.int64,
    )


def _quotas(sizes: np.ndarray, limit: int) -> np.ndarray:
    """Shares that are as even as the class sizes allow and add up to min(limit, all)."""
    quotas = np.zeros(len(sizes), dtype=np.int64)
    left = min(limit, int(sizes.sum()))
    while left:
        open_classes = np.flatnonzero(quotas < sizes)
        share = max(1, left // len(open_classes))
        for label in open_classes:
            taken = min(share, int(sizes[label] - quotas[label]), left)
            quotas[label] += taken
            left -= taken
    return quotas


def evenly(labels: np.ndarray, limit: int | None) -> np.ndarray:
    """Choose at most `limit` rows, evenly by class and evenly spaced within each class.

    Spacing, not chance: a class stored in groups keeps some of each group, and no seed is needed.

    Args:
        labels: int64 (N,).
        limit: Rows to keep; None keeps all.

    Returns:
        int64 (M,), increasing rows.
    """
    if limit is None or limit >= len(labels):
        return np.arange(len(labels))
    classes, sizes = np.unique(labels, return_counts=True)
    kept = []
    for label, size, quota in zip(classes, sizes, _quotas(sizes, limit), strict=True):
        rows = np.flatnonzero(labels == label)
        kept.append(rows[np.arange(quota) * size // max(quota, 1)])
    return np.sort(np.concatenate(kept))
