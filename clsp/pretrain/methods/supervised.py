"""A supervised encoder: cross entropy on both views, the upper reference. Uses labels."""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import nn

from clsp.config.methods import MethodConfig
from clsp.models.encoder import Encoder
from clsp.pretrain.contract import Batch, Step
from clsp.pretrain.forward import forward_batch


class Config(MethodConfig):
    """Options of supervised training."""

    uses_labels: ClassVar[bool] = True
    forward: Literal["joint", "separate"]


class Method(nn.Module):
    """Encoder and a linear classifier, trained on the views that the other methods see."""

    ALIGNED: ClassVar[str] = (
        "backbone features of view 1 and of the positive, as there is no projector; gradient on "
        "both sides"
    )
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.features, classes)

    def step(self, batch: Batch) -> Step:
        """Mean cross entropy over both views."""
        (f_1, f_2), f_3 = forward_batch(self.encoder, batch, self.config.forward)
        logits = self.classifier(torch.cat([f_1, f_2])).chunk(2)
        f_1, f_3, *logits = batch.gather(f_1, f_3, *logits)
        logits = torch.cat(logits).float()  # (2B, classes)
        loss = F.cross_entropy(logits, torch.cat([batch.labels, batch.labels]))
        return Step({"cross_entropy": loss}, f_1, f_3)
