"""SimSiam (arXiv:2011.10566): BYOL without a moving average (methods.md 2.7)."""

from typing import ClassVar

from torch import nn

from clsp.config.methods import HeadConfig
from clsp.config.strict import PositiveInt
from clsp.models.encoder import Encoder
from clsp.models.heads import build_mlp
from clsp.pretrain.contract import Batch, Group, Step
from clsp.pretrain.forward import forward_batch, forward_views
from clsp.pretrain.losses.alignment import negative_cosine


class Config(HeadConfig):
    """Options of SimSiam."""

    predictor_hidden: PositiveInt


class Method(nn.Module):
    """Projector that ends in batch norm without affine parameters, and a bottleneck predictor."""

    ALIGNED: ClassVar[str] = (
        "prediction from view 1 and projection of the positive, the latter detached as in the "
        "method's own term: two-sided pulling without negatives invites collapse"
    )
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        wide, narrow = config.hidden, config.projection
        self.projector = build_mlp(
            [encoder.features, wide, wide, narrow], bias=False, last_norm="plain"
        )
        self.predictor = build_mlp([narrow, config.predictor_hidden, narrow], bias=False)

    def groups(self) -> list[Group]:
        """The predictor's rate stays constant."""
        return [Group(self.predictor.parameters(), constant=True)]

    def step(self, batch: Batch) -> Step:
        """Predict each view's projection from the other view."""
        forward = self.config.forward
        network = nn.Sequential(self.encoder, self.projector)
        (z_1, z_2), z_3 = forward_batch(network, batch, forward)
        p_1, p_2 = forward_views(self.predictor, [z_1, z_2], forward)
        z_1, z_2, z_3, p_1, p_2 = batch.gather(z_1, z_2, z_3, p_1, p_2)
        loss = (negative_cosine(p_1, z_2) + negative_cosine(p_2, z_1)) / 2
        return Step({"negative_cosine": loss}, p_1, None if z_3 is None else z_3.detach(), z_1)
