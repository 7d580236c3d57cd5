"""All4One (arXiv:2303.09417): neighbours, their centroid and features (methods.md 2.5)."""

from typing import ClassVar

import torch
from pydantic import model_validator
from torch import Tensor, nn

from clsp.config.methods import HeadConfig, MomentumConfig, QueueConfig, Temperature
from clsp.config.strict import Fraction, PositiveFloat, PositiveInt
from clsp.models.ema import Teacher
from clsp.models.encoder import Encoder
from clsp.models.heads import build_mlp, unit
from clsp.pretrain.contract import Batch, Group, Moment, Step
from clsp.pretrain.forward import forward_batch, forward_views
from clsp.pretrain.losses.contrastive import cross_contrast
from clsp.pretrain.losses.redundancy import feature_contrast
from clsp.pretrain.queue import Queue
from clsp.runtime.keys import key_of


class Config(HeadConfig, MomentumConfig, QueueConfig):
    """Options of All4One."""

    temperature: Temperature  # of the neighbour term
    centroid_temperature: Temperature
    predictor_hidden: PositiveInt
    neighbours: PositiveInt
    layers: PositiveInt  # of the transformer
    heads: PositiveInt
    feed_forward: PositiveInt
    dropout: Fraction
    transformer_learning_rate: PositiveFloat  # scheduled as the recipe's, not scaled

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if self.projection % self.heads:
            raise ValueError(
                f"projection {self.projection} is not a multiple of heads {self.heads}"
            )
        if self.neighbours > self.queue:
            raise ValueError(f"neighbours {self.neighbours} are more than the queue {self.queue}")
        return self


def positions(count: int, width: int) -> Tensor:
    """The authors' positional encoding of neighbours, (count, width).

    A quirk that is kept (methods.md 2.5): the index of the neighbour is the channel and the index
    of the feature the position, sin(d w) for even neighbours and cos(d w) for odd ones with
    w = 10000^(-2 floor(n / 2) / c), where c is the count rounded up to an even number.
    """
    neighbour = torch.arange(count)
    channels = count + count % 2
    rate = 10000.0 ** (-2 * (neighbour // 2) / channels)
    angle = torch.arange(width)[None, :] * rate[:, None]  # (count, width)
    return torch.where(neighbour[:, None] % 2 == 0, angle.sin(), angle.cos())


class Method(nn.Module):
    """Two predictors, a transformer over neighbours, an average and a queue of its embeddings."""

    ALIGNED: ClassVar[str] = (
        "predictions (of the neighbour term) from view 1 and from the positive; gradient on both "
        "sides"
    )
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.encoder = encoder
        wide, narrow = config.hidden, config.projection
        self.projector = build_mlp([encoder.features, wide, wide, narrow], last_norm="affine")
        self.predictor = build_mlp([narrow, config.predictor_hidden, narrow])
        self.centroid_predictor = build_mlp([narrow, config.predictor_hidden, narrow])
        layer = nn.TransformerEncoderLayer(
            narrow, config.heads, config.feed_forward, config.dropout, batch_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.teacher = Teacher(self.online(), config.momentum_start, config.momentum_end)
        self.queue = Queue(1, config.queue, narrow, seed)
        self.register_buffer("positions", positions(config.neighbours, narrow), persistent=False)
        self.moment = 0

    def online(self) -> nn.Sequential:
        """What the average follows."""
        return nn.Sequential(self.encoder, self.projector)

    def groups(self) -> list[Group]:
        """The transformer has a base rate of its own."""
        rate = self.config.transformer_learning_rate
        return [Group(self.transformer.parameters(), rate)]

    def before_step(self, moment: Moment) -> dict[str, float]:
        """Move the average; note the step, which keys the transformer's dropout."""
        self.moment = moment.step
        return self.teacher.follow(self.online(), moment.step, moment.steps)

    def counters(self) -> dict[str, int]:
        """Updates of the moving average, for the manifest."""
        return {"ema_updates": int(self.teacher.updates)}

    def _centroids(self, sequences: list[Tensor], rank: int) -> list[Tensor]:
        """First output of the transformer for sequences (B / P, n, D): one (B / P, D) each.

        Dropout takes torch's global stream, so that is set from the step and put back. Processes
        that share a batch draw each for its own rows, so with dropout several equal one in
        distribution alone; process 0 has the key of a single one.
        """
        device = sequences[0].device
        key = key_of(self.seed, "dropout", self.moment, *([rank] if rank else []))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(key)
            return [self.transformer(s + self.positions)[:, 0] for s in sequences]

    def step(self, batch: Batch) -> Step:
        """The neighbour, centroid and feature terms, each with its share of the loss."""
        config, forward = self.config, self.config.forward
        z, z_3 = forward_batch(self.online(), batch, forward)
        shown = z if z_3 is None else [*z, z_3]
        p_1, p_2, *p_3 = forward_views(self.predictor, shown, forward)
        s_1, s_2 = forward_views(self.centroid_predictor, z, forward)
        m_1, m_2 = (unit(m) for m in forward_views(self.teacher, batch.views, forward))
        found = [self.queue.nearest(m, config.neighbours) for m in (m_1, m_2)]
        (near_1, who_1), (near_2, who_2) = found
        shifted = [
            torch.cat([s[:, None].to(near.dtype), near[:, :-1]], dim=1)
            for s, near in ((s_1, near_1), (s_2, near_2))
        ]
        centroids = self._centroids([near_1, near_2, *shifted], batch.team.rank)
        c_1, c_2, u_1, u_2 = batch.gather(*centroids)
        z_1, z_2, m_1, m_2 = batch.gather(*z, m_1, m_2)
        p_1, p_2, *p_3 = batch.gather(p_1, p_2, *p_3)
        near_1, near_2 = batch.gather(near_1[:, 0], near_2[:, 0])
        (who,) = batch.gather(torch.cat([who_1[:, :1], who_2[:, :1]], dim=1))
        first = cross_contrast(near_1, p_2, config.temperature)
        second = cross_contrast(near_2, p_1, config.temperature)
        centroid = (
            cross_contrast(c_1, u_2, config.centroid_temperature)
            + cross_contrast(c_2, u_1, config.centroid_temperature)
        ) / 2
        terms = {
            "neighbour": (first + second) / 4,
            "centroid": centroid / 2,
            "feature": feature_contrast(m_1, m_2, z_1, z_2) / 2,
        }
        self.queue.push(m_1[None], batch.index)
        return Step(terms, p_1, p_3[0] if p_3 else None, z_1, who)
