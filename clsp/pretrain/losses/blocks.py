"""Mean losses over rows of logits, of which only a block is held at a time where there are many.

The logits of a contrastive loss grow with the square of the batch, and autograd keeps several
copies of them. Where they are many, each block of rows is computed, reduced to its loss and
dropped; backward computes it once more. Memory then grows with the embeddings alone. The price is a
fourth product of matrices beside the loss's own three, little where an encoder runs as well.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clsp.pretrain.losses.precision import compiled_losses

# Logits up to this number are held whole, 128 MiB in float32. No published recipe of the suite
# needs more (the largest is 256 x 65537), so that none of their runs changes by a bit.
WHOLE = 2**25
BLOCK = 2**22  # logits of a block, 16 MiB: large enough to keep a GPU busy


def mean_over_rows(loss_of: Callable[[slice], Tensor], rows: int, columns: int) -> Tensor:
    """A loss that is a mean over rows of a matrix of logits.

    Args:
        loss_of: Mean loss over some of the rows, a scalar; computes their logits itself.
        rows: Number of rows.
        columns: Of the logits.

    Returns:
        The mean over all rows, scalar: `loss_of` itself up to WHOLE logits.
    """
    if rows * columns <= WHOLE:
        return loss_of(slice(0, rows))
    return _in_blocks(loss_of, rows, max(1, BLOCK // columns))


@torch.compiler.disable  # a compiled loss would keep what is to be dropped
def _in_blocks(loss_of: Callable[[slice], Tensor], rows: int, size: int) -> Tensor:
    def plain(block: slice) -> Tensor:
        with compiled_losses(None):  # in backward too: both passes have to keep the same tensors
            return loss_of(block)

    shares = []
    for start in range(0, rows, size):
        block = slice(start, min(start + size, rows))
        # Nothing in a loss is drawn at random, so no generator's state is put aside.
        loss = checkpoint(plain, block, use_reentrant=False, preserve_rng_state=False)
        shares.append(loss * ((block.stop - start) / rows))
    return torch.stack(shares).sum()
