"""Which images a limit keeps (D16)."""

import numpy as np


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
