"""An image that a frozen encoder holds to be alike: SePP (methods.md 2.14, inferred; D19)."""

from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from clsp.config.methods import SourceConfig
from clsp.data.pairs import open_pairs
from clsp.pretrain.anchors import Anchors
from clsp.pretrain.contract import Positive
from clsp.pretrain.partners import PairPartners
from clsp.runtime.manifest import Artefact
from clsp.runtime.rng import key_of


class Config(SourceConfig):
    """No options; the pairs are named by the entry's `pairs`."""

    reads: ClassVar[str | None] = "pairs"


class Source:
    """Draws one of the partners of each anchor; one in no pair is its own positive (inferred)."""

    def __init__(
        self, config: Config, anchors: Anchors, artefact: Artefact | None, seed: int
    ) -> None:
        opened = open_pairs(artefact)
        opened.check_belongs(anchors.dataset)
        left, right = (
            torch.from_numpy(np.array(opened.pairs[side], dtype=np.int64)).to(anchors.place)
            for side in ("left", "right")
        )
        self.partners = PairPartners(left, right, len(anchors), key_of(seed, "pair"))

    def batch(self, index: Tensor, epoch: int) -> Positive | None:
        """Partners of a batch, among the training images."""
        return Positive(rows=self.partners.choose(index, epoch))
