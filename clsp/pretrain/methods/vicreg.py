"""VICReg (arXiv:2105.04906): invariance, variance and covariance (methods.md 2.9)."""

from typing import ClassVar

from torch import nn

from clsp.config.methods import HeadConfig
from clsp.config.strict import NonNegativeFloat
from clsp.models.encoder import Encoder
from clsp.models.heads import build_mlp
from clsp.pretrain.contract import Batch, Step
from clsp.pretrain.forward import forward_batch
from clsp.pretrain.losses.redundancy import covariance, invariance, variance


class Config(HeadConfig):
    """Options of VICReg in solo-learn's units; its authors' variance weight counts half."""

    invariance_weight: NonNegativeFloat
    variance_weight: NonNegativeFloat
    covariance_weight: NonNegativeFloat


class Method(nn.Module):
    """Encoder and a projector of three layers. Each term is logged with its weight."""

    ALIGNED: ClassVar[str] = "projections of view 1 and of the positive; gradient on both sides"
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        wide = config.hidden
        self.projector = build_mlp([encoder.features, wide, wide, config.projection])

    def step(self, batch: Batch) -> Step:
        """The three weighted terms of two views."""
        config = self.config
        network = nn.Sequential(self.encoder, self.projector)
        (z_1, z_2), z_3 = forward_batch(network, batch, config.forward)
        z_1, z_2, z_3 = batch.gather(z_1, z_2, z_3)
        terms = {
            "invariance": config.invariance_weight * invariance(z_1, z_2),
            "variance": config.variance_weight * variance(z_1, z_2),
            "covariance": config.covariance_weight * covariance(z_1, z_2),
        }
        return Step(terms, z_1, z_3)
