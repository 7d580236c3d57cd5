"""Crop and resize a batch, each sample with its own box, as two batched matrix products.

The kernels are those of PIL and of torchvision with antialias=True: where a crop is larger than its
output they widen, which a crop of an image of the output's own size never is.
Nothing is rounded: PIL also rounds to 8 bits, and clips, between its two passes (D08).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clsp.data.blocks import blocks, in_blocks, work_through


@dataclass(frozen=True)
class Boxes:
    """Crops in whole pixels, each field int64 (B,)."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def part(self, block: slice) -> "Boxes":
        """Some of them."""
        return Boxes(self.top[block], self.left[block], self.height[block], self.width[block])


def _triangle(x: Tensor) -> Tensor:
    return (1 - x).clamp_(min=0)


def _keys(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5. Source: "bicubic_filter" in Pillow's Resample.c.

    (1 - x) (2 - x)^2 / 2 as far as 2, and (2 x - 1) (1 - x)^2 more as far as 1.
    """
    near, far = (1 - x).clamp_(min=0), (2 - x).clamp_(min=0)
    return (near * near).mul_(2 * x - 1).add_((far * far).mul_(1 - x), alpha=0.5)


def _cut(weights: Tensor, pixel: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Weights cut at the bounds of the crop and renormalised, so that every row sums to 1."""
    inside = ((pixel >= first) & (pixel <= last)).to(torch.float32)  # (B, 1, side)
    weights = weights * inside
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _bilinear(place: Tensor, pixel: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The triangle kernel; arguments as for `_bicubic`.

    Its reach is one pixel, so cutting and renormalising comes to clamping the sampling point.
    """
    place = place.maximum(first).minimum(last)
    return _triangle((place - pixel).abs_())


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
    return _cut(_keys((place - pixel).abs_()), pixel, first, last)


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
    curve = CURVES[interpolation](((place[:, :, None] - pixel) / scale).abs_())
    return _cut(curve, pixel, first, last)


def _resample(
    images: Tensor,
    boxes: Boxes,
    mirrored: Tensor | None,
    interpolation: str,
    size: tuple[int, int],
) -> Tensor:
    """`crop_and_resize` at once."""
    count, channels, height, width = images.shape
    rows = _stretch(boxes.top, boxes.height, height, size[0], interpolation)
    columns = _stretch(boxes.left, boxes.width, width, size[1], interpolation, mirrored)
    # Row by row, so that no weights have to be repeated for every channel: (B, H, C, W).
    pixels = images.transpose(1, 2).contiguous().to(torch.float32)
    if images.dtype == torch.uint8:
        pixels /= 255
    wide = torch.bmm(pixels.view(count, height * channels, width), columns.mT)
    done = torch.bmm(rows, wide.view(count, height, channels * size[1]))
    done = done.view(count, size[0], channels, size[1]).transpose(1, 2)
    # A bicubic curve overshoots at edges. A bilinear one cannot, but for rounding.
    return done.clamp(0, 1)


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
        images: (B, C, H, W), uint8 or float in [0, 1].
        boxes: Crops that lie inside the images.
        mirrored: bool (B,), or None for no image.
        interpolation: "bilinear" or "bicubic".
        size: Height and width of the result; None: those of the images.

    Returns:
        float32 (B, C, height, width) in [0, 1].
    """
    count, channels, *sides = images.shape
    height, width = sides if size is None else size
    if not in_blocks(images):
        done = _resample(images, boxes, mirrored, interpolation, (height, width))
        return done.contiguous()
    whole = torch.empty(count, channels, height, width)

    def work(block: slice) -> None:
        turned = None if mirrored is None else mirrored[block]
        part = boxes.part(block)
        whole[block] = _resample(images[block], part, turned, interpolation, (height, width))

    work_through(work, blocks(count, channels * max(height * width, sides[0] * sides[1])))
    return whole
