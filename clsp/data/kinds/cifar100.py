"""CIFAR-100 from the binary archive: cifar-100-binary/train.bin and test.bin, fine labels."""

from pathlib import Path

import numpy as np

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Source
from clsp.data.listing import read_lines
from clsp.data.records import SIDE, read_records, write_records

FOLDER = "cifar-100-binary"


class Config(FetchedConfig):
    """No options of its own."""


def read(config: Config, files: Path) -> Source:
    """Read the binary files below `files`.

    Raises:
        DataError: If a file is missing or malformed.
    """
    folder = files / FOLDER
    classes = tuple(read_lines(folder / "fine_label_names.txt"))
    train = read_records(folder / "train.bin", 2, len(classes))
    test = read_records(folder / "test.bin", 2, len(classes))
    return Source(classes, {"train": train, "val": [], "test": test})


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archive's layout."""
    fine = ["apple", "aquarium_fish", "baby", "bear", "beaver", "bed"]
    coarse = ["aquatic_mammals", "fish", "flowers"]
    miniature.write_lines(files / FOLDER / "fine_label_names.txt", fine)
    miniature.write_lines(files / FOLDER / "coarse_label_names.txt", coarse)
    for split in ("train", "test"):
        drawn = miniature.examples(split, len(fine))
        images = [
            miniature.paint(motifs.striped_polygons, seed, "cifar100", label, number, SIDE)
            for label, number in drawn
        ]
        labels = np.array([(label % len(coarse), label) for label, _ in drawn])
        write_records(files / FOLDER / f"{split}.bin", np.stack(images), labels)
