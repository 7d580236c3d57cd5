"""SimCLR (arXiv:2002.05709) as the CLSP authors train it (methods.md 2.1, 2.2)."""

from typing import ClassVar, Literal

from torch import nn

from clsp.config.methods import MethodConfig, Temperature
from clsp.config.strict import PositiveInt
from clsp.models.encoder import Encoder
from clsp.models.heads import build_projection_head
from clsp.pretrain.contract import Batch, Step
from clsp.pretrain.forward import forward_batch
from clsp.pretrain.losses.contrastive import nt_xent


class Config(MethodConfig):
    """Options of SimCLR. `forward` decides the batch-norm statistics: clsp/pretrain/forward.py."""

    temperature: Temperature
    hidden: PositiveInt
    projection: PositiveInt
    forward: Literal["joint", "separate", "four_gpu"]


class Method(nn.Module):
    """Encoder and projection head; both views and the positive are embedded alike."""

    ALIGNED: ClassVar[str] = "projections of view 1 and of the positive; gradient on both sides"
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = build_projection_head(encoder.features, config.hidden, config.projection)

    def step(self, batch: Batch) -> Step:
        """Contrast the two views; the positive never enters the denominator."""
        network = nn.Sequential(self.encoder, self.head)
        (z_1, z_2), z_3 = forward_batch(network, batch, self.config.forward)
        z_1, z_2, z_3 = batch.gather(z_1, z_2, z_3)
        return Step({"info_nce": nt_xent(z_1, z_2, self.config.temperature)}, z_1, z_3)
