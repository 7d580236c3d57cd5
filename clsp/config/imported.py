"""Encoders that were pretrained elsewhere, judged like the suite's own."""

from typing import Literal

from pydantic import model_validator

from clsp.config.denoisers import Sha256
from clsp.config.recipe import Normalisation
from clsp.config.strict import Name, PositiveFloat, PositiveInt, Strict, Text


class ImportedEncoderEntry(Strict):
    """One checkpoint file and what params.yaml has to say about it."""

    label: Text  # as tables print it
    dataset: Name  # that it was pretrained on, and is judged on like runs of that dataset
    encoder: Name  # of `encoders`: its architecture
    # clsp: a state dict as the CLSP authors save it, torchvision's names with the head under fc.*;
    # torchvision: the same names, fc the classifier. A file of safetensors or of torch.save.
    format: Literal["clsp", "torchvision"]
    path: Text
    sha256: Sha256 | None = None  # None: whatever is there, recorded
    normalisation: Normalisation | None = None  # of its inputs; None: the prepared card's
    epochs: PositiveInt | None = None  # of its pretraining, if known
    linear_learning_rate: PositiveFloat | None = None  # of its probe; None: evaluation.linear's
    uses_labels: bool  # whether it was pretrained with labels; tables mark it

    @model_validator(mode="after")
    def _check(self) -> "ImportedEncoderEntry":
        if "[labels]" in self.label:
            raise ValueError("label must not contain [labels]; uses_labels adds it")
        return self
