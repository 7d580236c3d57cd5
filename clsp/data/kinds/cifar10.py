"""CIFAR-10 from the binary archive: cifar-10-batches-bin/data_batch_1.bin and so on."""

from pathlib import Path

import numpy as np

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Archive, DatasetInfo, Source
from clsp.data.listing import read_lines
from clsp.data.records import SIDE, read_records, write_records

FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"

INFO = DatasetInfo(
    title="CIFAR-10",
    license="not stated by its publisher",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    citation="A. Krizhevsky: Learning multiple layers of features from tiny images. 2009",
    metric="top1",
    archives=(
        Archive(
            url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            size=170052171,
            sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            md5="c32a1d4ab5d03f1284b67883e8d87530",
            folder="",
            prefix=f"{FOLDER}/",
            hosts=("cs.toronto.edu",),
            checked="size, sha256: tensorflow-datasets; md5: the publisher's page",
        ),
    ),
    note="Training rows keep the order of data_batch_1 to data_batch_5; no official val.",
)


class Config(FetchedConfig):
    """No options of its own."""


def read(config: Config, files: Path) -> Source:
    """Read the binary batches below `files`.

    Raises:
        DataError: If a file is missing or malformed.
    """
    folder = files / FOLDER
    classes = tuple(read_lines(folder / "batches.meta.txt"))
    train = [item for name in TRAIN_FILES for item in read_records(folder / name, 1, len(classes))]
    test = read_records(folder / TEST_FILE, 1, len(classes))
    return Source(classes, {"train": train, "val": [], "test": test})


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archive's layout."""
    names = ["airplane", "automobile", "bird", "cat", "deer"]
    miniature.write_lines(files / FOLDER / "batches.meta.txt", names)
    for split, targets in (("train", TRAIN_FILES), ("test", (TEST_FILE,))):
        drawn = miniature.examples(split, len(names))
        images = [
            miniature.paint(motifs.plain_shapes, seed, "cifar10", label, number, SIDE)
            for label, number in drawn
        ]
        labels = [[label] for label, _ in drawn]
        share = len(drawn) // len(targets)
        for part, name in enumerate(targets):
            rows = slice(part * share, (part + 1) * share)
            write_records(files / FOLDER / name, np.stack(images[rows]), np.array(labels[rows]))
