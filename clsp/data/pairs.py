"""Mined pairs as pretraining sees them: which training images of which dataset are alike."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clsp.data.bank import identity, map_array, refuse_others
from clsp.data.prepared import Prepared
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact

STAGE = "mine-pairs"
SPLIT = "train"
PAIR = np.dtype([("left", "<i8"), ("right", "<i8"), ("cosine", "<f4")])


def owner_of(prepared: Prepared) -> dict[str, Any]:
    """What ties pairs to one split of one dataset: its contents, whatever its name."""
    return {**identity(prepared), "split": SPLIT}


@dataclass(frozen=True)
class Pairs:
    """Pairs of training images.

    Attributes:
        pairs: Structured (P,), see PAIR; left < right, numbers of training images.
        dataset: What they were mined from, as `owner_of` returns it.
        name: For messages.
    """

    pairs: np.ndarray
    dataset: dict[str, Any]
    name: str

    def check_belongs(self, prepared: Prepared) -> None:
        """Refuse a dataset whose training images are not those that were paired, in order.

        Raises:
            DataError: With what differs.
        """
        belonging = owner_of(prepared)
        refuse_others(f"pairs {self.name} belong", "their", self.dataset, belonging)


def open_pairs(artefact: Artefact) -> Pairs:
    """Map mined pairs into memory.

    Args:
        artefact: Made by the stage mine-pairs: pairs.npy.

    Raises:
        DataError: If it holds no pairs, or they do not fit what its manifest says.
    """
    if artefact.stage != STAGE:
        raise DataError(f"{artefact.manifest}: made by {artefact.stage}, expected {STAGE}")
    path = artefact.path("pairs.npy")
    pairs = map_array(path, PAIR, 1)
    dataset = artefact.predicate["facts"]["dataset"]
    left, right = pairs["left"], pairs["right"]
    wrong = np.flatnonzero((left < 0) | (left >= right) | (right >= dataset["anchors"]))
    if len(wrong):
        found = pairs[wrong[0]]
        raise DataError(
            f"{path}: row {wrong[0]} pairs {found['left']} with {found['right']}; expected "
            f"0 <= left < right < {dataset['anchors']}"
        )
    return Pairs(pairs, dataset, artefact.folder.name)
