"""Colour operations on a batch, each sample with its own parameter.

Each equals its namesake in torchvision.transforms.functional on float images, and on uint8 images
to within one grey level, because nothing is rounded here. Exceptions: PIL also rounds the grey that
contrast and saturation blend with, which adds |1 - factor| / 2 of a level; and PIL stores hue in
8 bits, so `shift_hue` follows torchvision's tensor version.
"""

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION = 0, 1, 2
THRESHOLD = 128 / 255  # PIL.ImageOps.solarize's default; the authors pass none (methods.md 3.1)


def luminance(images: Tensor) -> Tensor:
    """ITU-R 601-2 luma of images in [0, 1], (B, 3, H, W) -> (B, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return red * 0.2989 + green * 0.587 + blue * 0.114


def blend(images: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Brightness, contrast or saturation: a blend with black, the mean grey or the own grey.

    Args:
        images: (B, 3, H, W) in [0, 1].
        kind: BRIGHTNESS, CONTRAST or SATURATION per sample, (B,).
        factor: Weight of the image per sample, (B,), >= 0; 1 changes nothing.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    kind, factor = kind.view(-1, 1, 1, 1), factor.view(-1, 1, 1, 1)
    grey = luminance(images)  # (B, 1, H, W)
    mean = grey.mean(dim=(2, 3), keepdim=True)  # (B, 1, 1, 1)
    base = mean * (kind == CONTRAST)
    target = torch.where(kind == SATURATION, grey, base)
    return torch.lerp(target, images, factor).clamp_(0, 1)


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue.

    Args:
        images: (B, 3, H, W) in [0, 1].
        shift: Part of a full turn per sample, (B,), in [-0.5, 0.5].

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    red, green, blue = images.unbind(dim=1)  # (B, H, W) each
    value, low = images.amax(dim=1), images.amin(dim=1)
    chroma = value - low
    span = torch.where(chroma > 0, chroma, 1)
    sixth = torch.where(
        value == red,
        (green - blue) / span,
        torch.where(value == green, 2 + (blue - red) / span, 4 + (red - green) / span),
    )
    turned = sixth + 6 * shift.view(-1, 1, 1)
    offsets = torch.tensor([5.0, 3.0, 1.0], device=images.device).view(1, 3, 1, 1)
    k = torch.remainder(turned.unsqueeze(1) + offsets, 6)  # (B, 3, H, W)
    # HSV -> RGB in closed form: V - C * max(0, min(k, 4 - k, 1)).
    weight = torch.minimum(k, 4 - k).clamp_(0, 1)
    return (value.unsqueeze(1) - chroma.unsqueeze(1) * weight).clamp_(0, 1)


def solarize(images: Tensor) -> Tensor:
    """Invert every value at or above grey level 128."""
    return torch.where(images >= THRESHOLD, 1 - images, images)
