"""A synthetic candidate of the anchor, drawn anew whenever the anchor is read (methods.md 2.1)."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from clsp.config.strict import Strict
from clsp.data.bank import open_bank
from clsp.pretrain.anchors import Anchors
from clsp.runtime.errors import ConfigError
from clsp.runtime.manifest import Artefact
from clsp.runtime.rng import integers, key_of

SHARE = 4  # a bank may take this part (1/4) of the free device memory; else it stays on disk


class Config(Strict):
    """No options; the bank is named by the entry's `bank`."""

    needs_bank: ClassVar[bool] = True


def resident(images: np.ndarray, device: torch.device) -> Tensor | None:
    """The bank on the device, or None where it is gathered from its memory map instead.

    On the CPU the map itself is as good as a copy. On a GPU the bank moves there if it takes at
    most a quarter of the free memory (CIFAR with K = 8: 1.2 GB).
    """
    if device.type == "cpu":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return torch.from_numpy(np.array(images)).to(device) if images.nbytes * SHARE <= free else None


class Source:
    """Draws one of the K candidates of each anchor, uniformly."""

    def __init__(self, config: Config, anchors: Anchors, bank: Artefact | None, seed: int) -> None:
        if bank is None:
            raise ConfigError("positives bank needs a bank, and none was given")
        opened = open_bank(bank)
        opened.check_belongs(anchors.dataset)
        self.device = anchors.images.device
        self.mapped = opened.images  # (N, K, H, W, 3)
        self.images = resident(self.mapped, self.device)
        self.key = key_of(seed, "candidate")

    def choose(self, index: Tensor, epoch: int) -> Tensor:
        """Which candidate each anchor gets, int64 (B,) in [0, K)."""
        return integers(self.key, index, epoch, high=self.mapped.shape[1], count=1).squeeze(1)

    def batch(self, index: Tensor, epoch: int) -> Tensor | None:
        """Candidates of a batch, uint8 (B, H, W, 3)."""
        candidate = self.choose(index, epoch)
        if self.images is not None:
            return self.images[index, candidate]
        chosen = self.mapped[index.cpu().numpy(), candidate.cpu().numpy()]
        return torch.from_numpy(chosen).to(self.device)
