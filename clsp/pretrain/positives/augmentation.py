"""A third ordinary view of the same image: the authors' "aug" control (methods.md 2.1)."""

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
    """Gives the anchors themselves; the loop augments them as its third view."""

    def __init__(self, config: Config, anchors: Anchors, bank: Artefact | None, seed: int) -> None:
        if bank is not None:
            raise ConfigError(f"positives augmentation takes no bank, found {bank.folder}")
        self.images = anchors.images

    def batch(self, index: Tensor, epoch: int) -> Tensor | None:
        """The anchors of a batch, uint8 (B, H, W, 3)."""
        return self.images[index]
