"""Images of a dataset, decoded, fitted and hashed, in order and a block at a time.

Images are decoded by a few threads and handed over in order, block by block, so that memory stays
bounded and the result never depends on the threads.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from clsp.config.schema import DatasetSpec
from clsp.data.catalog import Item
from clsp.data.decoders import each
from clsp.data.encoded import encode
from clsp.data.items import pixel_digest
from clsp.data.pictures import fit

BLOCK = 256  # images decoded ahead of the writer


@dataclass(frozen=True)
class Ready:
    """One image as the arrays hold it.

    Attributes:
        pixels: As networks see it, uint8 (size, size, 3).
        height: At its own resolution, pixels.
        width: The same.
        source: Digest of the pixels at its own resolution.
        stored: Digest of `pixels`.
        content: Its file's bytes, or a PNG's, where the dataset keeps files; else empty.
    """

    pixels: np.ndarray
    height: int
    width: int
    source: str
    stored: str
    content: bytes


def make_ready(spec: DatasetSpec, item: Item) -> Ready:
    """Decode one image.

    Raises:
        DataError: Naming the file that cannot be read.
    """
    picture = item.open()
    whole = np.asarray(picture)
    pixels = fit(picture, spec.size, spec.resize)
    return Ready(
        pixels,
        *whole.shape[:2],
        source=pixel_digest(whole),
        stored=pixel_digest(pixels),
        content=encode(picture, item.path) if spec.encoded else b"",
    )


def ready_blocks(items: list[Item], spec: DatasetSpec) -> Iterator[list[Ready]]:
    """Decode images in order, at most BLOCK at a time.

    Raises:
        DataError: Naming the file that cannot be read.
    """
    for start in range(0, len(items), BLOCK):
        yield list(each(partial(make_ready, spec), items[start : start + BLOCK]))
