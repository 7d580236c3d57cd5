"""Crop and resize a batch, each sample with its own box, as two batched matrix products.

Both kernels are those of PIL and of torchvision with antialias=True. Antialiasing widens a kernel
only where an image shrinks, and a crop is never larger than its output here, so it changes nothing.
Nothing is rounded: PIL also rounds to 8 bits, and clips, between its two passes (D08).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Boxes:
    """Crops in whole pixels, each field int64 (B,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


def _bilinear(place: Tensor, pixel: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The triangle kernel; arguments as for `_bicubic`.

    Its reach is one pixel, so cutting and renormalising comes to clamping the sampling point.
    """
    place = place.maximum(first).minimum(last)
    return (1 - (place - pixel).abs()).clamp_(min=0)


def _bicubic(place: Tensor, pixel: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, cut at the bounds of the crop and renormalised.

    Source: "bicubic_filter" in Pillow's Resample.c.

    Args:
        place: Sampling points, (B, size, 1), pixels.
        pixel: Centres of the image's pixels, (size,).
        first: First pixel of the crop, (B, 1, 1).
        last: Last pixel of the crop, (B, 1, 1).

    Returns:
        Weights, (B, size, size); every row sums to 1.
    """
    x = (place - pixel).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0))
    weights = weights * ((pixel >= first) & (pixel <= last))
    return weights / weights.sum(dim=2, keepdim=True)


KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "bilinear": _bilinear,
    "bicubic": _bicubic,
}


def _stretch(
    start: Tensor, length: Tensor, size: int, interpolation: str, mirrored: Tensor | None = None
) -> Tensor:
    """Weights that stretch pixels [start, start + length) to `size`, (B, size, size)."""
    pixel = torch.arange(size, device=start.device, dtype=torch.float32)
    place = (pixel + 0.5) * (length[:, None] / size) - 0.5 + start[:, None]  # half-pixel centres
    if mirrored is not None:
        place = torch.where(mirrored[:, None], place.flip(1), place)
    first, last = start[:, None, None], (start + length - 1)[:, None, None]
    return KERNELS[interpolation](place[:, :, None], pixel, first, last)


def crop_and_resize(
    images: Tensor, boxes: Boxes, mirrored: Tensor | None = None, *, interpolation: str
) -> Tensor:
    """Crop back to full size, optionally mirrored left to right.

    Args:
        images: (B, C, H, W), float in [0, 1].
        boxes: Crops that lie inside the images.
        mirrored: bool (B,), or None for no image.
        interpolation: "bilinear" or "bicubic".

    Returns:
        (B, C, H, W); in [0, 1], to rounding where bilinear.
    """
    height, width = images.shape[2:]
    rows = _stretch(boxes.top, boxes.height, height, interpolation)  # (B, H, H)
    columns = _stretch(boxes.left, boxes.width, width, interpolation, mirrored)  # (B, W, W)
    resized = rows[:, None] @ images @ columns[:, None].mT
    # A bicubic curve overshoots at edges. A bilinear one cannot.
    return resized.clamp_(0, 1) if interpolation == "bicubic" else resized
