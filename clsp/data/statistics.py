"""What is known of images once they were seen a block at a time: channel statistics, a digest."""

import hashlib

import numpy as np


class ChannelSums:
    """Exact per-channel sums of uint8 images, so that no order of adding changes the statistics."""

    def __init__(self) -> None:
        """Start with no images."""
        self.pixels = 0
        self.sums = np.zeros(3, dtype=np.int64)
        self.squares = np.zeros(3, dtype=np.int64)

    def add(self, images: np.ndarray) -> None:
        """Add images, uint8 (N, H, W, 3)."""
        counts = [np.bincount(images[..., c].ravel(), minlength=256) for c in range(3)]
        levels = np.arange(256, dtype=np.int64)
        self.pixels += images[..., 0].size
        self.sums += [int((count * levels).sum()) for count in counts]
        self.squares += [int((count * levels**2).sum()) for count in counts]

    def mean(self) -> list[float]:
        """Mean per channel of the images scaled to [0, 1]."""
        return [float(total / self.pixels / 255) for total in self.sums]

    def std(self) -> list[float]:
        """Population standard deviation per channel of the images scaled to [0, 1]."""
        pairs = zip(self.sums.tolist(), self.squares.tolist(), strict=True)
        spread = [square * self.pixels - total**2 for total, square in pairs]  # Python: no overflow
        return [float(value**0.5 / self.pixels / 255) for value in spread]


class ArrayDigest:
    """sha256_array of uint8 images (N, H, W, 3) that never lie in memory together."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """Start an array of a shape that is known in advance."""
        self._digest = hashlib.sha256(f"{np.dtype(np.uint8).str}|{shape}|".encode())

    def add(self, images: np.ndarray) -> None:
        """Append images, uint8 (n, H, W, 3), C order."""
        self._digest.update(images.tobytes())

    def hexdigest(self) -> str:
        """The digest, once all images are added."""
        return self._digest.hexdigest()
