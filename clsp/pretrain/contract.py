"""What the loop expects of a method and of a positive source.

A method is a file in `methods/` with `Config(Strict)` and `Method(nn.Module)`; a source is a file
in `positives/` with `Source` and `Config(Strict)`, whose `needs_bank: ClassVar[bool]` says whether
it reads a bank. tests/contracts tries every one of them.
"""

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from clsp.pretrain.anchors import Anchors
from clsp.runtime.manifest import Artefact


@dataclass(frozen=True)
class Step:
    """What a method computes from one batch.

    Attributes:
        terms: Named scalars; the method's loss is their sum.
        z_anchor: Embedding of view 1, (B, D), any scale: what alignment pulls on.
        z_positive: Embedding of the positive, (B, D), or None where there is none.
    """

    terms: dict[str, Tensor]
    z_anchor: Tensor
    z_positive: Tensor | None


class Method(Protocol):
    """A self-supervised method: an nn.Module whose state_dict is all it remembers.

    Parameters that require gradients are optimised; a moving average is part of the module but
    requires none. Optional on the Config: `check_batch(batch_size)`, raising ValueError for a
    batch size the method cannot use; it is asked while params.yaml is read. Optional hooks here:

        before_step(step, steps) -> dict[str, float]   before the forward pass (EMA update);
                                                       returns values for the step log
        counters() -> dict[str, int]                   at the end, for the manifest
    """

    encoder: nn.Module

    def __init__(self, encoder: nn.Module, config: Any, seed: int) -> None:
        """Build around an encoder; weights come from the global torch stream, set by the caller."""

    def step(self, views: list[Tensor], positive: Tensor | None) -> Step:
        """Forward one batch.

        Args:
            views: Two augmented views of the anchors, normalised, (B, 3, H, W) each.
            positive: Augmented positives in the same form, or None.
        """


class Source(Protocol):
    """Where positives come from."""

    def __init__(self, config: Any, anchors: Anchors, bank: Artefact | None, seed: int) -> None:
        """Open the source.

        Raises:
            ConfigError: If it needs a bank and got none, or the reverse.
            DataError: If the bank belongs to another dataset.
        """

    def batch(self, index: Tensor, epoch: int) -> Tensor | None:
        """Positives of a batch, not augmented yet.

        Args:
            index: Numbers of the anchors in the training split, int64 (B,), on the device.
            epoch: From 0.

        Returns:
            uint8 (B, H, W, 3) on the anchors' device, or None; row i depends on the seed,
            index[i] and epoch only.
        """
