"""A bank as pretraining sees it: K candidates for every anchor, and the dataset they belong to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clsp.data.prepared import Prepared
from clsp.runtime.errors import DataError
from clsp.runtime.keys import numpy_stream
from clsp.runtime.manifest import Artefact

STAGE = "gather-bank"
INDEX = np.dtype(
    [("anchor", "<i8"), ("candidate", "<i4"), ("shard", "<i4"), ("row", "<i8"), ("sha64", "<u8")]
)  # row: of the shard's array; sha64: first 8 bytes of the sha256 of the image's bytes


def identity(prepared: Prepared) -> dict[str, Any]:
    """What ties shards and banks to one dataset: its contents, whatever its name.

    Raises:
        DataError: If the card says nothing of them.
    """
    card = prepared.card
    try:
        digests = {key: card[key] for key in ("images_sha256", "labels_sha256", "source_sha256")}
        fitted = {"size": card["size"], "resize": card.get("resize")}
    except KeyError as error:
        raise DataError(f"the dataset's card lacks {error}; prepare the dataset again") from error
    return {**digests, "fitted": fitted, "anchors": len(prepared.split("train"))}


def _telling(recorded: dict[str, Any], expected: dict[str, Any]) -> tuple[str, ...]:
    """What has to agree. Images of another size are the same if they are before resizing.

    Labels may differ: nothing that belongs to images is drawn or mined from them.
    """
    resized = recorded.get("fitted", expected["fitted"]) != expected["fitted"]
    images = "source_sha256" if resized else "images_sha256"
    return images, "anchors", *(["split"] if "split" in expected else [])


def refuse_others(
    what: str, whose: str, recorded: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Refuse a dataset that is not the recorded one: other images, or another number or split.

    The same images at another size are the same dataset.

    Args:
        what: "bank digits.mix belongs", for messages.
        whose: "its", for messages.
        recorded: What ties an artefact to its dataset, as `identity` gave it, perhaps with a split.
        expected: The same of the dataset at hand.

    Raises:
        DataError: With what differs.
    """
    for key in _telling(recorded, expected):
        if recorded.get(key) != expected[key]:
            other = "split" if key == "split" else "dataset"
            raise DataError(
                f"{what} to another {other}: {whose} {key} is {recorded.get(key)}, "
                f"the run's is {expected[key]}"
            )


def other_anchors(seed: int, count: int) -> np.ndarray:
    """For each anchor another one, drawn at random; int64 (count,)."""
    offsets = numpy_stream(seed, "other anchor").integers(1, max(count, 2), size=count)
    return (np.arange(count) + offsets) % count


def map_array(path: Path, dtype: np.dtype | type, dimensions: int) -> np.ndarray:
    """Map an .npy file into memory, read-only.

    Raises:
        DataError: If it cannot be read, or holds another kind of array.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable array ({error})") from error
    if array.dtype != dtype or array.ndim != dimensions:
        raise DataError(
            f"{path}: expected {np.dtype(dtype)} with {dimensions} dimensions, "
            f"found {array.dtype} {array.shape}"
        )
    return array


@dataclass(frozen=True)
class Bank:
    """A gathered bank.

    Attributes:
        images: uint8 (N, K, H, W, 3), memory-mapped; row i belongs to training image i.
        index: Structured (N * K,), see INDEX.
        dataset: Contents of the dataset it was drawn for, as `identity` returns them.
        name: For messages.
    """

    images: np.ndarray
    index: np.ndarray
    dataset: dict[str, Any]
    name: str

    def check_belongs(self, prepared: Prepared) -> None:
        """Refuse a dataset whose images are not this bank's anchors, in order, at whatever size.

        Raises:
            DataError: With what differs.
        """
        refuse_others(f"bank {self.name} belongs", "its", self.dataset, identity(prepared))


def open_bank(artefact: Artefact) -> Bank:
    """Map a gathered bank into memory.

    Args:
        artefact: Made by the stage gather-bank: images.npy, index.npy.

    Raises:
        DataError: If it is no bank, or its files do not fit each other.
    """
    if artefact.stage != STAGE:
        raise DataError(f"{artefact.manifest}: made by {artefact.stage}, expected {STAGE}")
    images = map_array(artefact.path("images.npy"), np.uint8, 5)
    index = map_array(artefact.path("index.npy"), INDEX, 1)
    dataset = artefact.predicate["facts"]["dataset"]
    if len(index) != images.shape[0] * images.shape[1] or len(images) != dataset["anchors"]:
        raise DataError(
            f"{artefact.manifest}: {len(index)} index entries and {dataset['anchors']} anchors "
            f"for images {images.shape}"
        )
    return Bank(images, index, dataset, artefact.folder.name)
