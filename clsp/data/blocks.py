"""Work on a batch of images in blocks that a CPU's caches hold, or all at once on another device.

A CPU spends most of the time of a batch that leaves its caches on waiting for memory, and on asking
the system for it. A GPU is the other way round: it wants few and large kernels, and must not wait
for the host, so that no shape there may depend on what was drawn.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

CACHED = 1 << 17  # numbers per thread: half a megabyte, of the one that a core's second cache has


def in_blocks(images: Tensor) -> bool:
    """Whether a batch is worked on block by block, of whatever size: eagerly on a CPU."""
    return images.device.type == "cpu" and not torch.compiler.is_compiling()


def blocks(count: int, numbers: int) -> Iterator[slice]:
    """Ranges that cover `count` images of so many numbers each."""
    size = max(1, CACHED * torch.get_num_threads() // numbers)
    return (slice(start, start + size) for start in range(0, count, size))


def change(images: Tensor, chosen: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Put what an operation makes of some images in their places.

    Args:
        images: Of a CPU, (B, C, H, W).
        chosen: Which, bool (B,).
        operation: Given images (n, C, H, W) and their numbers in the batch, int64 (n,).
    """
    rows = chosen.nonzero().squeeze(1)
    for block in blocks(len(rows), images[0].numel()):
        some = rows[block]
        images[some] = operation(images[some], some)
