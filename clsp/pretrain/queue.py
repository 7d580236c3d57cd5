"""A first-in first-out store of past embeddings, with the numbers of the anchors they belong to."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clsp.runtime.rng import torch_stream


class Queue(nn.Module):
    """Several banks of K unit rows that are filled together.

    It starts with normalised Gaussian rows (methods.md 7, 8), whose anchors are -1.

    Args:
        banks: Number of banks V, for example one per view.
        size: Rows per bank, K; a multiple of the batch size.
        width: Width D of a row.
        seed: Of the run.
    """

    def __init__(self, banks: int, size: int, width: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randn(banks, size, width, generator=torch_stream(seed, "queue"))
        self.register_buffer("rows", F.normalize(drawn, dim=2))  # (V, K, D)
        self.register_buffer("anchors", torch.full((size,), -1, dtype=torch.int64))  # (K,)
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def past(self) -> Tensor:
        """A copy of the rows as they are now, (V, K, D): backward needs them unchanged."""
        return self.rows.clone()

    @torch.no_grad()
    def push(self, rows: Tensor, index: Tensor) -> None:
        """Overwrite the oldest rows.

        Args:
            rows: (V, B, D); stored at unit length.
            index: Numbers of the anchors, int64 (B,).
        """
        size = len(self.anchors)
        slots = (self.pointer + torch.arange(len(index), device=index.device)) % size
        self.rows[:, slots] = F.normalize(rows.detach().to(self.rows.dtype), dim=2)
        self.anchors[slots] = index
        self.pointer.copy_((self.pointer + len(index)) % size)

    @torch.no_grad()
    def nearest(self, embeddings: Tensor, count: int = 1) -> tuple[Tensor, Tensor]:
        """The rows of the first bank that are closest in cosine.

        Args:
            embeddings: (B, D), any scale.
            count: Neighbours per embedding, n.

        Returns:
            Rows (B, n, D), nearest first, and the numbers of their anchors, int64 (B, n).
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            cosines = F.normalize(embeddings.to(self.rows.dtype), dim=1) @ self.rows[0].T  # (B, K)
        found = cosines.topk(count, dim=1).indices  # (B, n)
        return self.rows[0][found], self.anchors[found]
