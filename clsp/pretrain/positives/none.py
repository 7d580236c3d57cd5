"""No positive: the plain method."""

from torch import Tensor

from clsp.config.methods import SourceConfig
from clsp.pretrain.anchors import Anchors
from clsp.pretrain.contract import Positive
from clsp.runtime.manifest import Artefact


class Config(SourceConfig):
    """No options."""


class Source:
    """Gives nothing."""

    def __init__(
        self, config: Config, anchors: Anchors, artefact: Artefact | None, seed: int
    ) -> None:
        del config, anchors, artefact, seed

    def batch(self, index: Tensor, epoch: int) -> Positive | None:
        """None for every batch."""
        return None
