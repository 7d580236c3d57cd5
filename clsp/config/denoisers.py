"""Denoisers: trained here, or read from a file that somebody else trained."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from clsp.config.strict import (
    Fraction,
    Name,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Seed,
    Share,
    Strict,
    Text,
)
from clsp.runtime.errors import ConfigError

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class NoiseSchedule(Strict):
    """The forward process q(x_t | x_0): beta rises linearly over the training timesteps."""

    train_timesteps: PositiveInt
    beta_start: Annotated[float, Field(gt=0, lt=1)]
    beta_end: Annotated[float, Field(gt=0, lt=1)]

    @model_validator(mode="after")
    def _check_betas(self) -> "NoiseSchedule":
        if self.beta_end <= self.beta_start:
            raise ValueError(f"beta_end must exceed beta_start, found {self.beta_end}")
        return self

    def check_steps(self, steps: int) -> None:
        """Refuse a number of sampling steps that does not divide train_timesteps.

        The authors' times are evenly spaced; diffusers' scheduler would pair others wrongly.

        Raises:
            ConfigError: Naming both numbers.
        """
        if self.train_timesteps % steps:
            raise ConfigError(
                f"steps must divide the denoiser's train_timesteps {self.train_timesteps}, "
                f"found {steps}"
            )


class SnapshotSpec(Strict):
    """What is kept of a denoiser while it trains."""

    every: PositiveInt  # epochs between snapshots: EMA weights, sample grid, loss curve
    kept: PositiveInt  # the newest so many weights stay; every grid stays
    images: PositiveInt  # of a grid; always the same noise, so that grids can be compared
    steps: PositiveInt  # DDIM steps of a grid; a divisor of train_timesteps


class DenoiserSpec(NoiseSchedule):
    """A diffusers UNet2DModel and its training (methods.md 2.1)."""

    dataset: Name
    channels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)]  # width per level
    attention: tuple[bool, ...]  # self-attention per level
    layers_per_block: PositiveInt
    norm_groups: PositiveInt
    dropout: Fraction
    epochs: PositiveInt
    batch_size: PositiveInt  # over all devices
    learning_rate: PositiveFloat
    warmup_steps: NonNegativeInt
    gradient_clip: PositiveFloat
    ema_decay: Share  # 1 would keep the untrained weights for ever
    flip: Fraction  # probability of a horizontal flip
    # Class-conditional, so the denoiser uses labels: the share of batches trained without them, for
    # classifier-free guidance (arXiv:2207.12598). None: labels are never read.
    label_drop: Fraction | None = None
    precision: Literal["full", "bf16"] | None = None  # bf16: autocast; None: full
    compile: bool | None = None  # torch.compile; changes rounding, and dropout's draws; None: no
    log_every: PositiveInt | None = None  # steps between records of the step log; None: 1
    snapshots: SnapshotSpec | None = None  # None: one small grid at the end
    seed: Seed

    @model_validator(mode="after")
    def _check(self) -> "DenoiserSpec":
        if len(self.attention) != len(self.channels):
            raise ValueError(
                f"attention has {len(self.attention)} levels, channels has {len(self.channels)}"
            )
        if any(width % self.norm_groups for width in self.channels):
            raise ValueError(
                f"every width in channels must be a multiple of norm_groups {self.norm_groups}"
            )
        if self.snapshots is not None and self.train_timesteps % self.snapshots.steps:
            raise ValueError(
                f"snapshots.steps must divide train_timesteps {self.train_timesteps}, "
                f"found {self.snapshots.steps}"
            )
        return self

    @property
    def uses_labels(self) -> bool:
        """Whether it is trained with labels."""
        return self.label_drop is not None

    def check_size(self, size: int) -> None:
        """Refuse images of a side in pixels that cannot be halved between all levels.

        Raises:
            ConfigError: Naming the size and the number of levels.
        """
        levels, multiple = len(self.channels), 2 ** (len(self.channels) - 1)
        if size % multiple:
            raise ConfigError(
                f"a denoiser with {levels} levels of channels needs an image size that is a "
                f"multiple of {multiple}, but dataset {self.dataset} has size {size}"
            )


class ImportedDenoiserSpec(NoiseSchedule):
    """An unconditional denoiser trained elsewhere, with the schedule that it was trained for."""

    dataset: Name  # that it was trained on; its size is the size of the images it makes
    format: Literal["diffusers", "clsp"]  # a diffusers model folder; the CLSP authors' checkpoint
    path: Text
    sha256: Sha256 | None = None  # of the file with the weights; None: whatever is there, recorded

    uses_labels: ClassVar[bool] = False


IMPORTED, TRAINED = "an imported denoiser", "a trained denoiser"  # no names: messages drop them


def _tag(data: Any) -> str:
    given = isinstance(data, ImportedDenoiserSpec) or (isinstance(data, dict) and "format" in data)
    return IMPORTED if given else TRAINED


AnyDenoiserSpec = Annotated[
    Annotated[DenoiserSpec, Tag(TRAINED)] | Annotated[ImportedDenoiserSpec, Tag(IMPORTED)],
    Discriminator(_tag),
]
