"""Barlow Twins (arXiv:2103.03230): cross-correlation towards the identity (methods.md 2.8)."""

from typing import ClassVar

from torch import nn

from clsp.config.methods import HeadConfig
from clsp.config.strict import PositiveFloat
from clsp.models.encoder import Encoder
from clsp.models.heads import build_mlp
from clsp.pretrain.contract import Batch, Step
from clsp.pretrain.forward import forward_batch
from clsp.pretrain.losses.redundancy import barlow_twins


class Config(HeadConfig):
    """Options of Barlow Twins."""

    off_diagonal_weight: PositiveFloat  # lambda of its Eq. 1
    scale: PositiveFloat  # of the whole loss


class Method(nn.Module):
    """Encoder and a projector of three layers."""

    ALIGNED: ClassVar[str] = "projections of view 1 and of the positive; gradient on both sides"
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        wide = config.hidden
        self.projector = build_mlp([encoder.features, wide, wide, config.projection])

    def step(self, batch: Batch) -> Step:
        """Decorrelate the features of two views that agree."""
        config = self.config
        network = nn.Sequential(self.encoder, self.projector)
        (z_1, z_2), z_3 = forward_batch(network, batch, config.forward)
        z_1, z_2, z_3 = batch.gather(z_1, z_2, z_3)
        loss = barlow_twins(z_1, z_2, config.off_diagonal_weight, config.scale)
        return Step({"barlow": loss}, z_1, z_3)
