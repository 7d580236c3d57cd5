"""How the quality of banks is measured: the shapes of `quality:` and of the jobs behind it."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from clsp.config.denoisers import Sha256
from clsp.config.strict import Distinct, Name, PositiveInt, Seed, Slug, Strict, Text


class InceptionSpec(Strict):
    """The Inception-v3 weights of FID, in a file of the user's."""

    path: Text
    sha256: Sha256 | None = None


class QualityEntry(Strict):
    """Quality figures of banks. The network whose features are compared is named, never chosen."""

    # Exactly one of the two. encoder: a run or imported encoder; distances on its features are
    # called Frechet distances, not FID.
    encoder: Slug | None = None
    inception: InceptionSpec | None = None
    anchors: PositiveInt  # so many, spread evenly over the training images, are measured
    candidates: Annotated[tuple[PositiveInt, ...], Field(min_length=1), Distinct]  # first k of each
    label_agreement: bool  # with a linear probe; analysis only, reads labels of training images
    # Options of each bank to vary, one at a time around what the entry says: {w: [...]} measures
    # banks that no run may read. Keys are options of the bank's generator.
    vary: dict[Name, Annotated[tuple[Any, ...], Field(min_length=1)]] | None = None
    banks: Annotated[tuple[Name, ...], Distinct] | None = None  # None: those that runs read
    seed: Seed

    @model_validator(mode="after")
    def _check_network(self) -> "QualityEntry":
        if (self.encoder is None) == (self.inception is None):
            raise ValueError("give exactly one of encoder and inception")
        return self
