"""The nearest of many images, in features and in pixels, in bounded memory."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from clsp.models.features import Images
from clsp.runtime.progress import Progress

LARGEST = 2048  # images of a block
NUMBERS = 1 << 24  # of a block of images: 128 MiB in float64
# Keys stay on the device while all queries pass by, which are read once for every such block: the
# larger it is, the less is read. 512 MiB in float64 on a CPU, 8 GiB on a GPU that has the room.
MOST_HELD = 16384
HELD = {"cpu": 1 << 26, "cuda": 1 << 30}


def _moved(block: np.ndarray, device: torch.device) -> Tensor:
    """A block on the device as it is stored, an eighth or a half of what it is in float64."""
    return torch.from_numpy(np.array(block)).to(device)


class Space(Protocol):
    """How images are compared."""

    def prepare(self, block: np.ndarray, device: torch.device) -> Tensor:
        """What is compared, (B, ...) in float64 on the device."""

    def compare(self, one: Tensor, other: Tensor) -> Tensor:
        """Lower is nearer, (B, T)."""


class Features:
    """By the angle between features.

    Cosines are rounded to float32 before they are compared, so that equal features tie whatever
    order a matrix product adds in.
    """

    def prepare(self, block: np.ndarray, device: torch.device) -> Tensor:
        """Features of length 1, float64 (B, F)."""
        return functional.normalize(_moved(block, device).double(), dim=1)

    def compare(self, one: Tensor, other: Tensor) -> Tensor:
        """Negative cosines, float32 (B, T)."""
        return -(one @ other.T).float()


class Pixels:
    """By the sum of squared differences of uint8 values: whole numbers, exact in float64."""

    def prepare(self, block: np.ndarray, device: torch.device) -> Tensor:
        """Pixels in rows, float64 (B, P)."""
        return _moved(block, device).flatten(1).double()

    def compare(self, one: Tensor, other: Tensor) -> Tensor:
        """Sums of squared differences, float64 (B, T)."""
        squares = (one * one).sum(1)[:, None] + (other * other).sum(1)
        return squares.addmm(one, other.T, alpha=-2)


@dataclass(frozen=True)
class Rows:
    """Some rows of features or images, read when they are asked for."""

    source: Images | np.ndarray
    rows: np.ndarray  # int64 (n,)

    @property
    def shape(self) -> tuple[int, ...]:
        """(n, ...)."""
        return (len(self.rows), *self.source.shape[1:])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: slice) -> np.ndarray:
        """A block of them."""
        return self.source[self.rows[key]]


def block_of(images: Any) -> int:
    """Images of a block, so that memory grows neither with their number nor with their size."""
    return max(1, min(LARGEST, NUMBERS // int(np.prod(images.shape[1:]))))


def held_of(keys: Any, device: torch.device) -> int:
    """Keys that stay on the device together."""
    numbers = HELD[device.type]
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        numbers = min(numbers, free // 32)  # a quarter of it, 8 bytes each
    return max(1, min(MOST_HELD, numbers // int(np.prod(keys.shape[1:]))))


def nearest(
    queries: Any,
    keys: Any,
    space: Space,
    device: torch.device,
    excluded: np.ndarray | None = None,
    block: int | None = None,
    label: str = "",
) -> np.ndarray:
    """The nearest key of every query; of equally near ones the first.

    Args:
        queries: (Q, ...), read block by block.
        keys: (N, ...), each read once.
        space: What near means.
        device: Where distances are computed.
        excluded: A key that each query may not find, int64 (Q,).
        block: Images of a block; without it, as many as NUMBERS and HELD allow.
        label: What the progress line says; none without it.

    Returns:
        Rows of keys, int64 (Q,).
    """
    step, held_step = block or block_of(keys), block or held_of(keys, device)
    passes = -(-len(keys) // held_step)
    best, rows = np.full(len(queries), np.inf), np.full(len(queries), -1, np.int64)
    with Progress(label, passes * len(queries), "image") if label else nullcontext() as progress:
        for start in range(0, len(keys), held_step):
            held = space.prepare(keys[start : start + held_step], device)
            for first in range(0, len(queries), step):
                part = slice(first, first + step)
                found = space.compare(space.prepare(queries[part], device), held)  # (B, T)
                if excluded is not None:
                    own = torch.from_numpy(excluded[part] - start).to(device)
                    inside = ((own >= 0) & (own < len(held))).nonzero()[:, 0]
                    found[inside, own[inside]] = torch.inf
                place = found.argmin(dim=1)  # the first of equal ones
                value = found.gather(1, place[:, None])[:, 0].double().cpu().numpy()
                better = value < best[part]
                best[part][better] = value[better]
                rows[part][better] = start + place.cpu().numpy()[better]
                if progress is not None:
                    progress.step(len(value))
    return rows


def _pairs(
    one: Sequence[Any], other: Sequence[Any], measure: Callable[..., np.ndarray], dtype: type
) -> np.ndarray:
    step = min(block_of(one), block_of(other))
    starts = range(0, len(one), step)
    parts = [measure(one[at : at + step], other[at : at + step]) for at in starts]
    return np.concatenate([np.empty(0, dtype), *parts])


def cosines(one: Any, other: Any) -> np.ndarray:
    """Cosine of every row of features with the same row of others, float64 (n,) in [-1, 1]."""

    def measure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        inner = np.einsum("nf,nf->n", a, b)
        return np.clip(inner / np.where(length > 0, length, 1.0), -1.0, 1.0)

    return _pairs(one, other, measure, np.float64)


def squared_differences(one: Any, other: Any) -> np.ndarray:
    """Sum over the pixels of every image of its squared differences from another, int64 (n,)."""

    def measure(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        gap = np.asarray(a).astype(np.int64) - np.asarray(b)
        return (gap * gap).reshape(len(gap), -1).sum(axis=1)

    return _pairs(one, other, measure, np.int64)
