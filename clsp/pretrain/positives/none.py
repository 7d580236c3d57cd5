"""No positive: the plain method."""

from typing import ClassVar

from torch import Tensor

from clsp.config.strict import Strict
from clsp.pretrain.anchors import Anchors
from clsp.runtime.errors import ConfigError
from clsp.runtime.manifest import Artefact


class Config(Strict):
    """No options."""

    needs_bank: ClassVar[bool] = False


class Source:
    """Gives nothing."""

    def __init__(self, config: Config, anchors: Anchors, bank: Artefact | None, seed: int) -> None:
        if bank is not None:
            raise ConfigError(f"positives none takes no bank, found {bank.folder}")

    def batch(self, index: Tensor, epoch: int) -> Tensor | None:
        """None for every batch."""
        return None
