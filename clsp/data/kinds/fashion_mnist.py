"""Fashion-MNIST from an installed copy, or from the publisher's four files."""

import gzip
import os
import zlib
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np

from clsp.config.catalog import dataset_info
from clsp.config.strict import Strict
from clsp.data.catalog import Item, Source
from clsp.runtime.errors import DataError

VARIABLE = "FASHION_MNIST_ROOT"
INSTALLED = (
    Path("/usr/share/datasets/fashion-mnist"),  # Debian's package dataset-fashion-mnist
    Path("/usr/local/share/datasets/fashion-mnist"),
    Path("~/.local/share/datasets/fashion-mnist"),
)
PREFIXES = {"train": "train", "test": "t10k"}
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


class Config(Strict):
    """No options."""

    fetched: ClassVar[bool] = False


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read a gzipped idx file of bytes.

    Args:
        path: The file.
        dimensions: How many are expected: 3 for images, 1 for labels.

    Returns:
        uint8 array of the shape that the file's header gives.

    Raises:
        DataError: If it is missing or corrupt, or is another kind of file.
    """
    try:
        with gzip.open(path, "rb") as stream:
            data = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path}: not an idx file of bytes with {dimensions} dimensions")
    shape = np.frombuffer(data[4:header], dtype=">i4").astype(int)
    values = np.frombuffer(data, dtype=np.uint8, offset=header)
    if len(values) != shape.prod():
        raise DataError(f"{path}: truncated: {len(values)} bytes for shape {tuple(shape)}")
    return values.reshape(shape)


def _complete(folder: Path) -> bool:
    names = [
        f"{prefix}-{part}-ubyte.gz"
        for prefix in PREFIXES.values()
        for part in ("images-idx3", "labels-idx1")
    ]
    return all((folder / name).is_file() for name in names)


def _download() -> Path:
    """Get the four files, or check those that lie in the folder of downloads; returns it."""
    from clsp.data.download import obtain  # only without an installed copy

    places = {obtain(archive).path.parent for archive in dataset_info("fashion_mnist").archives}
    return places.pop()


def installed() -> Path | None:
    """The folder of a copy that is here without this suite's doing.

    Raises:
        DataError: If the environment variable names a folder without the files.
    """
    given = os.environ.get(VARIABLE)
    if given and not _complete(Path(given)):
        raise DataError(f"{VARIABLE}={given}: does not hold the four Fashion-MNIST files")
    places = [Path(given)] if given else [folder.expanduser() for folder in INSTALLED]
    return next((folder for folder in places if _complete(folder)), None)


def _locate() -> Path:
    if found := installed():
        return found
    try:
        return _download()
    except DataError as error:
        raise DataError(
            f"Fashion-MNIST is not installed and could not be downloaded ({error}); run "
            '"apt install dataset-fashion-mnist", or put its four idx .gz files into '
            f"{INSTALLED[-1]}, or name their folder in {VARIABLE}"
        ) from error


def _picture(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def read(config: Config, files: Path | None) -> Source:
    """Read the four idx files; `files` is not used.

    Raises:
        DataError: If there is no copy and none can be downloaded, or a file is corrupt.
    """
    folder = _locate()
    splits: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    for split, prefix in PREFIXES.items():
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3)
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1)
        if len(images) != len(labels) or labels.max(initial=0) >= len(CLASSES):
            raise DataError(f"{folder}: {prefix} images and labels do not fit each other")
        splits[split] = [
            Item(partial(_picture, image), int(label), f"{prefix}/{row:05d}")
            for row, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
    return Source(CLASSES, splits)
