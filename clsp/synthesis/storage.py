"""Image arrays on disk that are filled piece by piece."""

import os
from pathlib import Path

import numpy as np


def reserve_images(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """Create a uint8 .npy file of a shape with all its space taken, and map it for writing.

    Without the space a full disk would end the process by a signal in the middle of a write.

    Raises:
        OSError: If the disk cannot hold the array.
    """
    images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    with open(path, "r+b") as stream:
        os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
    return images
