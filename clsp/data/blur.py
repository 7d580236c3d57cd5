"""PIL's Gaussian blur, which solo-learn uses, of a batch; each sample with its own sigma.

PIL comes near the Gaussian with three box blurs in each direction. A box of radius r gives weight 1
to the whole pixels within floor(r) and the rest of r to the next one on either side; its variance
is a third of sigma squared. Every pass repeats the edge that the one before left. PIL also rounds
to 8 bits after each of its six passes, so the two differ by less than 3 grey levels (D08).

Source: Pillow's src/libImaging/BoxBlur.c, after Gwosdek et al., "Theoretical foundations of
Gaussian convolution by extended box filtering" (SSVM 2011).
"""

from typing import TypeVar

import torch
from torch import Tensor

from clsp.config.recipe import BlurSpec
from clsp.data.blocks import blocks, in_blocks, work_through

PASSES = 3  # PIL's default
Number = TypeVar("Number", float, Tensor)


def draw_sigma(u: Tensor, spec: BlurSpec) -> Tensor:
    """Standard deviations in pixels from uniform numbers in [0, 1), (B,) -> (B,)."""
    low, high = spec.sigma
    return low + (high - low) * u


def _box_radius(sigma: Number) -> Number:
    """Radius in pixels of the box that blurs with standard deviation sigma in PASSES passes.

    With n whole pixels on each side and the share a of the next, the box has variance
    ((2n + 1) n (n + 1) / 3 + 2 a (n + 1)^2) / (2n + 1 + 2a). n is the largest for which a >= 0.
    """
    variance = sigma**2 / PASSES
    whole = ((12 * variance + 1) ** 0.5 - 1) // 2
    missing = (2 * whole + 1) * (variance - whole * (whole + 1) / 3)
    return whole + missing / (2 * ((whole + 1) ** 2 - variance))


def _smear(kernel: Tensor, size: int) -> Tensor:
    """The kernel as a matrix on `size` pixels whose first and last repeat beyond the edge.

    Args:
        kernel: Weights of the offsets -r to r, (B, 2r + 1).
        size: Pixels.

    Returns:
        (B, size, size); row i holds the weights of all pixels in the blurred pixel i.
    """
    reach = kernel.shape[1] // 2
    pixel = torch.arange(size, device=kernel.device)
    offset = torch.arange(-reach, reach + 1, device=kernel.device)
    source = (pixel + offset[:, None]).clamp(0, size - 1)  # (2r + 1, size): whose value is read
    route = (source[:, :, None] == pixel).to(kernel.dtype)  # (2r + 1, size, size)
    return (kernel @ route.flatten(1)).view(-1, size, size)


def gaussian_blur(images: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """Blur as PIL's ImageFilter.GaussianBlur(sigma) does, without its rounding.

    Args:
        images: (B, C, H, W), float.
        sigma: Standard deviation per sample, pixels, (B,), above 0.
        largest: No sigma exceeds it. It sets the size of all kernels, so that no shape depends on
            what was drawn.

    Returns:
        (B, C, H, W).
    """
    if not in_blocks(images):
        return _blur(images, sigma, largest)
    blurred = torch.empty_like(images)

    def work(block: slice) -> None:
        blurred[block] = _blur(images[block], sigma[block], largest)

    work_through(work, blocks(len(images), images[0].numel()))
    return blurred


def _blur(images: Tensor, sigma: Tensor, largest: float) -> Tensor:
    """`gaussian_blur` at once."""
    reach = int(_box_radius(largest)) + 1
    offset = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
    radius = _box_radius(sigma)[:, None]
    box = (radius + 1 - offset.abs()).clamp(0, 1) / (2 * radius + 1)  # (B, 2 * reach + 1)
    height, width = images.shape[2:]
    columns = torch.linalg.matrix_power(_smear(box, width), PASSES)  # (B, W, W)
    rows = columns
    if height != width:
        rows = torch.linalg.matrix_power(_smear(box, height), PASSES)  # (B, H, H)
    return rows[:, None] @ images @ columns[:, None].mT
