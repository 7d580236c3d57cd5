"""Batches of a denoiser's training: which images, with what noise, at what times."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from clsp.config.denoisers import DenoiserSpec
from clsp.data.encoded import EncodedImages
from clsp.data.prepared import Images, all_pixels
from clsp.data.streaming import fits, read_ahead
from clsp.diffusion.pixels import to_signed
from clsp.models.denoiser import NO_LABEL
from clsp.runtime.rng import integers, key_of, normal, numpy_stream, uniform
from clsp.runtime.team import Team


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Rows of the training split in the order of an epoch, int64 (count,); a new one each (D31)."""
    return numpy_stream(seed, "denoiser order", epoch).permutation(count)


def draw_batch(
    pixels: Tensor, rows: Tensor, epoch: int, spec: DenoiserSpec
) -> tuple[Tensor, Tensor, Tensor]:
    """One batch's clean images, noise and times, each a function of (seed, row, epoch) alone.

    Args:
        pixels: The images of the batch, uint8 (B, H, W, 3).
        rows: Their rows in the training split, int64 (B,), on the same device.
        epoch: 0-based epoch.
        spec: For seed, flip probability and train_timesteps.

    Returns:
        Clean images (B, 3, H, W) in [-1, 1], standard normal noise of that shape, times (B,).
    """
    clean = to_signed(pixels)
    flipped = uniform(key_of(spec.seed, "flip"), rows, epoch, count=1)[:, 0] < spec.flip
    clean = torch.where(flipped.view(-1, 1, 1, 1), clean.flip(3), clean)
    drawn = normal(key_of(spec.seed, "noise"), rows, epoch, count=clean[0].numel())
    high = spec.train_timesteps
    times = integers(key_of(spec.seed, "times"), rows, epoch, high=high, count=1)[:, 0]
    return clean, drawn.view_as(clean), times


def drops_labels(spec: DenoiserSpec, step: int) -> bool:
    """Whether the whole batch of a step is trained without its labels (D27)."""
    return bool(numpy_stream(spec.seed, "label drop", step).random() < (spec.label_drop or 0))


class Pixels:
    """The training images, kept on the device where they are small enough.

    Args:
        images: uint8 (N, H, W, 3), mapped or encoded; encoded ones are decoded once.
        name: Of the dataset, for messages.
        device: Where batches are wanted.

    Raises:
        ConfigError: If encoded images would take too much memory when decoded.
    """

    def __init__(self, images: Images, name: str, device: torch.device) -> None:
        self.device = device
        small = fits(images.nbytes, device)
        if small or isinstance(images, EncodedImages):
            images = all_pixels(images, name)
        self.host: np.ndarray = images
        self.resident = torch.from_numpy(images).to(device) if small else None
        self.coming: tuple[bytes, Callable[[], Tensor]] | None = None

    def take(self, rows: np.ndarray, on_device: Tensor, following: np.ndarray) -> Tensor:
        """The images of some rows, uint8 (B, H, W, 3).

        Args:
            rows: int64 (B,).
            on_device: The same on the device.
            following: Rows that are asked for next; they are read in the background.
        """
        if self.resident is not None:
            return self.resident[on_device]
        asked, ready = self.coming or (b"", None)
        if ready is None or asked != rows.tobytes():
            ready = read_ahead(self.host, rows, self.device)
        self.coming = following.tobytes(), read_ahead(self.host, following, self.device)
        return ready()


class Feed:
    """This process's part of every batch.

    Args:
        pixels: The training images.
        count: How many there are.
        labels: Of a class-conditional denoiser: class of each image, int64 (N,), else None.
        spec: For order, batch size and draws.
        team: Which part of a batch is this process's.
    """

    def __init__(
        self, pixels: Pixels, count: int, labels: np.ndarray | None, spec: DenoiserSpec, team: Team
    ) -> None:
        self.pixels, self.count, self.spec = pixels, count, spec
        self.per_epoch = count // spec.batch_size
        self.part = spec.batch_size // team.size
        self.first = team.rank * self.part
        shifted = None if labels is None else torch.from_numpy(labels + 1)  # 0 is "no label"
        self.labels = None if shifted is None else shifted.to(pixels.device)
        self.epoch, self.order = -1, torch.empty(0)

    def rows(self, step: int) -> np.ndarray:
        """Rows of this process's part of a step's batch."""
        epoch, position = divmod(step, self.per_epoch)
        start = position * self.spec.batch_size + self.first
        return epoch_order(self.spec.seed, epoch, self.count)[start : start + self.part]

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Clean images, noise, times as from `draw_batch`, and labels (B,) or None."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self.epoch:  # one copy per epoch, so that no step waits for its rows
            order = epoch_order(self.spec.seed, epoch, self.count)
            self.epoch, self.order = epoch, torch.from_numpy(order).to(self.pixels.device)
        start = position * self.spec.batch_size + self.first
        rows = self.order[start : start + self.part]
        pixels = self.pixels.take(self.rows(step), rows, self.rows(step + 1))
        drawn = draw_batch(pixels, rows, epoch, self.spec)
        if self.labels is None:
            return *drawn, None
        labels = self.labels[rows]
        if drops_labels(self.spec, step):
            labels = torch.full_like(labels, NO_LABEL)
        return *drawn, labels
