"""How encoders are judged: the shapes of `evaluation:` and of the jobs that follow from it."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from clsp.config.strict import (
    Distinct,
    Fraction,
    Name,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    Slug,
    Strict,
)


class RateGridSpec(Strict):
    """Learning rates of the linear probe that are tried beside its own, all at once.

    The best on validation images, carved from the training images class by class (D15), yields a
    result of its own; the number of `learning_rate` stays the headline (D35).
    """

    learning_rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1), Distinct]
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]


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
    grid: RateGridSpec | None = None  # rates tried for an extra result; None: only the fixed one


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
    # Where no official split exists. ssl_transfer: that code's own draw, index by index;
    # stratified: the same share of every class (D15).
    validation: Literal["ssl_transfer", "stratified"]
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed  # of the draw

    @model_validator(mode="after")
    def _check(self) -> "LogisticSpec":
        if self.low > self.high:
            raise ValueError(f"low must not exceed high, found {self.low} and {self.high}")
        return self


class FewShotSpec(Strict):
    """Few labels per class, and label fractions, from the cached features.

    Features are L2-normalised and the regulariser is fixed in advance: so few images leave none to
    choose it on, and methods differ in the scale of their features.
    """

    shots: Annotated[tuple[PositiveInt, ...], Distinct]  # images per class
    fractions: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Distinct]
    draws: PositiveInt  # of training images, for each point of the curves
    log10_lambda: FiniteFloat
    max_iterations: PositiveInt
    tolerance: PositiveFloat
    seed: Seed

    @property
    def points(self) -> dict[str, float | int]:
        """What every point of the curves is called in results, and its shots or fraction."""
        shots = {f"shots={shots}": shots for shots in self.shots}
        return shots | {f"fraction={share:.12g}": share for share in self.fractions}


class FineTuneSpec(Strict):
    """Fine-tuning of all weights: SGD with Nesterov momentum and a cosine schedule."""

    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]  # batch norm has no spread of one image
    learning_rates: Annotated[tuple[PositiveFloat, ...], Field(min_length=1), Distinct]
    weight_decays: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1), Distinct]
    momentum: Share
    crop_scale: Annotated[float, Field(gt=0, le=1)]  # least area of a random crop
    flip: Fraction
    validation: Literal["ssl_transfer", "stratified"]
    validation_fraction: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed


Floors = Annotated[tuple[Literal["random", "pixels"], ...], Distinct]


class TransferEntry(Strict):
    """The transfer protocols and their datasets."""

    datasets: Annotated[tuple[Name, ...], Field(min_length=1), Distinct]
    logistic: LogisticSpec
    few_shot: FewShotSpec | None = None
    fine_tune: FineTuneSpec | None = None
    floors: Floors | None = None  # judged like encoders: an untrained one, the pixels themselves


class FeatureSpec(Strict):
    """Features of one frozen encoder, or of a floor, on every dataset that it is judged on."""

    run: Slug  # whose encoder; of a floor, its own name
    source: Literal["encoder", "random", "pixels"]
    # The dataset of the linear probe and kNN: the encoder's own, or what that is judged on.
    # Of a floor, none.
    own: Name | None = None
    mirrored: bool  # also the mirror images of the own training images (linear.flip)
    tasks: tuple[Name, ...]  # downstream datasets


class TransferSpec(Strict):
    """Transfer of one encoder to all downstream datasets."""

    run: Slug
    datasets: tuple[Name, ...]
    logistic: LogisticSpec


class FewShotJobSpec(Strict):
    """Few-shot and label-fraction curves of one encoder on all downstream datasets."""

    run: Slug
    datasets: tuple[Name, ...]
    few_shot: FewShotSpec


class FineTuneJobSpec(Strict):
    """Fine-tuning of one encoder on all downstream datasets."""

    run: Slug
    datasets: tuple[Name, ...]
    fine_tune: FineTuneSpec


class EvaluationEntry(Strict):
    """How encoders are judged."""

    linear: LinearSpec
    knn: KnnSpec
    transfer: TransferEntry | None = None
    seed: Seed
