"""MoCo v2+: symmetric, with two queues, as the CLSP authors train it (methods.md 2.1, 2.3)."""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from clsp.config.methods import MomentumConfig, QueueConfig, Temperature
from clsp.config.strict import PositiveInt
from clsp.models.ema import Teacher
from clsp.models.encoder import Encoder
from clsp.models.heads import build_projection_head
from clsp.pretrain.contract import Batch, Moment, Step
from clsp.pretrain.forward import forward_views
from clsp.pretrain.losses.contrastive import info_nce
from clsp.pretrain.queue import Queue
from clsp.runtime.team import Team


class Config(MomentumConfig, QueueConfig):
    """Options of MoCo. `forward` decides the batch-norm statistics: clsp/pretrain/forward.py."""

    temperature: Temperature
    hidden: PositiveInt
    projection: PositiveInt
    forward: Literal["separate", "four_gpu"]


class Method(nn.Module):
    """Online network, its moving average and two queues of past keys. No shuffle-BN."""

    ALIGNED: ClassVar[str] = (
        "online projections of view 1 and of the positive; gradient on both sides"
    )
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = build_projection_head(encoder.features, config.hidden, config.projection)
        self.teacher = Teacher(self.online(), config.momentum_start, config.momentum_end)
        self.queue = Queue(2, config.queue, config.projection, seed)  # past k_1, past k_2

    def online(self) -> nn.Sequential:
        """What the average follows."""
        return nn.Sequential(self.encoder, self.head)

    def before_step(self, moment: Moment) -> dict[str, float]:
        """Move the average."""
        return self.teacher.follow(self.online(), moment.step, moment.steps)

    def counters(self) -> dict[str, int]:
        """Updates of the moving average, for the manifest."""
        return {"ema_updates": int(self.teacher.updates)}

    def _embed(self, network: nn.Module, images: Tensor, team: Team) -> Tensor:
        return forward_views(network, [images], self.config.forward, team)[0]

    def step(self, batch: Batch) -> Step:
        """Contrast each view with the other's key; the positive is seen by the online side only."""
        online, temperature = self.online(), self.config.temperature
        shown = batch.views if batch.positive is None else [*batch.views, batch.positive]
        q_1, q_2, *q_3 = (self._embed(online, images, batch.team) for images in shown)
        k_1, k_2 = (self._embed(self.teacher, view, batch.team) for view in batch.views)
        q_1, q_2, k_1, k_2, *q_3 = batch.gather(q_1, q_2, k_1, k_2, *q_3)
        past = self.queue.past()
        first = info_nce(q_1, k_2, past[1], temperature)
        second = info_nce(q_2, k_1, past[0], temperature)
        self.queue.push(torch.stack([k_1, k_2]), batch.index)
        return Step({"info_nce": (first + second) / 2}, q_1, q_3[0] if q_3 else None)
