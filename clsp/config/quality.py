"""How the quality of banks is measured: the shapes of `quality:` and of the jobs behind it."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from clsp.config.denoisers import Sha256
from clsp.config.evaluation import LinearSpec
from clsp.config.strict import Distinct, Name, PositiveInt, Seed, Share, Slug, Strict, Text

INCEPTION = "inception-v3"  # how tables name that network
PROTOCOL = "quality"  # of a bank's numbers, beside "linear" and others of encoders

Counts = Annotated[tuple[PositiveInt, ...], Field(min_length=1), Distinct]


class InceptionSpec(Strict):
    """The Inception-v3 weights of FID, in a file of the user's."""

    path: Text
    sha256: Sha256 | None = None  # None: whatever is there, recorded


class _Measuring(Strict):
    """What an entry and the jobs that follow from it have in common."""

    # Exactly one of the two. encoder: a run or imported encoder; distances on its features are
    # called Frechet distances, not FID.
    encoder: Slug | None = None
    inception: InceptionSpec | None = None
    anchors: PositiveInt  # so many, spread evenly over the training images, are measured
    candidates: Counts  # the first k of each anchor, for every k listed
    # A candidate is a near copy of its nearest training image if it is closer to it than this share
    # of the distance from that image to its own nearest other one.
    near_copy: Share
    seed: Seed  # of the linear probe

    @model_validator(mode="after")
    def _check_network(self) -> "_Measuring":
        if (self.encoder is None) == (self.inception is None):
            raise ValueError("give exactly one of encoder and inception")
        return self

    @property
    def network(self) -> str:
        """Name of the network whose features are compared."""
        return self.encoder or INCEPTION

    @property
    def distance(self) -> str:
        """What the distance between the two sets of features is called."""
        return "frechet_distance" if self.inception is None else "fid"


class QualityEntry(_Measuring):
    """Quality figures of banks. The network whose features are compared is named, never chosen."""

    label_agreement: bool  # with a linear probe; analysis only, reads labels of training images
    # Options of each bank to vary, one at a time around what the entry says: {steps: [5, 20]}
    # measures banks that no run may read. Keys are options of the bank's generator.
    vary: dict[Name, Annotated[tuple[Any, ...], Field(min_length=1), Distinct]] | None = None
    banks: Annotated[tuple[Name, ...], Field(min_length=1), Distinct] | None = (
        None  # None: those that runs read
    )


class QualitySpec(_Measuring):
    """Everything that decides the quality figures of one bank."""

    bank: Name
    dataset: Name  # whose training images are the anchors
    label_agreement: LinearSpec | None = None  # the probe; None: no label is read


def metrics_of(measuring: QualityEntry | QualitySpec, k: int) -> list[str]:
    """Names of the numbers of the first k candidates, in the order of tables."""
    names = [measuring.distance, "own_cosine", "random_cosine", "nearer_cosine"]
    names += ["own_mse", "random_mse", "nearer_mse"]
    names += ["diversity_cosine", "diversity_mse"] if k > 1 else []
    for space in ("feature", "pixel"):
        about = ("nearest_own", "distance_ratio", "near_copies", "copies_of_others")
        names += [f"{name}_{space}" for name in about]
    return [*names, "label_agreement", "anchor_accuracy"] if measuring.label_agreement else names
