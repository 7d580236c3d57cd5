"""How encoders are judged: the shapes of `evaluation:` and of the jobs that follow from it."""

from typing import Annotated

from pydantic import Field, FiniteFloat, model_validator

from clsp.config.strict import (
    Distinct,
    Name,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    Slug,
    Strict,
)


class LinearSpec(Strict):
    """Offline linear probe (methods.md 4): SGD on features extracted once."""

    epochs: PositiveInt
    batch_size: PositiveInt
    learning_rate: PositiveFloat
    momentum: Share
    weight_decay: NonNegativeFloat
    milestones: tuple[PositiveInt, ...]  # epochs after which the rate is multiplied by decay
    decay: PositiveFloat
    flip: bool  # the authors' variant: training features of the image and its mirror image


class KnnSpec(Strict):
    """Weighted kNN on L2-normalised backbone features."""

    k: PositiveInt  # the headline, fixed in advance
    temperature: PositiveFloat
    best_of: tuple[PositiveInt, ...]  # the authors' extra: best k chosen on the test set


class ProbeSpec(Strict):
    """Linear probe and kNN of one encoder on its own dataset."""

    run: Slug
    linear: LinearSpec
    knn: KnnSpec
    seed: Seed


class LogisticSpec(Strict):
    """L2-regularised logistic regression by L-BFGS over a grid of regularisers."""

    low: FiniteFloat  # log10 of the smallest lambda
    high: FiniteFloat
    count: PositiveInt
    max_iterations: PositiveInt
    tolerance: PositiveFloat  # on the largest gradient entry
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]  # where no official split exists
    seed: Seed

    @model_validator(mode="after")
    def _check(self) -> "LogisticSpec":
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, found {self.low} and {self.high}")
        return self


class TransferEntry(Strict):
    """The transfer protocol and its datasets."""

    datasets: Annotated[tuple[Name, ...], Field(min_length=1), Distinct]
    logistic: LogisticSpec


class TransferSpec(Strict):
    """Transfer of one encoder to all downstream datasets."""

    run: Slug
    datasets: tuple[Name, ...]
    logistic: LogisticSpec


class EvaluationEntry(Strict):
    """How encoders are judged."""

    linear: LinearSpec
    knn: KnnSpec
    transfer: TransferEntry | None = None
    seed: Seed
