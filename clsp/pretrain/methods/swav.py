"""SwAV (arXiv:2006.09882): swapped prediction of equipartitioned assignments (methods.md 2.10)."""

from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from clsp.config.methods import HeadConfig, Temperature
from clsp.config.strict import NonNegativeInt, PositiveInt
from clsp.models.encoder import Encoder
from clsp.models.heads import Prototypes, build_mlp, freeze_gradient
from clsp.pretrain.contract import Batch, Moment, Step
from clsp.pretrain.forward import forward_batch
from clsp.pretrain.losses.clustering import sinkhorn, swav
from clsp.pretrain.queue import Queue


class Config(HeadConfig):
    """Options of SwAV."""

    temperature: Temperature
    prototypes: PositiveInt  # K
    epsilon: Annotated[float, Field(ge=0.02)]  # of Sinkhorn-Knopp; below, float32 underflows
    iterations: PositiveInt  # of Sinkhorn-Knopp
    stored: NonNegativeInt  # past embeddings of each view that take part in Sinkhorn-Knopp; 0: none
    stored_from_epoch: NonNegativeInt
    frozen_prototype_epochs: NonNegativeInt

    def check_batch(self, batch_size: int) -> None:
        """An equal share of the samples for every prototype needs at least one sample for each."""
        if self.stored % batch_size:
            raise ValueError(f"stored {self.stored} is not a multiple of batch_size {batch_size}")
        if self.prototypes > batch_size + self.stored:
            raise ValueError(
                f"prototypes {self.prototypes} are more than the batch_size {batch_size} + "
                f"stored {self.stored} samples that have to fill them"
            )

    def check_epochs(self, epochs: int) -> None:
        """What begins later in the run has to begin within it."""
        if self.frozen_prototype_epochs >= epochs:
            raise ValueError(
                f"frozen_prototype_epochs {self.frozen_prototype_epochs} must be below "
                f"epochs {epochs}"
            )
        if self.stored and self.stored_from_epoch >= epochs:
            raise ValueError(
                f"stored_from_epoch {self.stored_from_epoch} must be below epochs {epochs}"
            )

    def check_images(self, count: int) -> None:
        """A prototype needs an image."""
        if self.prototypes > count:
            raise ValueError(f"prototypes {self.prototypes} are more than the {count} images")


class Method(nn.Module):
    """Projector, prototypes and, later in the run, past embeddings that fill the assignments."""

    ALIGNED: ClassVar[str] = "projections of view 1 and of the positive; gradient on both sides"
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.projector = build_mlp([encoder.features, config.hidden, config.projection])
        self.prototypes = Prototypes(config.prototypes, config.projection)
        self.queue = Queue(2, config.stored, config.projection, seed) if config.stored else None
        self.epoch = 0

    def before_step(self, moment: Moment) -> dict[str, float]:
        """Note the epoch, which decides whether past embeddings take part."""
        self.epoch = moment.epoch
        return {}

    def before_update(self, moment: Moment) -> None:
        """Leave the prototypes as they are in the first epochs."""
        if moment.epoch < self.config.frozen_prototype_epochs:
            freeze_gradient(self.prototypes)

    @torch.no_grad()
    def _assign(self, view: int, scores: Tensor) -> Tensor:
        """Assignments (B, K) of a view, from its scores and those of past embeddings."""
        config = self.config
        if self.queue is not None and self.epoch >= config.stored_from_epoch:
            past = self.prototypes(self.queue.rows[view])
            scores_of_all = torch.cat([scores.float(), past.float()])
        else:
            scores_of_all = scores
        return sinkhorn(scores_of_all, config.epsilon, config.iterations)[: len(scores)]

    def step(self, batch: Batch) -> Step:
        """Each view predicts the assignment of the other."""
        network = nn.Sequential(self.encoder, self.projector)
        (z_1, z_2), z_3 = forward_batch(network, batch, self.config.forward)
        scores = [self.prototypes(z) for z in (z_1, z_2)]
        z_1, z_2, z_3, *scores = batch.gather(z_1, z_2, z_3, *scores)
        assignments = [self._assign(view, score.detach()) for view, score in enumerate(scores)]
        loss = swav(scores, assignments, self.config.temperature)
        if self.queue is not None:
            self.queue.push(torch.stack([z_1, z_2]), batch.index)
        return Step({"swapped": loss}, z_1, z_3)
