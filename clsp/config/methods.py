"""What the options of methods and of positive sources have in common (torch-free).

A plug-in's `Config` derives from one of these classes. Besides options they carry what has to be
known before anything is trained: whether labels are used, and which batch sizes and datasets fit.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from clsp.config.strict import Fraction, PositiveInt, Share, Strict

Temperature = Annotated[float, Field(gt=0, le=10)]


class MethodConfig(Strict):
    """Options of any method.

    Attributes:
        uses_labels: Whether the method is given the labels of the training images.
    """

    uses_labels: ClassVar[bool] = False

    def check_batch(self, batch_size: int) -> None:
        """Refuse a batch size that the method cannot use.

        Raises:
            ValueError: Naming the option and the batch size.
        """

    def check_epochs(self, epochs: int) -> None:
        """Refuse a length of the run that the method's own schedules do not fit.

        Raises:
            ValueError: Naming the option and the number of epochs.
        """

    def check_images(self, count: int) -> None:
        """Refuse a number of training images that the method cannot use.

        Raises:
            ValueError: Naming the option and the number.
        """


class HeadConfig(MethodConfig):
    """A method with a projector of `hidden` and `projection` (D) units.

    `forward` decides which images share batch-norm statistics: clsp/pretrain/forward.py.
    """

    hidden: PositiveInt
    projection: PositiveInt
    forward: Literal["joint", "separate"]


class MomentumConfig(MethodConfig):
    """A method with a moving average, whose decay rises along half a cosine (methods.md 1.2)."""

    momentum_start: Share
    momentum_end: Fraction

    @model_validator(mode="after")
    def _check_momentum(self) -> "MomentumConfig":
        if self.momentum_start > self.momentum_end:
            raise ValueError(
                f"momentum_start must not exceed momentum_end, found {self.momentum_start} "
                f"and {self.momentum_end}"
            )
        return self


class QueueConfig(MethodConfig):
    """A method that keeps `queue` past embeddings (K)."""

    queue: PositiveInt

    def check_batch(self, batch_size: int) -> None:
        """A queue is filled in whole batches, so that a batch never wraps around its end."""
        if self.queue % batch_size:
            raise ValueError(f"queue {self.queue} is not a multiple of batch_size {batch_size}")


class SourceConfig(Strict):
    """Options of any positive source.

    Attributes:
        reads: The kind of artefact the source reads: "bank", "pairs" or None.
        uses_labels: Whether the source looks at the labels of the training images.
        uses_groups: Whether it needs the dataset's group ids.
    """

    reads: ClassVar[str | None] = None
    uses_labels: ClassVar[bool] = False
    uses_groups: ClassVar[bool] = False
