"""ReSSL (arXiv:2107.09282): keep the weak view's relations to past keys (methods.md 2.12)."""

from typing import ClassVar

import torch
from pydantic import model_validator
from torch import Tensor, nn

from clsp.config.methods import HeadConfig, MomentumConfig, QueueConfig, Temperature
from clsp.models.ema import Teacher
from clsp.models.encoder import Encoder
from clsp.models.heads import build_projection_head, unit
from clsp.pretrain.contract import Batch, Moment, Step
from clsp.pretrain.forward import forward_positive, forward_views
from clsp.pretrain.losses.clustering import relational
from clsp.pretrain.queue import Queue


class Config(HeadConfig, MomentumConfig, QueueConfig):
    """Options of ReSSL. Its recipe gives the weak view as `second_view`."""

    temperature: Temperature  # of the strong view
    key_temperature: Temperature  # of the weak view's target; sharper

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.key_temperature >= self.temperature:
            raise ValueError(
                f"key_temperature must be below temperature {self.temperature}, "
                f"found {self.key_temperature}"
            )
        return self


class Method(nn.Module):
    """Online network on view 1 (strong), its moving average on view 2 (weak); one direction."""

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
        self.queue = Queue(1, config.queue, config.projection, seed)

    def online(self) -> nn.Sequential:
        """What the average follows."""
        return nn.Sequential(self.encoder, self.head)

    def before_step(self, moment: Moment) -> dict[str, float]:
        """Move the average."""
        return self.teacher.follow(self.online(), moment.step, moment.steps)

    def counters(self) -> dict[str, int]:
        """Updates of the moving average, for the manifest."""
        return {"ema_updates": int(self.teacher.updates)}

    def _embed(
        self, strong: Tensor, weak: Tensor, positive: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Online embeddings (B, D) of the strong view and of the positive.

        solo-learn passes the weak view through the online network too and drops the result. It
        reaches the running statistics, which evaluation uses, and is kept for them.
        """
        if self.config.forward == "joint":
            shown = [strong] if positive is None else [strong, positive]
            z_1, *z_3 = forward_views(self.online(), shown, "joint")
            return z_1, z_3[0] if z_3 else None
        z_1 = self.online()(strong)
        with torch.no_grad():
            self.encoder(weak)
        return z_1, forward_positive(self.online(), positive)

    def step(self, batch: Batch) -> Step:
        """The strong view matches the weak view's similarities with past keys."""
        config = self.config
        strong, weak = batch.views
        z_1, z_3 = self._embed(strong, weak, batch.positive)
        z_1, z_3, key = batch.gather(z_1, z_3, self.teacher(weak))
        key = unit(key)
        past = self.queue.past()[0]
        loss = relational(unit(z_1), key, past, config.temperature, config.key_temperature)
        self.queue.push(key[None], batch.index)
        return Step({"relation": loss}, z_1, z_3)
