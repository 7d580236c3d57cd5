"""NNCLR (arXiv:2104.14548): the nearest past embedding takes the view's place (methods.md 2.4)."""

from typing import ClassVar

import torch
from torch import nn

from clsp.config.methods import HeadConfig, QueueConfig, Temperature
from clsp.config.strict import PositiveInt
from clsp.models.encoder import Encoder
from clsp.models.heads import build_mlp
from clsp.pretrain.contract import Batch, Step
from clsp.pretrain.forward import forward_batch, forward_views
from clsp.pretrain.losses.contrastive import cross_contrast
from clsp.pretrain.queue import Queue


class Config(HeadConfig, QueueConfig):
    """Options of NNCLR."""

    temperature: Temperature
    predictor_hidden: PositiveInt


class Method(nn.Module):
    """Projector, predictor and a queue of the projections of view 1.

    Neighbours are searched before the batch enters the queue, or each view would find itself.
    """

    ALIGNED: ClassVar[str] = (
        "predictions from view 1 and from the positive, because the method's own gradient enters "
        "through predictions alone; gradient on both sides"
    )
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        wide, narrow = config.hidden, config.projection
        self.projector = build_mlp([encoder.features, wide, wide, narrow], last_norm="affine")
        self.predictor = build_mlp([narrow, config.predictor_hidden, narrow])
        self.queue = Queue(1, config.queue, narrow, seed)

    def step(self, batch: Batch) -> Step:
        """Predict each view from the neighbour of the other."""
        forward, temperature = self.config.forward, self.config.temperature
        network = nn.Sequential(self.encoder, self.projector)
        (z_1, z_2), z_3 = forward_batch(network, batch, forward)
        shown = [z_1, z_2] if z_3 is None else [z_1, z_2, z_3]
        p_1, p_2, *p_3 = forward_views(self.predictor, shown, forward)
        z_1, z_2, p_1, p_2, *p_3 = batch.gather(z_1, z_2, p_1, p_2, *p_3)
        (near_1, who_1), (near_2, who_2) = (self.queue.nearest(z.detach()) for z in (z_1, z_2))
        first = cross_contrast(near_1[:, 0], p_2, temperature)
        second = cross_contrast(near_2[:, 0], p_1, temperature)
        self.queue.push(z_1[None], batch.index)
        return Step(
            {"info_nce": (first + second) / 2},
            p_1,
            p_3[0] if p_3 else None,
            z_1,
            torch.cat([who_1, who_2], dim=1),
        )
