"""Threads that decode images: PIL releases the interpreter lock while it works.

Results never depend on their number, because every image is decoded on its own and kept in order.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from clsp.runtime.errors import ConfigError

VARIABLE = "CLSP_DECODE_THREADS"
MOST = 16  # threads, where the variable does not say otherwise

Result = TypeVar("Result")


def threads() -> int:
    """As many as $CLSP_DECODE_THREADS says; else one for each CPU of this process, up to MOST.

    OMP_NUM_THREADS plays no part: it bounds the arithmetic of a job, and one thread cannot decode
    as fast as a GPU trains.

    Raises:
        ConfigError: If the variable is no positive number.
    """
    given = os.environ.get(VARIABLE)
    if given is None:
        return min(MOST, len(os.sched_getaffinity(0)))
    if not given.isdecimal() or int(given) == 0:
        raise ConfigError(f'{VARIABLE}: expected a positive number, found "{given}"')
    return int(given)


@cache
def _pool(size: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(size, thread_name_prefix="decode")


def submit(work: Callable[..., Result], *arguments: Any) -> "Future[Result]":
    """Begin one piece of work in the background; it must not wait for another."""
    return _pool(threads()).submit(work, *arguments)


def each(work: Callable[[Any], Result], items: Iterable[Any]) -> Iterator[Result]:
    """Results for all items, in their order."""
    return _pool(threads()).map(work, items)
