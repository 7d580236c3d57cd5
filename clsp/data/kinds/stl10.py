"""STL-10 from the binary archive: stl10_binary/{train,test}_{X,y}.bin, unlabeled_X.bin.

Images are read as they are needed, from the mapped files: the unlabelled ones take 2.8 GB. Layout:
https://cs.stanford.edu/~acoates/stl10/: red, green and blue planes, each column by column.
"""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, model_validator

from clsp.config.fetched import FetchedConfig
from clsp.data import miniature, motifs
from clsp.data.catalog import UNLABELLED, Item, Source
from clsp.data.listing import read_lines
from clsp.data.records import map_records
from clsp.runtime.errors import DataError

FOLDER = "stl10_binary"
SIDE = 96
PIXELS = 3 * SIDE * SIDE
FOLDS = 10
MINIATURE = {"train": 6, "test": 4}  # images per class; at 27 KB each they make up its size
MINIATURE_UNLABELLED = 8
MINIATURE_FOLD = 8  # images; of the real folds 1000


class Config(FetchedConfig):
    """What train is made of."""

    # None: labelled. The unlabelled images have another distribution: classes besides the ten.
    train: Literal["labelled", "unlabelled", "labelled_and_unlabelled"] | None = None
    # One of the predefined sets of 1000 labelled images: the protocol of the dataset's authors, who
    # report the mean over all ten. None: all 5000.
    fold: Annotated[int, Field(ge=0, lt=10)] | None = None

    @model_validator(mode="after")
    def _check_fold(self) -> "Config":
        if self.fold is not None and self.train not in (None, "labelled"):
            raise ValueError(f"fold: needs train: labelled, found {self.train}")
        return self


def _picture(planes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(planes.reshape(3, SIDE, SIDE).transpose(2, 1, 0))


def _labels(path: Path, count: int, classes: int) -> np.ndarray:
    """Labels from 0, int64 (count,); in the file they start from 1."""
    labels = map_records(path, 1)[:, 0].astype(np.int64) - 1
    if len(labels) != count:
        raise DataError(f"{path}: {len(labels)} labels for {count} images")
    if labels.min() < 0 or labels.max() >= classes:
        row = int(np.flatnonzero((labels < 0) | (labels >= classes))[0])
        raise DataError(f"{path}: label {labels[row] + 1} in row {row}, expected 1 to {classes}")
    return labels


def _labelled(folder: Path, split: str, classes: int) -> list[Item]:
    path = folder / f"{split}_X.bin"
    images = map_records(path, PIXELS)
    labels = _labels(folder / f"{split}_y.bin", len(images), classes)
    return [
        Item(partial(_picture, image), int(label), f"{path.name}/{row:05d}")
        for row, (image, label) in enumerate(zip(images, labels, strict=True))
    ]


def _unlabelled(folder: Path) -> list[Item]:
    path = folder / "unlabeled_X.bin"
    return [
        Item(partial(_picture, image), UNLABELLED, f"{path.name}/{row:06d}")
        for row, image in enumerate(map_records(path, PIXELS))
    ]


def _fold_rows(path: Path, fold: int, count: int) -> list[int]:
    """Rows of one predefined fold; each line of the file is one."""
    lines = read_lines(path)
    if len(lines) != FOLDS:
        raise DataError(f"{path}: {len(lines)} lines, expected {FOLDS}")
    parts = lines[fold].split()
    if not all(part.isdecimal() and int(part) < count for part in parts):
        raise DataError(f"{path}: line {fold + 1}: expected rows from 0 to {count - 1}")
    rows = list(map(int, parts))
    if len(set(rows)) != len(rows):
        raise DataError(f"{path}: line {fold + 1}: names a row twice")
    return rows


def read(config: Config, files: Path) -> Source:
    """Map the binary files below `files`; labelled rows come first.

    Raises:
        DataError: If a file is missing or malformed.
    """
    folder = files / FOLDER
    classes = tuple(read_lines(folder / "class_names.txt"))
    test = _labelled(folder, "test", len(classes))
    train: list[Item] = []
    if config.train != "unlabelled":
        train = _labelled(folder, "train", len(classes))
    if config.fold is not None:
        rows = _fold_rows(folder / "fold_indices.txt", config.fold, len(train))
        train = [train[row] for row in rows]
    if config.train in ("unlabelled", "labelled_and_unlabelled"):
        train = train + _unlabelled(folder)
    return Source(classes, {"train": train, "val": [], "test": test})


def _write_images(path: Path, images: list[np.ndarray]) -> None:
    path.write_bytes(np.stack(images).transpose(0, 3, 2, 1).tobytes())


def draw(files: Path, seed: int) -> None:
    """Draw the miniature in the archive's layout."""
    names = ["airplane", "bird", "car", "cat", "deer"]
    folder = files / FOLDER

    def paint(label: int, number: int) -> np.ndarray:
        return miniature.paint(motifs.silhouettes, seed, "stl10", label, number, SIDE)

    miniature.write_lines(folder / "class_names.txt", names)
    start = 0
    for split, count in MINIATURE.items():
        pairs = [(label, start + n) for n in range(count) for label in range(len(names))]
        _write_images(folder / f"{split}_X.bin", [paint(*pair) for pair in pairs])
        (folder / f"{split}_y.bin").write_bytes(bytes(label + 1 for label, _ in pairs))
        start += count
    others = [paint(n % len(names), start + n) for n in range(MINIATURE_UNLABELLED)]
    _write_images(folder / "unlabeled_X.bin", others)
    rows = MINIATURE["train"] * len(names)
    folds = [[(3 * fold + n) % rows for n in range(MINIATURE_FOLD)] for fold in range(FOLDS)]
    lines = [" ".join(map(str, fold)) for fold in folds]
    miniature.write_lines(folder / "fold_indices.txt", lines)
