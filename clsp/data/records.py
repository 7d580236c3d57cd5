"""Binary records of one length. Nothing is unpickled.

CIFAR's are label bytes, then a 32 x 32 image as red, green and blue planes. Layout:
https://www.cs.toronto.edu/~kriz/cifar.html, "Binary version".
"""

from functools import partial
from pathlib import Path

import numpy as np

from clsp.data.catalog import Item
from clsp.runtime.errors import DataError

SIDE = 32
PIXELS = 3 * SIDE * SIDE


def _picture(planes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(planes.reshape(3, SIDE, SIDE).transpose(1, 2, 0))


def map_records(path: Path, length: int) -> np.ndarray:
    """Map a file of records that are all equally long; nothing is read yet.

    Returns:
        uint8 (N, length).

    Raises:
        DataError: If the file is missing or truncated.
    """
    try:
        size = path.stat().st_size
        if size == 0 or size % length:
            raise DataError(f"{path}: {size} bytes are not a number of {length}-byte records")
        mapped = np.memmap(path, dtype=np.uint8, mode="r")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return np.asarray(mapped).reshape(-1, length)  # still backed by the file


def read_records(path: Path, label_bytes: int, classes: int) -> list[Item]:
    """Map one file of records; images are read when opened.

    Args:
        path: Such as data_batch_1.bin.
        label_bytes: 1 for CIFAR-10; 2 for CIFAR-100 (coarse, fine). The last one is the label.
        classes: Number of classes; labels must be below.

    Raises:
        DataError: If the file is missing, truncated, or has a label out of range.
    """
    records = map_records(path, label_bytes + PIXELS)
    labels = records[:, label_bytes - 1].astype(np.int64)
    if labels.max() >= classes:
        row = int(labels.argmax())
        raise DataError(f"{path}: record {row} has label {labels[row]}, expected below {classes}")
    return [
        Item(partial(_picture, record[label_bytes:]), int(label), f"{path.name}/{row:05d}")
        for row, (record, label) in enumerate(zip(records, labels, strict=True))
    ]


def write_records(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Write records in CIFAR's layout.

    Args:
        path: The file.
        images: uint8 (N, 32, 32, 3).
        labels: (N, label bytes), each below 256.
    """
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), PIXELS)
    path.write_bytes(np.concatenate([labels.astype(np.uint8), planes], axis=1).tobytes())
