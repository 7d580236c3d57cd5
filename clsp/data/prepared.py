"""A prepared dataset as every later stage sees it: uint8 images, labels and a card."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clsp.runtime.canonical import read_json
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Split:
    """One split. Views into the mapped arrays, nothing is copied.

    Attributes:
        images: uint8 (N, H, W, 3).
        labels: int64 (N,), class index in [0, len(classes)).
        start: Row of the dataset's arrays at which the split begins.
    """

    images: np.ndarray
    labels: np.ndarray
    start: int

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset; rows are ordered train, val, test."""

    images: np.ndarray  # uint8 (N, H, W, 3), memory-mapped
    labels: np.ndarray  # int64 (N,)
    card: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        """Class names; a label indexes them."""
        return self.card["classes"]

    @property
    def mean(self) -> list[float]:
        """Per-channel mean of the training images scaled to [0, 1]."""
        return self.card["mean"]

    @property
    def std(self) -> list[float]:
        """Per-channel standard deviation of the training images scaled to [0, 1]."""
        return self.card["std"]

    @property
    def groups(self) -> np.ndarray | None:
        """Group number of each training image, int64 (N,), or None where no groups are known."""
        found = self.card.get("groups")
        return None if found is None else np.array(found, dtype=np.int64)

    def split(self, name: str) -> Split:
        """One of "train", "val" (may be empty) and "test".

        Raises:
            DataError: If the card has no such split.
        """
        if name not in self.card["splits"]:
            raise DataError(f"split {name!r} is not in the dataset's card")
        start, stop = self.card["splits"][name]
        return Split(self.images[start:stop], self.labels[start:stop], start)


def open_prepared(artefact: Artefact) -> Prepared:
    """Map a prepared dataset into memory.

    Args:
        artefact: Made by the stage prepare-dataset: images.npy, labels.npy, card.json.

    Raises:
        DataError: If files are missing, or do not fit each other.
    """
    card = read_json(artefact.path("card.json"))
    try:
        images = np.load(artefact.path("images.npy"), mmap_mode="r", allow_pickle=False)
        labels = np.load(artefact.path("labels.npy"), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{artefact.folder}: arrays cannot be read ({error})") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise DataError(
            f"{artefact.path('images.npy')}: expected uint8 (N, H, W, 3), "
            f"found {images.dtype} {images.shape}"
        )
    if labels.shape != images.shape[:1]:
        raise DataError(
            f"{artefact.path('labels.npy')}: {len(labels)} labels for {len(images)} images"
        )
    return Prepared(images, labels, card)
