"""Small steps on one thread: there a second one costs more than it saves."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SMALL = 1 << 24  # products of a step, under a millisecond, for which threads do not pay


@contextmanager
def few_threads(products: int) -> Iterator[None]:
    """One thread for steps of few products.

    On a busy machine a step of microseconds then waits for a core, many times per iteration.

    Args:
        products: Multiplications of a step.
    """
    before = torch.get_num_threads()
    if products < SMALL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
