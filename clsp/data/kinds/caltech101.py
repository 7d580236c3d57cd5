"""Caltech-101: caltech101/101_ObjectCategories/<class>/image_<number>.jpg.

There is no official split. Two drawn ones are published, and numbers on one do not compare with
numbers on the other (methods.md 4.1). The background class counts as a class in both: 102 in all.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import model_validator

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import Item, Source
from clsp.data.listing import file_item
from clsp.runtime.errors import DataError
from clsp.runtime.keys import numpy_stream

FOLDER = "caltech101"
CATEGORIES = "101_ObjectCategories"
IMAGES = 9144
TRAIN_PER_CLASS = 30
# sha256 of the training images that github.com/linusericsson/ssl-transfer published
# (caltech101-splits/train.txt): class/name.jpg, sorted, one a line.
SSL_TRANSFER = "3db3cb31315085d642315eccab2c6994e71dc516ef7ab49def07c51d49f92868"

DRAWINGS = {
    "tfds": "train: 30 images of each class, drawn without replacement by numpy's "
    "RandomState(1234).choice, class by class over sorted names; test: the rest. The procedure of "
    "tensorflow-datasets, not its draw: there the order of names was that of a file system.",
    "ssl_transfer": "train: 30 draws from each class with replacement by numpy's "
    "RandomState(0).choice, class by class over sorted names, so that 17 to 30 images of a class "
    "remain; test: the rest. The published list of github.com/linusericsson/ssl-transfer.",
    "random": "train: 30 images of each class, drawn without replacement from seed {seed} (numpy's "
    "Philox generator, keyed by class); test: the rest.",
}


class Config(FetchedConfig):
    """How the split is drawn; `seed` draws it where split is random."""

    split: Literal["tfds", "ssl_transfer", "random"] | None = None  # None: tfds

    @model_validator(mode="after")
    def _check_split(self) -> "Config":
        if self.split == "random" and self.seed is None:
            raise ValueError("split: random needs a seed")
        return self


def _drawer(split: str, seed: int | None) -> Callable[[str, int], np.ndarray]:
    """What draws the training rows of a class, given its name and its number of images."""
    if split == "random":
        return lambda name, count: numpy_stream(seed or 0, "caltech101: train split", name).choice(
            count, TRAIN_PER_CLASS, replace=False
        )
    replace = split == "ssl_transfer"
    stream = np.random.RandomState(0 if replace else 1234)
    return lambda name, count: stream.choice(count, TRAIN_PER_CLASS, replace=replace)


def _class_files(folder: Path) -> dict[str, list[Path]]:
    """Images by class, all sorted; the archive holds a stray file besides."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    folders = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = {path.name: sorted(path.glob("image_*.jpg")) for path in folders}
    if not found:
        raise DataError(f"{folder}: holds no class folders")
    for name, paths in found.items():
        if len(paths) <= TRAIN_PER_CLASS:
            raise DataError(
                f"{folder / name}: {len(paths)} images, expected more than {TRAIN_PER_CLASS}"
            )
    return found


def _check_published(train: list[Item], test: list[Item], folder: Path) -> None:
    names = "".join(f"{name}\n" for name in sorted(item.name for item in train))
    count = len(train) + len(test)
    if count != IMAGES or hashlib.sha256(names.encode()).hexdigest() != SSL_TRANSFER:
        raise DataError(
            f"{folder}: gives other lists than those published as ssl_transfer, which were drawn "
            f"from {IMAGES} images; found {count}, or other names"
        )


def read(config: Config, files: Path) -> Source:
    """Read the class folders below `files` and draw the split.

    Raises:
        DataError: If the folder is missing, a class has too few images, or the real files do not
            give the published list.
    """
    folder, split = files / FOLDER / CATEGORIES, config.split or "tfds"
    found = _class_files(folder)
    draw_rows = _drawer(split, config.seed)
    train: list[Item] = []
    test: list[Item] = []
    for label, (name, paths) in enumerate(found.items()):
        drawn = set(draw_rows(name, len(paths)).tolist())
        for row, path in enumerate(paths):
            (train if row in drawn else test).append(file_item(path, label, folder))
    if split == "ssl_transfer" and config.source == "download":
        _check_published(train, test, folder)
    drawing = DRAWINGS[split].format(seed=config.seed)
    return Source(tuple(found), {"train": train, "val": [], "test": test}, drawing)


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archive's layout."""
    names = ["BACKGROUND_Google", "Faces", "accordion", "airplanes", "anchor"]
    count = TRAIN_PER_CLASS + miniature.COUNTS["test"]
    for label, number in np.ndindex(len(names), count):
        image = miniature.paint(motifs.outlines, seed, "caltech101", label, number)
        name = f"image_{number + 1:04d}.jpg"
        miniature.save_jpeg(files / FOLDER / CATEGORIES / names[label] / name, image)
