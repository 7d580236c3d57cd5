"""Another image of the anchor's class: an oracle, because it is told the labels."""

from typing import ClassVar

from torch import Tensor

from clsp.config.methods import SourceConfig
from clsp.pretrain.anchors import Anchors
from clsp.pretrain.contract import Positive
from clsp.pretrain.partners import SetPartners
from clsp.runtime.manifest import Artefact
from clsp.runtime.rng import key_of


class Config(SourceConfig):
    """No options."""

    uses_labels: ClassVar[bool] = True


class Source:
    """Draws anew in every epoch, uniformly; an anchor alone in its class is its own positive."""

    def __init__(
        self, config: Config, anchors: Anchors, artefact: Artefact | None, seed: int
    ) -> None:
        self.partners = SetPartners(anchors.labels.to(anchors.place), key_of(seed, "partner"))

    def batch(self, index: Tensor, epoch: int) -> Positive | None:
        """Partners of a batch, among the training images."""
        return Positive(rows=self.partners.choose(index, epoch))
