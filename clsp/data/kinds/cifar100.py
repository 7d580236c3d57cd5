"""CIFAR-100 from the binary archive: cifar-100-binary/train.bin and test.bin, fine labels."""

from pathlib import Path

import numpy as np

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Archive, DatasetInfo, Source
from clsp.data.listing import read_lines
from clsp.data.records import SIDE, read_records, write_records

FOLDER = "cifar-100-binary"

INFO = DatasetInfo(
    title="CIFAR-100",
    license="not stated by its publisher",
    source="https://www.cs.toronto.edu/~kriz/cifar.html",
    citation="A. Krizhevsky: Learning multiple layers of features from tiny images. 2009",
    metric="top1",
    archives=(
        Archive(
            url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            size=168513733,
            sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            md5="03b5dce01913d631647c71ecec9e9cb8",
            folder="",
            prefix=f"{FOLDER}/",
            hosts=("cs.toronto.edu",),
            checked="size, sha256: tensorflow-datasets; md5: the publisher's page",
        ),
    ),
    note="Fine labels; no official val.",
)


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
