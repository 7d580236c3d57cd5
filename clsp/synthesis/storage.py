"""Arrays on disk that are filled piece by piece, without holding or mapping them."""

import mmap
import os
from pathlib import Path
from types import TracebackType

import numpy as np

from clsp.data.prepared import Images, Prepared, open_images, open_prepared
from clsp.runtime.manifest import Artefact

UNLABELLED = np.int64(-1)


class ArrayFile:
    """An .npy file of known shape, written a run of rows at a time.

    It is written as a file, not through a mapping, whose pages would count as memory of the job.
    """

    def __init__(self, path: Path) -> None:
        """Open an existing file for writing.

        Raises:
            OSError: If it cannot be opened.
            ValueError: If it is no .npy file, or shorter than its header says.
        """
        found = np.load(path, mmap_mode="r", allow_pickle=False)
        self.shape, self.dtype, self._offset = found.shape, found.dtype, found.offset
        self._stream = open(path, "r+b", buffering=0)  # noqa: SIM115 - closed by close()

    @classmethod
    def reserve(cls, path: Path, dtype: np.dtype | type, shape: tuple[int, ...]) -> "ArrayFile":
        """Create a file of zeros with all its space taken: no later write finds a full disk.

        Raises:
            OSError: If the disk cannot hold the array.
        """
        np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        with open(path, "r+b") as stream:
            os.posix_fallocate(stream.fileno(), 0, path.stat().st_size)
        return cls(path)

    def write(self, first: int, values: np.ndarray) -> None:
        """Put entries in place; they are handed to the system, not yet flushed.

        Args:
            first: Number of the first entry; axes before those of an entry are counted through.
            values: (n, *entry), where the array's shape ends in `entry`.

        Raises:
            ValueError: If they do not fit.
        """
        values, entry = np.ascontiguousarray(values, dtype=self.dtype), values.shape[1:]
        axes = len(self.shape) - len(entry)
        room = int(np.prod(self.shape[:axes]))
        if axes < 1 or self.shape[axes:] != entry or not 0 <= first <= room - len(values):
            raise ValueError(f"entries {values.shape} at {first} do not fit {self.shape}")
        place = self._offset + first * int(np.prod(entry, dtype=np.int64)) * self.dtype.itemsize
        left = memoryview(values.reshape(-1).view(np.uint8))
        while left:
            written = os.pwrite(self._stream.fileno(), left, place)
            left, place = left[written:], place + written

    def flush(self) -> None:
        """Wait until everything written is on the disk."""
        os.fdatasync(self._stream.fileno())

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_anchors(dataset: Artefact, labelled: bool) -> Prepared:
    """A prepared dataset; its file of labels stays closed unless they are asked for.

    Raises:
        DataError: If files are missing or damaged, or do not fit each other.
    """
    if labelled:
        return open_prepared(dataset)
    images, card = open_images(dataset)
    return Prepared(images, np.broadcast_to(UNLABELLED, (len(images),)), card)


def release(images: Images) -> None:
    """Give back the memory of a mapped array's pages that were read; they can be read again."""
    mapping = getattr(images, "_mmap", None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
