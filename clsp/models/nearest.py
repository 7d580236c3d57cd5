"""The nearest features of a bank by cosine, exactly, in memory that does not grow with the bank.

The bank is read once, block by block, and every query keeps the best it has met. So memory is
one block of the bank, one of cosines, and M * count numbers for the result.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

NUMBERS = 1 << 24  # of a block of the bank: 64 MiB in float32
COSINES = 1 << 24  # held at a time: 64 MiB in float32
# Queries of a block are a multiple of this. Matrix products take the last few rows of an odd number
# another way, with other rounding: the result would depend on the size of the block.
ALIGNED = 64


def unit(features: Tensor) -> Tensor:
    """Features of length 1, (N, F); one that is 0 throughout stays so."""
    return functional.normalize(features, dim=1)


def highest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The largest values of each row; of equal values the lower columns win and come first.

    Args:
        values: (B, N).
        count: How many per row, 1 to N.

    Returns:
        Values (B, count), largest first, and their columns, int64 (B, count).
    """
    # One more than asked for shows where equal values are on both sides of the border: there the
    # library may have left out lower columns.
    found = values.topk(min(count + 1, values.shape[1]), dim=1)
    columns = found.indices[:, :count].clone()
    tied = (found.values[:, count - 1] == found.values[:, -1]).nonzero()[:, 0]
    if found.values.shape[1] > count and len(tied):
        columns[tied] = _lowest_columns(values[tied], found.values[tied, count - 1, None], count)
    columns = columns.sort(dim=1).values
    ordered = values.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return ordered.values, columns.gather(1, ordered.indices)


def _lowest_columns(values: Tensor, least: Tensor, count: int) -> Tensor:
    """Columns above `least` (B, 1), and as many of those equal to it, from the lowest on."""
    above, level = values > least, values == least
    room = count - above.sum(1, keepdim=True)
    chosen = above | (level & (level.cumsum(1) <= room))
    return chosen.nonzero()[:, 1].reshape(len(values), count)


def _block(features: Any, part: slice, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Some features, off the map, on the device, of length 1."""
    return unit(torch.from_numpy(np.array(features[part])).to(device).to(dtype))


def _hide(cosines: Tensor, excluded: np.ndarray, start: int) -> None:
    """Make one bank row of each query the farthest, if it is among the columns from `start`."""
    own = torch.from_numpy(excluded - start).to(cosines.device)
    inside = ((own >= 0) & (own < cosines.shape[1])).nonzero()[:, 0]
    cosines[inside, own[inside]] = -torch.inf


def _meet(
    asked: Tensor,
    held: Tensor,
    start: int,
    known: tuple[np.ndarray, np.ndarray],
    excluded: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest of those known (B, count) and of a block of the bank that begins at `start`."""
    found = (asked @ held.T).float()  # (B, T)
    if excluded is not None:
        _hide(found, excluded, start)
    count = known[0].shape[1]
    values, places = highest(found, min(count, len(held)))
    # What was met before stands first, and has lower rows.
    values = torch.cat([torch.from_numpy(known[0]).to(found.device), values], 1)
    places = torch.cat([torch.from_numpy(known[1]).to(found.device), places + start], 1)
    order = values.sort(dim=1, descending=True, stable=True)
    rows = places.gather(1, order.indices[:, :count])
    return order.values[:, :count].cpu().numpy(), rows.cpu().numpy()


@torch.no_grad()
def neighbours(
    bank: Any,
    queries: Any,
    count: int,
    device: torch.device,
    *,
    dtype: torch.dtype = torch.float32,
    excluded: np.ndarray | None = None,
    report: Callable[[int], None] = lambda queries: None,
) -> tuple[np.ndarray, np.ndarray]:
    """The nearest bank features of each query; of equally near ones the lowest row wins.

    Args:
        bank: Features (N, F), in memory, mapped, or anything that is sliced into arrays.
        queries: Features (M, F), the same; read once for every block of the bank.
        count: How many, 1 to N; below N if a row is excluded.
        device: Where cosines are computed.
        dtype: In which they are computed. They are compared as float32: in float64, equal features
            are equally near whatever order a product adds in.
        excluded: A bank row that each query may not find, int64 (M,).
        report: Called with the number of queries after every block of them, in every pass over
            them: there is one for each block of the bank.

    Returns:
        Cosines float32 (M, count), largest first, and rows of the bank, int64 (M, count).
    """
    cosines = np.full((len(queries), count), -np.inf, np.float32)
    rows = np.full((len(queries), count), -1, np.int64)
    held_step = bank_block(bank)
    step = max(ALIGNED, COSINES // held_step // ALIGNED * ALIGNED)
    for start in range(0, len(bank), held_step):
        held = _block(bank, slice(start, start + held_step), device, dtype)  # (T, F)
        for first in range(0, len(queries), step):
            part = slice(first, first + step)
            asked = _block(queries, part, device, dtype)  # (B, F)
            hidden = None if excluded is None else excluded[part]
            cosines[part], rows[part] = _meet(
                asked, held, start, (cosines[part], rows[part]), hidden
            )
            report(len(asked))
        del held  # before the next block is made
    return cosines, rows


def bank_block(bank: Any) -> int:
    """Features of a block of a bank (N, F)."""
    return max(1, min(len(bank), NUMBERS // bank.shape[1]))
