"""A third ordinary view of the same image: the authors' "aug" control (methods.md 2.1)."""

from torch import Tensor

from clsp.config.methods import SourceConfig
from clsp.pretrain.anchors import Anchors
from clsp.pretrain.contract import Positive
from clsp.runtime.manifest import Artefact


class Config(SourceConfig):
    """No options."""


class Source:
    """Gives the anchors themselves; the loop augments them as its third view."""

    def __init__(
        self, config: Config, anchors: Anchors, artefact: Artefact | None, seed: int
    ) -> None:
        del config, anchors, artefact, seed

    def batch(self, index: Tensor, epoch: int) -> Positive | None:
        """The anchors of a batch."""
        return Positive(rows=index)
