"""Rows of a large uint8 array: on the device where they fit, else read in the background.

Either way the same bytes arrive, so where they come from never changes a result.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clsp.runtime.device import to_device

# Arrays up to this size are kept whole in the memory of a CPU; a GPU gives a quarter of what is
# free. Larger ones stay in the file that maps them, and each batch is read from it.
RESIDENT_BYTES = 2 << 30
SHARE = 4


def fits(size: int, device: torch.device) -> bool:
    """Whether so many bytes may stay on a device for the whole run."""
    if device.type != "cuda":
        return size <= RESIDENT_BYTES
    return size * SHARE <= torch.cuda.mem_get_info(device)[0]


def put(values: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; on its way there the host does not wait."""
    return values if values.device.type == device.type else to_device(values, device)


@cache
def _reader() -> ThreadPoolExecutor:
    """One thread for all that is read: a disk gains nothing from more, and order is kept."""
    return ThreadPoolExecutor(1, thread_name_prefix="read")


def read_ahead(images: np.ndarray, place: Any, device: torch.device) -> Callable[[], Tensor]:
    """Begin to read part of an array in the background, and to copy it to a device.

    Args:
        images: uint8, mapped into memory; the part that is read is all that is copied of it.
        place: What to read, as numpy indexes it.
        device: Where it is wanted.

    Returns:
        What waits for it: uint8, of the shape that numpy gives.
    """

    def read() -> Tensor:
        found = torch.from_numpy(images[place])
        return found.pin_memory() if device.type == "cuda" else found

    coming = _reader().submit(read)
    return lambda: coming.result().to(device, non_blocking=True)
