"""Mapped arrays read from their first row to their last, without all of them staying in memory."""

import mmap
from collections.abc import Iterator
from typing import Any

STEP = 4096  # rows; of a bank of CIFAR-10 about 100 MB


def release(*arrays: Any) -> None:
    """Give back the pages of mapped arrays that were read; they can be read again."""
    for array in arrays:
        mapping = getattr(array, "_mmap", None)
        if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


def rows_of(*arrays: Any) -> Iterator[int]:
    """Numbers of the rows of the first array; pages of all arrays are given back on the way."""
    for row in range(len(arrays[0])):
        if row % STEP == 0:
            release(*arrays)
        yield row
    release(*arrays)
