"""A prepared dataset as every later stage sees it: images, labels and a card.

Images are a memory-mapped array, or image files that are decoded when they are read. Both have
`shape`, `dtype` and a length, and `images[rows]` gives uint8 pixels; `window` takes a range without
reading it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clsp.data.encoded import FILE as ENCODED_FILE
from clsp.data.encoded import EncodedImages, open_encoded
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.manifest import Artefact
from clsp.runtime.progress import Progress

SPLITS = ("train", "val", "test")
ARRAYS, ENCODED = "arrays", "encoded"  # values of `storage`, on the card too
ARRAYS_FILE, LABELS_FILE, CARD_FILE = "images.npy", "labels.npy", "card.json"
BLOCK = 1024  # images read together
MOST_BYTES = 8 << 30  # of decoded images that a stage holds in memory

Images = np.ndarray | EncodedImages


def window(images: Images, start: int, stop: int) -> Images:
    """A range of images, of which nothing is read or decoded yet."""
    if isinstance(images, EncodedImages):
        return images.window(start, stop)
    return images[start:stop]


def all_pixels(images: Images, name: str) -> np.ndarray:
    """All images as one array in memory, for stages that read each of them in every epoch.

    Args:
        images: Of one split.
        name: Of the dataset, for messages.

    Returns:
        uint8 (N, H, W, 3).

    Raises:
        ConfigError: If encoded images would take more than MOST_BYTES.
    """
    if not isinstance(images, EncodedImages):
        return np.array(images)
    if images.nbytes > MOST_BYTES:
        raise ConfigError(
            f"datasets.{name}: its {len(images)} encoded images take {images.nbytes / 2**30:.1f} "
            f"GiB when decoded, more than the {MOST_BYTES / 2**30:.1f} GiB that may be held in "
            "memory; use another entry with the same images as arrays of a smaller size"
        )
    pixels = np.empty(images.shape, np.uint8)
    with Progress(f"decode {name}", len(images), "image") as progress:
        for start in range(0, len(images), BLOCK):
            block = images[start : start + BLOCK]
            pixels[start : start + len(block)] = block
            progress.step(len(block))
    return pixels


@dataclass(frozen=True)
class Split:
    """One split. Nothing is copied or decoded.

    Attributes:
        images: uint8 (N, H, W, 3), memory-mapped or encoded.
        labels: Class index in [0, len(classes)), -1 for unlabelled, int64 (N,); of a multi-label
            dataset 1 for each class that is shown, uint8 (N, classes).
        start: Row of the dataset's arrays at which the split begins.
    """

    images: Images
    labels: np.ndarray
    start: int

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Prepared:
    """A prepared dataset; rows are ordered train, val, test."""

    images: Images  # uint8 (N, H, W, 3)
    labels: np.ndarray  # int64 (N,), or uint8 (N, classes)
    card: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        """Class names; a label indexes them."""
        return self.card["classes"]

    @property
    def multilabel(self) -> bool:
        """Whether an image may show several classes."""
        return self.labels.ndim == 2

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
        return Split(window(self.images, start, stop), self.labels[start:stop], start)


def _open_images(artefact: Artefact, card: dict[str, Any]) -> Images:
    if card.get("storage", ARRAYS) == ENCODED:
        path = artefact.path(ENCODED_FILE)
        try:
            return open_encoded(path, int(card["size"]), card["resize"])
        except (KeyError, TypeError, ValueError) as error:
            place = artefact.path(CARD_FILE)
            raise DataError(f"{place}: gives no size and resize (field {error})") from error
    path = artefact.path(ARRAYS_FILE)
    try:
        images = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable array ({error})") from error
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise DataError(f"{path}: expected uint8 (N, H, W, 3), found {images.dtype} {images.shape}")
    return images


def _open_labels(artefact: Artefact, images: Images, card: dict[str, Any]) -> np.ndarray:
    path = artefact.path(LABELS_FILE)
    try:
        labels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable array ({error})") from error
    if card.get("multilabel"):
        expected, dtype = (len(images), len(card.get("classes", ()))), np.dtype(np.uint8)
    else:
        expected, dtype = (len(images),), np.dtype(np.int64)
    if labels.dtype != dtype or labels.ndim != len(expected):
        raise DataError(
            f"{path}: expected {dtype} with {len(expected)} dimensions, "
            f"found {labels.dtype} {labels.shape}"
        )
    if labels.shape != expected:
        raise DataError(f"{path}: labels {labels.shape} for {len(images)} images")
    return labels


def open_prepared(artefact: Artefact) -> Prepared:
    """Map a prepared dataset into memory.

    Args:
        artefact: Made by the stage prepare-dataset: images.npy or images.arrow, labels.npy,
            card.json.

    Raises:
        DataError: If files are missing or damaged, or do not fit each other.
    """
    images, card = open_images(artefact)
    return Prepared(images, _open_labels(artefact, images, card), card)


def open_images(artefact: Artefact) -> tuple[Images, dict[str, Any]]:
    """Images and card of a prepared dataset, for stages that must not see a label.

    Raises:
        DataError: If one of them is missing or damaged.
    """
    path = artefact.path(CARD_FILE)
    card = read_json(path)
    if not isinstance(card, dict):
        raise DataError(f"{path}: no card of a dataset")
    return _open_images(artefact, card), card
