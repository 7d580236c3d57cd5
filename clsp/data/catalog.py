"""What reading a dataset gives: its classes, and its images by split, not yet opened."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

NO_GROUP = -1
UNLABELLED = -1
Picture = Image.Image | np.ndarray  # an RGB image, or uint8 (H, W, 3)


@dataclass(frozen=True)
class Item:
    """One image, not yet read.

    Attributes:
        open: Reads it.
        label: Class; UNLABELLED where nobody gave one; of a multi-label dataset, every class that
            the image shows, sorted.
        name: What its dataset calls it: a path below the dataset's folder, or file and number of
            a record. Together these are the index lists of the splits.
        path: Its file, where it has one of its own; stored as it is by datasets that keep files.
        group: Group of a training image.
    """

    open: Callable[[], Picture]
    label: int | tuple[int, ...]
    name: str
    path: Path | None = None
    group: int = NO_GROUP


@dataclass(frozen=True)
class Source:
    """A dataset as read from its files.

    Attributes:
        classes: Names; a label indexes them.
        splits: Images per split, "train", "val" and "test"; val is empty where nobody defines one.
        drawing: How drawn splits were drawn, in words; empty where the publisher's lists decide.
        multilabel: Whether an image may show several classes.
        groups: Names, where the training images come in groups; an item's group indexes them.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[Item]]
    drawing: str = ""
    multilabel: bool = False
    groups: tuple[str, ...] | None = None
