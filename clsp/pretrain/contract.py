"""What the loop expects of a method and of a positive source.

A method is a file in `methods/` with `Config` (from clsp.config.methods) and `Method(nn.Module)`; a
source is a file in `positives/` with `Config(SourceConfig)` and `Source`. tests/contracts tries
every one of them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from clsp.pretrain.anchors import Anchors
from clsp.pretrain.gather import gathered
from clsp.runtime.manifest import Artefact
from clsp.runtime.team import ALONE, Team


@dataclass(frozen=True)
class Batch:
    """What a method sees of one batch.

    Where P processes share a batch of B anchors, each has the images of B / P of them, in order;
    with one process P is 1.

    Attributes:
        views: Two augmented views of the anchors, normalised, (B / P, 3, H, W) each.
        positive: Augmented positives in the same form, or None.
        index: Numbers of all anchors in the training split, int64 (B,). A method may remember them
            with its embeddings, so that the step log can tell whose neighbours were found.
        labels: Classes of all anchors, int64 (B,), for a method whose Config says `uses_labels`;
            None for every other.
        team: The processes.
    """

    views: list[Tensor]
    positive: Tensor | None
    index: Tensor
    labels: Tensor | None = None
    team: Team = ALONE

    def gather(self, *parts: Tensor | None) -> list[Any]:
        """The rows of the whole batch: (B / P, ...) -> (B, ...); None stays None.

        A method calls it on everything that it has computed from images with trained parameters,
        and computes its terms from the result (clsp/pretrain/gather.py).
        """
        return [None if part is None else gathered(self.team, part) for part in parts]


@dataclass(frozen=True)
class Positive:
    """What a positive source shows beside each anchor: one of the two.

    Attributes:
        rows: Numbers of training images, int64 (B,), on the device of the index.
        coming: What waits for other images, uint8 (B, H, W, 3), on the device; of any size.
    """

    rows: Tensor | None = None
    coming: Callable[[], Tensor] | None = None

    @property
    def images(self) -> Tensor | None:
        """The other images, waited for."""
        return None if self.coming is None else self.coming()


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
        terms: Named scalars of the whole batch; the method's loss is their sum.
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
        GATHERS: Whether `step` calls `batch.gather`, so that its terms and embeddings are those of
            the whole batch on every process. A method without it is refused with several.
        ALIGNED: Which embeddings `z_anchor` and `z_positive` are and where gradient flows: one
            line, recorded in the manifest.
    """

    encoder: nn.Module
    ALIGNED: ClassVar[str]
    GATHERS: ClassVar[bool]

    def __init__(self, encoder: nn.Module, config: Any, seed: int, classes: int) -> None:
        """Build around an encoder; weights come from the global torch stream, set by the caller.

        `classes` is the number of classes of the dataset; only a method that uses labels may look
        at it.
        """

    def step(self, batch: Batch) -> Step:
        """Forward one batch.

        Random numbers are drawn for the whole batch, or keyed by the anchors' numbers, so that
        their values do not depend on how many processes share it.
        """


class Source(Protocol):
    """Where positives come from.

    A source that has an attribute `reads_ahead` that is true reads images in the background: its
    batches are asked for one step early, with the index on the CPU.
    """

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
            index: Numbers of the anchors in the training split, int64 (B,), on `anchors.place`.
            epoch: From 0.

        Returns:
            Training images by their numbers, or other images; None for no positive. Entry i
            depends on the seed, index[i] and epoch only.
        """
