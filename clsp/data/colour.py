"""Colour operations on a batch, each sample with its own parameter.

Each equals its namesake in torchvision.transforms.functional on float images to rounding, and on
uint8 images to within one grey level, because nothing is rounded here. Exceptions, in grey levels:

    contrast, saturation  on PIL images 1 + 0.6 |1 - factor|: PIL also rounds the grey to blend with
    hue                   on PIL images up to 16, below 2 on average: PIL keeps hue in 8 bits.
                          torchvision's own two versions are as far apart; this is the one for
                          tensors
    all four in a row     8 on uint8 tensors, 24 on PIL images, below 3.5 on average: each of
                          theirs rounds, and the next one stretches that
    solarize              1, where a value is within rounding of the threshold
"""

import torch
from torch import Tensor

BRIGHTNESS, CONTRAST, SATURATION = 0, 1, 2
THRESHOLD = 128 / 255  # PIL.ImageOps.solarize's default; the authors pass none (methods.md 3.1)
TINY = 1e-30  # instead of no chroma at all, so that a grey pixel divides 0 by it


def luminance(images: Tensor) -> Tensor:
    """ITU-R 601-2 luma of images in [0, 1], (B, 3, H, W) -> (B, 1, H, W)."""
    red, green, blue = images.split(1, dim=1)
    return torch.add(red * 0.2989, green, alpha=0.587).add_(blue, alpha=0.114)


def _mix(images: Tensor, target: Tensor, factor: Tensor) -> Tensor:
    """Images times the factor, target times the rest, cut to [0, 1]."""
    factor = factor.view(-1, 1, 1, 1)
    return (images * factor).add_(target * (1 - factor)).clamp_(0, 1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scale images in [0, 1], (B, 3, H, W), each by its factor, (B,)."""
    return (images * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend images in [0, 1], (B, 3, H, W), with their mean grey; weights of the images (B,)."""
    return _mix(images, luminance(images).mean(dim=(2, 3), keepdim=True), factor)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Blend images in [0, 1], (B, 3, H, W), with their greys; weights of the images (B,)."""
    return _mix(images, luminance(images), factor)


BLENDS = {BRIGHTNESS: brightness, CONTRAST: contrast, SATURATION: saturation}


def blend(images: Tensor, kind: Tensor, factor: Tensor) -> Tensor:
    """Brightness, contrast or saturation, one after the other kind in one batch.

    Args:
        images: (B, 3, H, W) in [0, 1].
        kind: BRIGHTNESS, CONTRAST or SATURATION per sample, (B,).
        factor: Weight of the image per sample, (B,), >= 0; 1 changes nothing.

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    kind = kind.view(-1, 1, 1, 1)
    grey = luminance(images)  # (B, 1, H, W)
    mean = grey.mean(dim=(2, 3), keepdim=True)  # (B, 1, 1, 1)
    target = torch.where(kind == SATURATION, grey, mean * (kind == CONTRAST))
    return _mix(images, target, factor)


def _hue(red: Tensor, green: Tensor, blue: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """Hue in sixths of a turn, [-1, 5]; 0 for a grey.

    Where red is largest it is (green - blue) / chroma. Else it is 3 - s + s (least - red) / chroma,
    least being that of green and blue and s the sign of green - blue. Comparisons cost a CPU ten
    times what arithmetic does, so signs choose.
    """
    between = green - blue
    sign = between.sign()
    other = torch.minimum(green, blue).sub_(red).sub_(chroma).mul_(sign).add_(chroma, alpha=3)
    red_is_less = (value - red).sign_()  # 0 or 1
    return torch.lerp(between, other, red_is_less).div_(chroma.clamp(min=TINY))


def shift_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Rotate the hue.

    Args:
        images: (B, 3, H, W) in [0, 1].
        shift: Part of a full turn per sample, (B,), in [-0.5, 0.5].

    Returns:
        (B, 3, H, W) in [0, 1].
    """
    red, green, blue = images.unbind(dim=1)  # (B, H, W) each
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    turned = _hue(red, green, blue, value, chroma).add_(6 * shift.view(-1, 1, 1))
    turned = turned.sub_((turned * (1 / 6)).floor_(), alpha=6)  # in [0, 6]
    # HSV -> RGB: value less chroma times how far the hue is from the channel's own, 0 to 1.
    away = [2 - (turned - 3).abs_(), (turned - 2).abs_().sub_(1), (turned - 4).abs_().sub_(1)]
    weight = torch.stack(away, dim=1).clamp_(0, 1).mul_(chroma.unsqueeze(1))
    return (value.unsqueeze(1) - weight).clamp_(0, 1)


def solarize(images: Tensor) -> Tensor:
    """Invert every value at or above grey level 128."""
    inverted = (images - THRESHOLD).sign_().add_(1).clamp_(max=1)  # 0 or 1
    return torch.lerp(images, 1 - images, inverted)
