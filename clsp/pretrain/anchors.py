"""The training images, once on the device for the whole run, and their order in each epoch."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clsp.data.prepared import Prepared
from clsp.runtime.rng import numpy_stream


@dataclass(frozen=True)
class Anchors:
    """Training split of a prepared dataset, without its labels.

    Attributes:
        images: uint8 (N, H, W, 3) on the training device.
        dataset: Where they come from; a bank is checked against it.
    """

    images: Tensor
    dataset: Prepared

    def __len__(self) -> int:
        return len(self.images)


def load_anchors(dataset: Prepared, device: torch.device) -> Anchors:
    """Copy the training images to the device; 0.15 GB for CIFAR."""
    images = torch.from_numpy(np.array(dataset.split("train").images))
    return Anchors(images.to(device), dataset)


def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of [0, count) that depends on (seed, epoch) only, int64."""
    return numpy_stream(seed, "order", epoch).permutation(count)
