"""Crop and resize a batch, each sample with its own box, as two batched matrix products.

The kernels are those of PIL and of torchvision with antialias=True: where a crop is larger than its
output they widen, which a crop of an image of the output's own size never is.
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


def _triangle(x: Tensor) -> Tensor:
    return (1 - x).clamp_(min=0)


def _keys(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5. Source: "bicubic_filter" in Pillow's Resample.c."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


def _cut(weights: Tensor, pixel: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Weights cut at the bounds of the crop and renormalised, so that every row sums to 1."""
    weights = weights * ((pixel >= first) & (pixel <= last))
    return weights / weights.sum(dim=2, keepdim=True)


def _bilinear(place: Tensor, pixel: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The triangle kernel; arguments as for `_bicubic`.

    Its reach is one pixel, so cutting and renormalising comes to clamping the sampling point.
    """
    place = place.maximum(first).minimum(last)
    return _triangle((place - pixel).abs())


def _bicubic(place: Tensor, pixel: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Keys' kernel, cut at the bounds of the crop.

    Args:
        place: Sampling points, (B, size, 1), pixels.
        pixel: Centres of the image's pixels, (side,).
        first: First pixel of the crop, (B, 1, 1).
        last: Last pixel of the crop, (B, 1, 1).

    Returns:
        Weights, (B, size, side); every row sums to 1.
    """
    return _cut(_keys((place - pixel).abs()), pixel, first, last)


KERNELS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "bilinear": _bilinear,
    "bicubic": _bicubic,
}
CURVES: dict[str, Callable[[Tensor], Tensor]] = {"bilinear": _triangle, "bicubic": _keys}


def _stretch(
    start: Tensor,
    length: Tensor,
    side: int,
    size: int,
    interpolation: str,
    mirrored: Tensor | None = None,
) -> Tensor:
    """Weights that bring pixels [start, start + length) of `side` to `size`, (B, size, side)."""
    target = torch.arange(size, device=start.device, dtype=torch.float32)
    pixel = torch.arange(side, device=start.device, dtype=torch.float32)
    place = (target + 0.5) * (length[:, None] / size) - 0.5 + start[:, None]  # half-pixel centres
    if mirrored is not None:
        place = torch.where(mirrored[:, None], place.flip(1), place)
    first, last = start[:, None, None], (start + length - 1)[:, None, None]
    if side <= size:
        return KERNELS[interpolation](place[:, :, None], pixel, first, last)
    scale = (length / size).clamp(min=1)[:, None, None]
    curve = CURVES[interpolation](((place[:, :, None] - pixel) / scale).abs())
    return _cut(curve, pixel, first, last)


def crop_and_resize(
    images: Tensor,
    boxes: Boxes,
    mirrored: Tensor | None = None,
    *,
    interpolation: str,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Crop to a size, optionally mirrored left to right.

    Args:
        images: (B, C, H, W), float in [0, 1].
        boxes: Crops that lie inside the images.
        mirrored: bool (B,), or None for no image.
        interpolation: "bilinear" or "bicubic".
        size: Height and width of the result; None: those of the images.

    Returns:
        (B, C, height, width); in [0, 1], to rounding where bilinear.
    """
    sides = images.shape[2:]
    height, width = sides if size is None else size
    rows = _stretch(boxes.top, boxes.height, sides[0], height, interpolation)
    columns = _stretch(boxes.left, boxes.width, sides[1], width, interpolation, mirrored)
    resized = rows[:, None] @ images @ columns[:, None].mT
    # A bicubic curve overshoots at edges. A bilinear one cannot.
    return resized.clamp_(0, 1) if interpolation == "bicubic" else resized
