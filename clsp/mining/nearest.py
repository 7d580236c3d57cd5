"""Mutual nearest neighbours among the features of one dataset, block by block.

Cosines are taken in float64 and rounded to float32 before they are compared, so that equal
features give equal cosines whatever order a matrix product adds in, and ties mean something.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

BLOCK = 1 << 23  # cosines held at a time: 64 MiB in float64


def unit(features: Tensor) -> Tensor:
    """Features of length 1 in float64, (N, F); one that is 0 throughout stays so."""
    return functional.normalize(features.double(), dim=1)


def highest(values: Tensor, count: int) -> Tensor:
    """Columns of the largest values of each row; of equal values the lower columns win.

    Args:
        values: (B, N).
        count: How many per row, 1 to N.

    Returns:
        int64 (B, count), increasing columns.
    """
    least = values.topk(count, dim=1).values[:, -1:]  # (B, 1)
    above, level = values > least, values == least
    room = count - above.sum(1, keepdim=True)
    chosen = above | (level & (level.cumsum(1) <= room))
    return chosen.nonzero()[:, 1].reshape(len(values), count)


def neighbours(
    units: Tensor, count: int, report: Callable[[int], None] = lambda rows: None
) -> tuple[Tensor, Tensor]:
    """The nearest other images of every image.

    Memory grows with N * F and N * count; the N * N cosines are never held at once.

    Args:
        units: Features of length 1, (N, F).
        count: Neighbours of each, 1 to N - 1.
        report: Called with the number of rows done after every block.

    Returns:
        Numbers of the neighbours, int64 (N, count), increasing, and their cosines, float32.
    """
    rows, cosines = [], []
    step = max(1, BLOCK // len(units))
    for start in range(0, len(units), step):
        block = (units[start : start + step] @ units.T).float()  # (B, N)
        own = torch.arange(len(block), device=units.device)
        block[own, start + own] = -torch.inf  # no image is its own neighbour
        rows.append(highest(block, count))
        cosines.append(block.gather(1, rows[-1]))
        report(len(block))
    return torch.cat(rows), torch.cat(cosines)


def mutual(rows: Tensor, cosines: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of images that are among each other's neighbours.

    Args:
        rows: From `neighbours`, (N, count).
        cosines: Of the same shape.

    Returns:
        Left and right numbers, int64 (P,), left < right, sorted by left, then right; and the
        cosines, float32 (P,).
    """
    count = len(rows)
    anchor = torch.arange(count, device=rows.device).repeat_interleave(rows.shape[1])
    other, cosine = rows.flatten(), cosines.flatten()
    # Rows and columns increase, so the codes are sorted already.
    forth, back = anchor * count + other, other * count + anchor
    place = torch.searchsorted(forth, back).clamp(max=len(forth) - 1)
    kept = (forth[place] == back) & (anchor < other)
    return anchor[kept], other[kept], cosine[kept]
