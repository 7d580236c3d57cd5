"""BYOL (arXiv:2006.07733): predict the moving average's view of the other crop (methods.md 2.6)."""

from typing import ClassVar

from torch import nn

from clsp.config.methods import HeadConfig, MomentumConfig
from clsp.config.strict import PositiveInt
from clsp.models.ema import Teacher
from clsp.models.encoder import Encoder
from clsp.models.heads import build_mlp
from clsp.pretrain.contract import Batch, Moment, Step
from clsp.pretrain.forward import forward_views
from clsp.pretrain.losses.alignment import byol


class Config(HeadConfig, MomentumConfig):
    """Options of BYOL."""

    predictor_hidden: PositiveInt


class Method(nn.Module):
    """Online network with a predictor, and the moving average of the network without it."""

    ALIGNED: ClassVar[str] = (
        "prediction from view 1 and the average's projection of the positive; gradient on view 1's "
        "side only, as in the method's own term, because without negatives two-sided pulling "
        "invites collapse"
    )
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = build_mlp([encoder.features, config.hidden, config.projection])
        self.predictor = build_mlp([config.projection, config.predictor_hidden, config.projection])
        self.teacher = Teacher(self.online(), config.momentum_start, config.momentum_end)

    def online(self) -> nn.Sequential:
        """What the average follows."""
        return nn.Sequential(self.encoder, self.projector)

    def before_step(self, moment: Moment) -> dict[str, float]:
        """Move the average."""
        return self.teacher.follow(self.online(), moment.step, moment.steps)

    def counters(self) -> dict[str, int]:
        """Updates of the moving average, for the manifest."""
        return {"ema_updates": int(self.teacher.updates)}

    def step(self, batch: Batch) -> Step:
        """Predict each view's average from the other view; the positive is seen by the average."""
        forward = self.config.forward
        z_1, z_2 = forward_views(self.online(), batch.views, forward)
        p_1, p_2 = forward_views(self.predictor, [z_1, z_2], forward)
        shown = batch.views if batch.positive is None else [*batch.views, batch.positive]
        t_1, t_2, *t_3 = forward_views(self.teacher, shown, forward)
        z_1, p_1, p_2, t_1, t_2, *t_3 = batch.gather(z_1, p_1, p_2, t_1, t_2, *t_3)
        loss = byol(p_1, p_2, t_1, t_2)
        return Step({"regression": loss}, p_1, t_3[0] if t_3 else None, z_1)
