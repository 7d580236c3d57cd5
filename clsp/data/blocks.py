"""Work on a batch of images in blocks that a CPU's caches hold, or all at once on another device.

A CPU spends most of the time of a batch that leaves its caches on waiting for memory, and on asking
the system for it. So each thread takes block after block, and works on it alone: threads that met
at the end of every small operation would mostly wait for each other. Results do not depend on how
many there are. A GPU is the other way round: it wants few and large kernels, and must not wait for
the host, so that no shape there may depend on what was drawn.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import torch
from torch import Tensor

CACHED = 1 << 17  # numbers in a block: half a megabyte, of the one that a core's second cache has

Operation = Callable[[Tensor, Tensor], Tensor]


def in_blocks(images: Tensor) -> bool:
    """Whether a batch is worked on block by block, of whatever size: eagerly on a CPU."""
    return images.device.type == "cpu" and not torch.compiler.is_compiling()


def blocks(count: int, numbers: int) -> Iterator[slice]:
    """Ranges that cover `count` images of so many numbers each."""
    size = max(1, CACHED // numbers)
    return (slice(start, min(count, start + size)) for start in range(0, count, size))


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    """Threads whose operations are not shared among further threads."""
    return ThreadPoolExecutor(size, "views", initializer=torch.set_num_threads, initargs=(1,))


def _in_mode(inference: bool, work: Callable[..., object], given: object) -> None:
    with torch.inference_mode(inference):
        work(given)


def work_through(work: Callable[..., object], parts: Iterable[object]) -> None:
    """Do a piece of work for each part, on as many threads as torch may use here."""
    threads = torch.get_num_threads()
    if threads == 1:
        for part in parts:
            work(part)
        return
    ours = partial(_in_mode, torch.is_inference_mode_enabled(), work)  # each thread has its own
    for _ in _pool(threads).map(ours, parts):
        pass


def change(images: Tensor, groups: Iterable[tuple[Tensor, Operation]]) -> None:
    """Put what operations make of some images in their places.

    Args:
        images: Of a CPU, (B, C, H, W).
        groups: Numbers of images, int64 (n,), no image in two groups; and an operation that is
            given some of them, (m, C, H, W), and their numbers, int64 (m,).
    """

    def work(part: tuple[Tensor, Operation]) -> None:
        rows, operation = part
        images[rows] = operation(images[rows], rows)

    numbers = images[0].numel() if len(images) else 1
    work_through(
        work,
        ((rows[block], each) for rows, each in groups for block in blocks(len(rows), numbers)),
    )
