"""Images at rest (uint8) and images that the denoiser sees (float in [-1, 1])."""

from typing import Literal

import torch
from torch import Tensor

Rounding = Literal["nearest", "truncate"]


def to_signed(images: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in [-1, 1]."""
    return images.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1


def to_uint8(images: Tensor, rounding: Rounding) -> Tensor:
    """Clip to [-1, 1] and store as grey levels.

    Args:
        images: float (B, 3, H, W).
        rounding: "nearest" (audit.md 6), or "truncate" as the authors do
            (generate_synthetic_dataset.py: astype(uint8)).

    Returns:
        uint8 (B, H, W, 3).
    """
    levels = (images.clamp(-1, 1) + 1) * 127.5
    if rounding == "nearest":
        levels = levels.round()
    return levels.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
