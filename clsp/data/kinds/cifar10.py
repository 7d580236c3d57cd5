"""CIFAR-10 from the binary archive: cifar-10-batches-bin/data_batch_1.bin and so on."""

from pathlib import Path

import numpy as np

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Source
from clsp.data.listing import read_lines
from clsp.data.records import SIDE, read_records, write_records

FOLDER = "cifar-10-batches-bin"
TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILE = "test_batch.bin"


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
