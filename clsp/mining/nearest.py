"""Mutual nearest neighbours among the features of one dataset, block by block.

Cosines are taken in float64 and rounded to float32 before they are compared, so that equal
features give equal cosines whatever order a matrix product adds in, and ties mean something.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from clsp.models import nearest


def neighbours(
    features: Any,
    count: int,
    device: torch.device,
    report: Callable[[int], None] = lambda rows: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest other images of every image; of equally near ones the lowest numbers.

    Args:
        features: (N, F), in memory or mapped.
        count: Neighbours of each, 1 to N - 1.
        device: Where cosines are computed.
        report: See `clsp.models.nearest.neighbours`.

    Returns:
        Numbers of the neighbours, int64 (N, count), increasing, and their cosines, float32.
    """
    cosines, rows = nearest.neighbours(
        features,
        features,
        count,
        device,
        dtype=torch.float64,
        excluded=np.arange(len(features)),  # no image is its own neighbour
        report=report,
    )
    order = rows.argsort(axis=1)
    return np.take_along_axis(rows, order, 1), np.take_along_axis(cosines, order, 1)


def mutual(rows: np.ndarray, cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of images that are among each other's neighbours.

    Args:
        rows: From `neighbours`, (N, count).
        cosines: Of the same shape.

    Returns:
        Left and right numbers, int64 (P,), left < right, sorted by left, then right; and the
        cosines, float32 (P,).
    """
    count = len(rows)
    anchor = np.arange(count).repeat(rows.shape[1])
    other, cosine = rows.ravel(), cosines.ravel()
    # Rows and columns increase, so the codes are sorted already.
    forth, back = anchor * count + other, other * count + anchor
    place = np.searchsorted(forth, back).clip(max=len(forth) - 1)
    kept = (forth[place] == back) & (anchor < other)
    return anchor[kept], other[kept], cosine[kept]
