"""A synthetic candidate of the anchor, drawn anew whenever the anchor is read (methods.md 2.1)."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from clsp.config.methods import SourceConfig
from clsp.config.strict import PositiveInt
from clsp.data.bank import open_bank
from clsp.data.streaming import fits, put, read_ahead
from clsp.pretrain.anchors import Anchors
from clsp.pretrain.contract import Positive
from clsp.runtime.errors import ConfigError
from clsp.runtime.manifest import Artefact
from clsp.runtime.rng import integers, key_of


class Config(SourceConfig):
    """Which candidates are used; the bank is named by the entry's `bank`."""

    reads: ClassVar[str | None] = "bank"
    candidates: PositiveInt | None = None  # the first so many of each anchor; None: all


def resident(images: np.ndarray, device: torch.device) -> Positive | None:
    """The bank on the device, or None where it is read from its memory map instead.

    On the CPU the map is as good as a copy, and several runs share it. A GPU takes the bank if it
    fits (CIFAR with K = 8: 1.2 GB).
    """
    if device.type == "cpu" or not fits(images.nbytes, device):
        return None
    return torch.from_numpy(np.array(images)).to(device)


class Source:
    """Draws one of the candidates of each anchor, uniformly."""

    def __init__(
        self, config: Config, anchors: Anchors, artefact: Artefact | None, seed: int
    ) -> None:
        opened = open_bank(artefact)
        opened.check_belongs(anchors.dataset)
        self.device = anchors.device
        self.mapped = opened.images  # (N, K, H, W, 3)
        self.images = resident(self.mapped, self.device)
        self.reads_ahead = self.images is None
        held = self.mapped.shape[1]
        self.used = held if config.candidates is None else config.candidates
        if self.used > held:
            raise ConfigError(f"candidates {self.used} exceed the {held} of bank {opened.name}")
        self.key = key_of(seed, "candidate")

    def choose(self, index: Tensor, epoch: int) -> Tensor:
        """Which candidate each anchor gets, int64 (B,) in [0, used)."""
        return integers(self.key, index, epoch, high=self.used, count=1).squeeze(1)

    def batch(self, index: Tensor, epoch: int) -> Positive | None:
        """Candidates of a batch, at the size that the bank holds."""
        candidate = self.choose(index, epoch)
        if self.images is not None:
            place = put(index, self.device), put(candidate, self.device)
            return Positive(coming=lambda: self.images[place])
        rows = index.cpu().numpy(), candidate.cpu().numpy()
        return Positive(coming=read_ahead(self.mapped, rows, self.device))
