"""A recipe: what a method's authors publish about optimisation and views (methods.md 3)."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from clsp.config.strict import (
    Channels,
    Fraction,
    Name,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Share,
    Strict,
)

LARGEST_SIGMA = 8.0  # pixels; a recipe's largest blur sets the width of all its kernels


class Normalisation(Strict):
    """Per-channel mean and standard deviation of images scaled to [0, 1]."""

    mean: Channels
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class JitterSpec(Strict):
    """Colour jitter; strengths as in torchvision.transforms.ColorJitter."""

    probability: Fraction
    brightness: NonNegativeFloat
    contrast: NonNegativeFloat
    saturation: NonNegativeFloat
    hue: Annotated[float, Field(ge=0, le=0.5)]


class BlurSpec(Strict):
    """Gaussian blur; standard deviation in pixels of the view, drawn uniformly."""

    probability: Fraction
    sigma: tuple[PositiveFloat, PositiveFloat]

    @model_validator(mode="after")
    def _check(self) -> "BlurSpec":
        low, high = self.sigma
        if low > high or high > LARGEST_SIGMA:
            raise ValueError(
                f"sigma must be low <= high <= {LARGEST_SIGMA} pixels, found {low}, {high}"
            )
        return self


class ViewSpec(Strict):
    """How one augmented view is drawn: the probabilities of a recipe."""

    crop_scale: tuple[Fraction, Fraction]
    crop_ratio: tuple[PositiveFloat, PositiveFloat]
    interpolation: Literal["bilinear", "bicubic"]
    flip: Fraction
    jitter: JitterSpec
    grayscale: Fraction
    blur: BlurSpec | None = None
    solarize: Fraction

    @model_validator(mode="after")
    def _check(self) -> "ViewSpec":
        for key in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, key)
            if not 0 < low <= high:
                raise ValueError(f"{key} must be 0 < low <= high, found {low}, {high}")
        return self


class LarsSpec(Strict):
    """Layer-wise rate scaling as in solo-learn (methods.md 1.3)."""

    trust: PositiveFloat  # eta
    clip: bool  # the scaled rate never exceeds the rate itself


class RecipeSpec(Strict):
    """Everything about optimisation and views that a method's authors publish."""

    family: Name  # whose recipe it is; one table compares runs of one family (comparison.recipes)
    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    optimizer: Literal["sgd", "lars"]
    lars: LarsSpec | None = None  # for the optimizer lars, and only for it
    learning_rate: PositiveFloat
    learning_rate_scaling: Literal["none", "batch_256"]  # batch_256: times batch_size / 256
    momentum: Share
    weight_decay: NonNegativeFloat
    weight_decay_on: Literal["all", "weights"]  # weights: not on norms and biases
    schedule: Literal["epoch", "step"]  # how often the rate changes
    warmup_epochs: NonNegativeInt
    warmup_start: NonNegativeFloat  # learning rate of the first epoch or step, never scaled
    normalisation: dict[Name, Normalisation] | None = None  # by dataset; before the dataset's own
    views: ViewSpec  # of view 1 and of the positive
    second_view: ViewSpec | None = None  # of view 2, where it differs
    # Statistics of batch norm where several processes share a batch: of the whole batch (None:
    # synchronised), so that their number changes nothing, or of each process's part.
    batch_norm: Literal["synchronised", "per_device"] | None = None

    @model_validator(mode="after")
    def _check(self) -> "RecipeSpec":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs must be below epochs {self.epochs}, found {self.warmup_epochs}"
            )
        if (self.lars is None) == (self.optimizer == "lars"):
            found = "none" if self.lars is None else "one"
            raise ValueError(
                f"optimizer lars and a section lars belong together, found optimizer "
                f"{self.optimizer} and {found}"
            )
        return self

    @property
    def peak(self) -> float:
        """Learning rate after warm-up."""
        scaled = self.learning_rate_scaling == "batch_256"
        return self.learning_rate * (self.batch_size / 256 if scaled else 1)
