"""Whether candidates lie nearer to test images than to the images they may have been drawn from."""

from dataclasses import dataclass

import numpy as np

BLOCK = 4096  # images that are float32 at a time


@dataclass(frozen=True)
class Nearness:
    """How many candidates have a test image as their nearest real one.

    Attributes:
        nearer: Candidates whose nearest image is one of the test split, and none of training.
        candidates: That were looked at.
        chance: Share of test images among all, in (0, 1): what a candidate that has to do with
            neither would show.
    """

    nearer: int
    candidates: int
    chance: float

    @property
    def striking(self) -> bool:
        """Whether it is more than three standard errors above chance."""
        error = (self.chance * (1 - self.chance) / self.candidates) ** 0.5
        return self.nearer / self.candidates > self.chance + 3 * error


def _least(points: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Smallest squared distance of each point to any image, float32 (P,), less the point's own.

    Args:
        points: float32 (P, D), in [0, 1].
        images: uint8 (N, H, W, C), read a block at a time.
    """
    found = np.full(len(points), np.inf, np.float32)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        flat = block.reshape(len(block), -1).astype(np.float32) / 255
        squares = (flat**2).sum(axis=1)[None] - 2 * points @ flat.T
        np.minimum(found, squares.min(axis=1), out=found)
    return found


def nearness(candidates: np.ndarray, train: np.ndarray, test: np.ndarray) -> Nearness:
    """Compare candidates with both splits by the distance of their pixels.

    Args:
        candidates: uint8 (P, H, W, 3).
        train: uint8 (N, H, W, 3).
        test: uint8 (M, H, W, 3).
    """
    points = candidates.reshape(len(candidates), -1).astype(np.float32) / 255
    nearer = int((_least(points, test) < _least(points, train)).sum())
    return Nearness(nearer, len(candidates), len(test) / (len(train) + len(test)))
