"""What a generator is given, and so what it may use.

A generator is a module of clsp/synthesis/generators with

    class Config(SamplerSettings)     its options; `uses_labels: ClassVar[bool] = True` if it does
    def generate(network: Network, request: Request, config: Config) -> Tensor    uint8 (B, H, W, 3)

Each image depends on its own anchor, candidate number and the seed alone, up to float rounding:
never on the others of the batch, nor on anything drawn before.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from clsp.runtime.rng import key_of, normal


@dataclass(frozen=True)
class Request:
    """A batch of (anchor, candidate) pairs to be drawn. Anchors are held once each.

    Attributes:
        images: The anchors' images in [-1, 1], float32 (A, 3, H, W).
        anchors: Their rows in the training split, int64 (A,).
        which: Position of each pair's anchor in the two above, int64 (B,).
        candidates: Candidate number of each pair, int64 (B,).
        labels: The anchors' classes, int64 (A,); None where the generator uses no labels.
        seed: The bank's seed.
    """

    images: Tensor
    anchors: Tensor
    which: Tensor
    candidates: Tensor
    labels: Tensor | None
    seed: int

    def __len__(self) -> int:
        return len(self.which)

    def noise(self, purpose: str, step: int) -> Tensor:
        """Standard normal (B, 3, H, W) of a seed, purpose, anchor, candidate and step (D01)."""
        return self._normal(purpose, self.anchors[self.which], self.candidates, step)

    def anchor_noise(self, purpose: str, step: int) -> Tensor:
        """Standard normal (A, 3, H, W), keyed as `noise` is, but the same for all candidates."""
        return self._normal(purpose, self.anchors, 0, step)

    def _normal(self, purpose: str, rows: Tensor, candidates: Tensor | int, step: int) -> Tensor:
        shape = self.images.shape[1:]
        key = key_of(self.seed, purpose)
        drawn = normal(key, rows, candidates, step, count=shape.numel())
        return drawn.view(-1, *shape)

    def time(self, time: int) -> Tensor:
        """A diffusion time where the network wants it, int64 (1,)."""
        return torch.full((1,), time, dtype=torch.int64, device=self.images.device)
