"""items.csv of a prepared dataset: a line per row of its arrays, with digests of the image.

Names are the index lists of the splits. Digests tell images apart by what they show: `source`
covers the pixels at the image's own resolution, whatever size the dataset is prepared at, and
`stored` those that networks see.
"""

import csv
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import numpy as np

from clsp.data.catalog import Item
from clsp.runtime.files import writing

FILE = "items.csv"
COLUMNS = ("split", "name", "label", "source", "stored")
DIGITS = 32  # hex digits that are kept of a sha256: 128 bits


def pixel_digest(pixels: np.ndarray) -> str:
    """First hex digits of the sha256 over the bytes of uint8 (H, W, 3), in C order."""
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:DIGITS]


def lines_digest(lines: Iterable[str]) -> str:
    """Hex sha256 over texts, one per line."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


class ItemsWriter:
    """Writes items.csv from front to back; whoever opens it closes it."""

    def __init__(self, path: Path) -> None:
        """Create the file and write its header.

        Raises:
            DataError: If it cannot be written; `add` and `close` raise it as well.
        """
        self.path = path
        with writing(path):
            self._stream: TextIO = open(path, "w", encoding="utf-8", newline="")  # noqa: SIM115
        self._table = csv.writer(self._stream, lineterminator="\n")
        self._table.writerow(COLUMNS)

    def close(self) -> None:
        """End the file."""
        with writing(self.path):
            self._stream.close()

    def add(self, split: str, item: Item, source: str, stored: str) -> None:
        """Append the line of one image."""
        labels = item.label if isinstance(item.label, tuple) else (item.label,)
        with writing(self.path):
            self._table.writerow([split, item.name, " ".join(map(str, labels)), source, stored])
