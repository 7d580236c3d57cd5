"""The training images, once on the device for the whole run, and their order in each epoch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clsp.data.prepared import Prepared
from clsp.runtime.errors import DataError
from clsp.runtime.rng import numpy_stream


@dataclass(frozen=True)
class Anchors:
    """Training split of a prepared dataset.

    Attributes:
        images: uint8 (N, H, W, 3) on the training device.
        dataset: Where they come from; a bank is checked against it.
        labels: int64 (N,) on the device for methods and sources that use labels, else None.
        groups: int64 (N,) on the device for sources that use group ids, else None.
    """

    images: Tensor
    dataset: Prepared
    labels: Tensor | None = None
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)


def load_anchors(
    dataset: Prepared, device: torch.device, labels: bool = False, groups: bool = False
) -> Anchors:
    """Copy the training images to the device (0.15 GB for CIFAR), and labels or groups if asked.

    Raises:
        DataError: If groups are asked for and the dataset has none.
    """
    split = dataset.split("train")
    images = torch.from_numpy(np.array(split.images))
    classes = torch.from_numpy(np.array(split.labels)).to(device) if labels else None
    ids = None
    if groups:
        if dataset.groups is None:
            raise DataError(
                f"dataset of kind {dataset.card['kind']} has no group ids; an image_folder gets "
                "them from a CSV named by its key groups"
            )
        ids = torch.from_numpy(dataset.groups).to(device)
    return Anchors(images.to(device), dataset, classes, ids)


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of [0, count) that depends on (seed, epoch) only, int64."""
    return numpy_stream(seed, "order", epoch).permutation(count)
