"""SupCon (arXiv:2004.11362), in both published forms (methods.md 2.13). Uses labels."""

from typing import ClassVar, Literal

from torch import nn

from clsp.config.methods import MethodConfig, Temperature
from clsp.config.strict import PositiveInt
from clsp.models.encoder import Encoder
from clsp.models.heads import build_projection_head
from clsp.pretrain.contract import Batch, Step
from clsp.pretrain.forward import forward_batch
from clsp.pretrain.losses.contrastive import supcon, supcon_inside

FORMS = {"mean_outside_log": supcon, "sum_inside_log": supcon_inside}


class Config(MethodConfig):
    """Options of SupCon.

    `form` names the loss: the CLSP authors and SupContrast average over positives outside the log,
    solo-learn sums them inside it. They are different losses and get entries with labels of their
    own. `forward` decides the batch-norm statistics: clsp/pretrain/forward.py.
    """

    uses_labels: ClassVar[bool] = True
    form: Literal["mean_outside_log", "sum_inside_log"]
    temperature: Temperature
    hidden: PositiveInt
    projection: PositiveInt
    forward: Literal["joint", "separate", "four_gpu"]


class Method(nn.Module):
    """SimCLR's network; every image of the same class in the batch is a positive."""

    ALIGNED: ClassVar[str] = "projections of view 1 and of the positive; gradient on both sides"
    GATHERS: ClassVar[bool] = True

    def __init__(self, encoder: Encoder, config: Config, seed: int, classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = build_projection_head(encoder.features, config.hidden, config.projection)

    def step(self, batch: Batch) -> Step:
        """Contrast classes; the extra positive never enters the denominator."""
        network = nn.Sequential(self.encoder, self.head)
        (z_1, z_2), z_3 = forward_batch(network, batch, self.config.forward)
        z_1, z_2, z_3 = batch.gather(z_1, z_2, z_3)
        loss = FORMS[self.config.form](z_1, z_2, batch.labels, self.config.temperature)
        return Step({"supcon": loss}, z_1, z_3)
