"""Caltech-101: caltech101/101_ObjectCategories/<class>/image_<number>.jpg.

There is no official split. As in methods.md 4.1: 30 images per class for train, drawn without
replacement from a seed, the rest for test; the background class counts as a class (102 in all).
"""

from pathlib import Path

import numpy as np

from clsp.config.fetched import FetchedConfig
from clsp.config.strict import NonNegativeInt
from clsp.data import miniature, motifs
from clsp.data.catalog import Archive, DatasetInfo, Item, Source
from clsp.data.listing import file_item
from clsp.runtime.errors import DataError
from clsp.runtime.keys import numpy_stream

FOLDER = "caltech101"
CATEGORIES = "101_ObjectCategories"
TRAIN_PER_CLASS = 30

INFO = DatasetInfo(
    title="Caltech-101",
    license="CC BY 4.0",
    source="https://data.caltech.edu/records/mzrjq-6wc02",
    citation="F.-F. Li et al.: Caltech 101. CaltechDATA, 2022. doi:10.22002/D1.20086",
    metric="mean_per_class",
    archives=(
        Archive(
            url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
            size=137414764,
            sha256="331234750fc7f77520e50d9565e8b6907b03565e30320da1401130db08c61f91",
            md5="3138e1922a9193bfa496528edbbc45d0",
            folder=FOLDER,
            prefix=f"caltech-101/{CATEGORIES}.tar.gz",
            hosts=("data.caltech.edu",),
            checked="size, sha256: tensorflow-datasets; md5: torchvision",
            nested=(f"caltech-101/{CATEGORIES}.tar.gz",),
        ),
    ),
    note="Train: 30 per class, drawn without replacement; the rest is test. Background class kept.",
)


class Config(FetchedConfig):
    """The seed also draws the split, so the real files need one too."""

    seed: NonNegativeInt


def _split_class(folder: Path, label: int, seed: int) -> tuple[list[Item], list[Item]]:
    files = sorted(folder.glob("image_*.jpg"))  # the archive holds a stray file besides
    if len(files) <= TRAIN_PER_CLASS:
        raise DataError(f"{folder}: {len(files)} images, expected more than {TRAIN_PER_CLASS}")
    stream = numpy_stream(seed, "caltech101: train split", folder.name)
    drawn = set(stream.choice(len(files), TRAIN_PER_CLASS, replace=False).tolist())
    items = [file_item(path, label) for path in files]
    train = [item for row, item in enumerate(items) if row in drawn]
    return train, [item for row, item in enumerate(items) if row not in drawn]


def read(config: Config, files: Path) -> Source:
    """Read the class folders below `files` and draw the split.

    Raises:
        DataError: If the folder is missing, or a class has too few images.
    """
    folder = files / FOLDER / CATEGORIES
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    classes = tuple(
        sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
    train, test = [], []
    for label, name in enumerate(classes):
        kept, rest = _split_class(folder / name, label, config.seed)
        train += kept
        test += rest
    return Source(classes, {"train": train, "val": [], "test": test})


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archive's layout."""
    names = ["BACKGROUND_Google", "Faces", "accordion", "airplanes", "anchor"]
    count = TRAIN_PER_CLASS + miniature.COUNTS["test"]
    for label, number in np.ndindex(len(names), count):
        image = miniature.paint(motifs.outlines, seed, "caltech101", label, number)
        name = f"image_{number + 1:04d}.jpg"
        miniature.save_jpeg(files / FOLDER / CATEGORIES / names[label] / name, image)
