"""The training images of a run, what is known of them, and their order in each epoch."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from clsp.config.execution import EXACT, ExecutionSpec
from clsp.data.catalog import UNLABELLED
from clsp.data.prepared import Prepared, Split
from clsp.data.stores import Store, open_store
from clsp.data.views import operations
from clsp.runtime.errors import DataError
from clsp.runtime.rng import numpy_stream


@dataclass(frozen=True)
class Anchors:
    """Training split of a prepared dataset.

    Attributes:
        store: Gives crops of the images.
        dataset: Where they come from; a bank is checked against it.
        device: Where training happens.
        labels: int64 (N,) on the device for methods and sources that use labels, else None.
        groups: int64 (N,) on the device for sources that use group ids, else None.
    """

    store: Store
    dataset: Prepared
    device: torch.device
    labels: Tensor | None = None
    groups: Tensor | None = None

    @property
    def place(self) -> torch.device:
        """Where it is decided which images are shown: the CPU where it has to read them."""
        return torch.device("cpu") if self.store.on_host else self.device

    def __len__(self) -> int:
        return len(self.store)


def _all_labels(split: Split, kind: str) -> np.ndarray:
    unlabelled = int((split.labels == UNLABELLED).sum())
    if unlabelled:
        raise DataError(
            f"{unlabelled} of the {len(split)} training images of this dataset of kind {kind} have "
            "no label; a method or positive source that uses labels needs all of them"
        )
    return split.labels


def load_anchors(
    dataset: Prepared,
    device: torch.device,
    labels: bool = False,
    groups: bool = False,
    execution: ExecutionSpec = EXACT,
) -> Anchors:
    """Open the training images, and copy labels or groups to the device if asked.

    Where views are made by torchvision (`execution`), images stay where they are.

    Raises:
        DataError: If groups are asked for and the dataset has none, labels are asked for and some
            images have none, or the dataset is multi-label.
    """
    split, kind = dataset.split("train"), dataset.card["kind"]
    if dataset.multilabel:
        raise DataError(f"a dataset of kind {kind} is multi-label: it can be transferred to alone")
    classes = torch.from_numpy(np.array(_all_labels(split, kind))).to(device) if labels else None
    ids = None
    if groups:
        if dataset.groups is None:
            raise DataError(
                f"dataset of kind {kind} has no group ids; an image_folder gets "
                "them from a CSV named by its key groups"
            )
        ids = torch.from_numpy(dataset.groups).to(device)
    cropping = operations("inductor" if execution.compile else None).crop
    stay = execution.views == "torchvision"
    store = open_store(split.images, device, cropping, stay)
    return Anchors(store, dataset, device, classes, ids)


@lru_cache(maxsize=2)  # of the epoch under way and the next, which is begun before this one ends
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of [0, count) that depends on (seed, epoch) only, int64."""
    return numpy_stream(seed, "order", epoch).permutation(count)
