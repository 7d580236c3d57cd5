"""Fashion-MNIST from an installed copy, or from the publisher's four files."""

import gzip
import hashlib
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
# sha256 of the unpacked files. Debian strips name and time from the .gz files, so that they are not
# those of the catalogue; with both put back, all four have the catalogue's digests.
UNPACKED = {
    "train-images-idx3-ubyte.gz": (
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
    ),
    "train-labels-idx1-ubyte.gz": (
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
    ),
    "t10k-images-idx3-ubyte.gz": (
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
    ),
    "t10k-labels-idx1-ubyte.gz": (
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
    ),
}
PREFIXES = {"train": "train", "test": "t10k"}
CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


class Config(Strict):
    """No options."""

    fetched: ClassVar[bool] = False


def read_idx(path: Path, dimensions: int, sha256: str | None = None) -> np.ndarray:
    """Read a gzipped idx file of bytes.

    Args:
        path: The file.
        dimensions: How many are expected: 3 for images, 1 for labels.
        sha256: Of the unpacked file, where it is to be checked.

    Returns:
        uint8 array of the shape that the file's header gives.

    Raises:
        DataError: If it is missing, corrupt or other than expected, or is another kind of file.
    """
    try:
        with gzip.open(path, "rb") as stream:
            data = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise DataError(
            f"{path}: not the published file: unpacked it has sha256 {found[:16]}..., expected "
            f"{sha256[:16]}...; remove this copy or install another"
        )
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise DataError(f"{path}: not an idx file of bytes with {dimensions} dimensions")
    shape = np.frombuffer(data[4:header], dtype=">i4").astype(int)
    values = np.frombuffer(data, dtype=np.uint8, offset=header)
    if len(values) != shape.prod():
        raise DataError(f"{path}: truncated: {len(values)} bytes for shape {tuple(shape)}")
    return values.reshape(shape)


def _complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in UNPACKED)


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


def _locate() -> tuple[Path, dict[str, str]]:
    """The folder of the files, and the digests that they have yet to be checked against."""
    if found := installed():
        return found, UNPACKED
    try:
        return _download(), {}  # checked as they came
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
        DataError: If there is no copy and none can be downloaded, or a file is corrupt or not the
            published one.
    """
    folder, expected = _locate()
    splits: dict[str, list[Item]] = {"train": [], "val": [], "test": []}
    for split, prefix in PREFIXES.items():
        images, labels = (
            read_idx(folder / name, dimensions, expected.get(name))
            for name, dimensions in (
                (f"{prefix}-images-idx3-ubyte.gz", 3),
                (f"{prefix}-labels-idx1-ubyte.gz", 1),
            )
        )
        if len(images) != len(labels) or labels.max(initial=0) >= len(CLASSES):
            raise DataError(f"{folder}: {prefix} images and labels do not fit each other")
        splits[split] = [
            Item(partial(_picture, image), int(label), f"{prefix}/{row:05d}")
            for row, (image, label) in enumerate(zip(images, labels, strict=True))
        ]
    return Source(CLASSES, splits)
