"""SimCLR (arXiv:2002.05709) as the CLSP authors train it (methods.md 2.1, 2.2)."""

from typing import Literal

from torch import Tensor, nn

from clsp.config.strict import PositiveFloat, PositiveInt, Strict
from clsp.models.encoder import Encoder
from clsp.models.heads import build_projection_head
from clsp.pretrain.contract import Step
from clsp.pretrain.forward import forward_views
from clsp.pretrain.losses import nt_xent


class Config(Strict):
    """Options of SimCLR. `forward` decides the batch-norm statistics: clsp/pretrain/forward.py."""

    temperature: PositiveFloat
    hidden: PositiveInt
    projection: PositiveInt
    forward: Literal["joint", "separate", "four_gpu"]


class Method(nn.Module):
    """Encoder and projection head; both views and the positive are embedded alike."""

    def __init__(self, encoder: Encoder, config: Config, seed: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = build_projection_head(encoder.features, config.hidden, config.projection)

    def step(self, views: list[Tensor], positive: Tensor | None) -> Step:
        """Contrast the two views; the positive never enters the denominator."""
        shown = views if positive is None else [*views, positive]
        network = nn.Sequential(self.encoder, self.head)
        z_1, z_2, *rest = forward_views(network, shown, self.config.forward)
        loss = nt_xent(z_1, z_2, self.config.temperature)
        return Step({"info_nce": loss}, z_1, rest[0] if rest else None)
