"""What the loop expects of a method and of a positive source.

A method is a file in `methods/` with `Config` (from clsp.config.methods) and `Method(nn.Module)`; a
source is a file in `positives/` with `Config(SourceConfig)` and `Source`. tests/contracts tries
every one of them.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from clsp.pretrain.anchors import Anchors
from clsp.runtime.manifest import Artefact


@dataclass(frozen=True)
class Batch:
    """What a method sees of one batch.

    Attributes:
        views: Two augmented views of the anchors, normalised, (B, 3, H, W) each.
        positive: Augmented positives in the same form, or None.
        index: Numbers of the anchors in the training split, int64 (B,). A method may remember them
            with its embeddings, so that the step log can tell whose neighbours were found.
        labels: Classes of the anchors, int64 (B,), for a method whose Config says `uses_labels`;
            None for every other.
    """

    views: list[Tensor]
    positive: Tensor | None
    index: Tensor
    labels: Tensor | None = None


@dataclass(frozen=True)
class Positive:
    """What a positive source shows beside each anchor: one of the two.

    Attributes:
        rows: Numbers of training images, int64 (B,), on the device.
        images: Other images, uint8 (B, H, W, 3), on the device; of any size.
    """

    rows: Tensor | None = None
    images: Tensor | None = None


@dataclass(frozen=True)
class Moment:
    """Where in the run a step is; everything counts from 0."""

    step: int
    steps: int
    epoch: int


@dataclass(frozen=True)
class Step:
    """What a method computes from one batch.

    Attributes:
        terms: Named scalars; the method's loss is their sum.
        z_anchor: Embedding of view 1, (B, D), any scale: what alignment pulls on.
        z_positive: Embedding of the positive, (B, D), or None where there is none. A method that
            lets no gradient flow on this side gives it detached.
        watched: Embedding of view 1 whose collapse is watched, (B, D): the projection where
            `z_anchor` is a prediction. None: `z_anchor`.
        neighbours: Numbers of the anchors whose past embeddings were taken as positives of the
            batch, int64 (B, n), -1 for a random entry of a young queue; None without such.
    """

    terms: dict[str, Tensor]
    z_anchor: Tensor
    z_positive: Tensor | None
    watched: Tensor | None = None
    neighbours: Tensor | None = None


@dataclass(frozen=True)
class Group:
    """Parameters with a learning rate of their own.

    Attributes:
        parameters: The parameters.
        rate: Peak rate of the group, never scaled by the batch size, or None for the recipe's.
        constant: True: the peak holds throughout, without warm-up or decay.
    """

    parameters: Iterable[nn.Parameter]
    rate: float | None = None
    constant: bool = False


class Method(Protocol):
    """A self-supervised method: an nn.Module whose state_dict is all it remembers.

    Parameters that require gradients are optimised; a moving average is part of the module but
    requires none. Optional hooks:

        before_step(moment) -> dict[str, float]   before the forward pass (EMA update); returns
                                                  values for the step log
        before_update(moment)                     after backward; may set a gradient to None, which
                                                  leaves that parameter as it is in this step
        groups() -> list[Group]                   parameters that are not treated as the rest
        counters() -> dict[str, int]              at the end, for the manifest

    Attributes:
        encoder: What is evaluated in the end.
        ALIGNED: Which embeddings `z_anchor` and `z_positive` are and where gradient flows: one
            line, recorded in the manifest.
    """

    encoder: nn.Module
    ALIGNED: ClassVar[str]

    def __init__(self, encoder: nn.Module, config: Any, seed: int, classes: int) -> None:
        """Build around an encoder; weights come from the global torch stream, set by the caller.

        `classes` is the number of classes of the dataset; only a method that uses labels may look
        at it.
        """

    def step(self, batch: Batch) -> Step:
        """Forward one batch."""


class Source(Protocol):
    """Where positives come from."""

    def __init__(self, config: Any, anchors: Anchors, artefact: Artefact | None, seed: int) -> None:
        """Open the source.

        Args:
            config: Its options; `Config.reads` names the kind of artefact it reads.
            anchors: Training images; with labels or group ids if the Config says it uses them.
            artefact: The bank or pairs, exactly if the Config reads one.
            seed: Of the run.

        Raises:
            DataError: If the artefact belongs to another dataset or split.
        """

    def batch(self, index: Tensor, epoch: int) -> Positive | None:
        """Positives of a batch, not augmented yet.

        Args:
            index: Numbers of the anchors in the training split, int64 (B,), on the device.
            epoch: From 0.

        Returns:
            Training images by their numbers, or other images; None for no positive. Entry i
            depends on the seed, index[i] and epoch only.
        """
