"""Augmented views, made in batches where the images are, each sample with its own parameters (D08).

RandomResizedCrop -> ColorJitter -> grayscale -> Gaussian blur -> solarize, and a horizontal flip,
which commutes with them. That is solo-learn's pipeline (methods.md 3.2) and, without the blur, the
CLSP authors' (3.1); the caller normalises. Parameters have torchvision's distributions and are
keyed by (key; image, epoch, view), so a view never depends on batch size, order or restarts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from clsp.config.recipe import JitterSpec, ViewSpec
from clsp.data.blocks import Operation, change, in_blocks
from clsp.data.blur import draw_sigma, gaussian_blur
from clsp.data.colour import BLENDS, blend, luminance, shift_hue, solarize
from clsp.data.resample import Boxes, crop_and_resize
from clsp.runtime.rng import uniform

TRIES = 10  # of RandomResizedCrop, before it falls back to the centre
# Uniform numbers of one sample: 2 per try of the crop and 2 for its place, 6 for jitter, 5 more.
# Append only: a number is known by its place, so moving one would change every run.
CROP, JITTER, FLIP, GREY, SOLARIZE, BLUR, SIGMA = slice(0, 22), slice(22, 28), 28, 29, 30, 31, 32
DRAWS = 33


@dataclass(frozen=True)
class Jitter:
    """Colour jitter of a batch; a sample without jitter has factors 1 and hue 0.

    Attributes:
        kinds: Which blend comes first, second and third, (B, 3).
        factors: Their strengths, (B, 3).
        hue: Shift as part of a turn, (B,).
        place: How many blends come before the hue shift, (B,), 0 to 3.
    """

    kinds: Tensor
    factors: Tensor
    hue: Tensor
    place: Tensor


Side = int | Tensor  # one for all images, or int64 (B,)


def _centre(height: Tensor, width: Tensor, ratio: tuple[float, float]) -> tuple[Tensor, ...]:
    """The fallback of torchvision: the largest centred box whose aspect ratio is allowed.

    Args:
        height: Of the images, int64 (1,) or (B,).
        width: The same.
        ratio: Least and largest width / height of a box.
    """
    shape = width.double() / height.double()
    flat = (width.double() / ratio[0]).round().long()
    h = torch.where(shape < ratio[0], flat, height)
    w = torch.where(shape > ratio[1], (height.double() * ratio[1]).round().long(), width)
    return (height - h) // 2, (width - w) // 2, h, w


def _column(side: Side, u: Tensor) -> Tensor:
    """A side of all images as a column, int64 (1, 1) or (B, 1)."""
    if isinstance(side, Tensor):
        return side.long().reshape(-1, 1)
    return torch.full((1, 1), side, device=u.device)


def draw_boxes(u: Tensor, size: tuple[Side, Side], spec: ViewSpec) -> Boxes:
    """Crops as RandomResizedCrop.get_params draws them.

    Args:
        u: Uniform numbers in [0, 1), (B, 22): area and log-ratio of each try, then the place.
        size: Height and width of the images, pixels; of each image its own, or one for all.
        spec: Gives crop_scale and crop_ratio.
    """
    height, width = (_column(side, u) for side in size)
    low, high = spec.crop_scale
    area = height * width * (low + (high - low) * u[:, 0:20:2])  # (B, tries)
    low, high = (math.log(ratio) for ratio in spec.crop_ratio)
    ratio = torch.exp(low + (high - low) * u[:, 1:20:2])
    w, h = torch.sqrt(area * ratio).round(), torch.sqrt(area / ratio).round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.to(torch.uint8).argmax(dim=1, keepdim=True)  # the first try that fits
    found = fits.any(dim=1)
    w, h = w.gather(1, first).squeeze(1), h.gather(1, first).squeeze(1)
    height, width = height.squeeze(1), width.squeeze(1)
    centre = _centre(height, width, spec.crop_ratio)
    top, left = (u[:, 20] * (height - h + 1)).floor(), (u[:, 21] * (width - w + 1)).floor()
    drawn = (top, left, h, w)
    return Boxes(*(torch.where(found, d, c).long() for d, c in zip(drawn, centre, strict=True)))


def _permutation(number: Tensor) -> Tensor:
    """The permutation of 0, 1 and 2 that stands at a place of their order, (B,) -> (B, 3)."""
    first = number // 2
    low, high = (first == 0).long(), 2 - (first == 2).long()  # what is left
    second = torch.where(number % 2 == 1, high, low)
    return torch.stack([first, second, 3 - first - second], dim=1)


def draw_jitter(u: Tensor, spec: JitterSpec) -> Jitter:
    """Colour jitter as RandomApply([ColorJitter]) draws it, the order of its four steps included.

    Args:
        u: Uniform numbers in [0, 1), (B, 6): whether, order, brightness, contrast, saturation, hue.
        spec: Probability and strengths.
    """
    applied = u[:, 0] < spec.probability
    order = (u[:, 1] * 24).long()
    kinds = _permutation(order // 4)
    drawn = []
    for place, strength in enumerate((spec.brightness, spec.contrast, spec.saturation)):
        low, high = max(0.0, 1 - strength), 1 + strength
        drawn.append(torch.where(applied, low + (high - low) * u[:, 2 + place], 1))
    hue = torch.where(applied, spec.hue * (2 * u[:, 5] - 1), 0)
    return Jitter(kinds, torch.stack(drawn, dim=1).gather(1, kinds), hue, order % 4)


def _jitter_at_once(images: Tensor, jitter: Jitter) -> Tensor:
    """Each blend is offered before and after the hue shift, and does nothing in the wrong place.

    No shape depends on what was drawn, so that no device waits for the host.
    """
    for slot in range(3):
        factor = torch.where(slot < jitter.place, jitter.factors[:, slot], 1)
        images = blend(images, jitter.kinds[:, slot], factor)
    images = shift_hue(images, jitter.hue)
    for slot in range(3):
        factor = torch.where(slot >= jitter.place, jitter.factors[:, slot], 1)
        images = blend(images, jitter.kinds[:, slot], factor)
    return images


def _in_order(number: int, jitter: Jitter) -> Operation:
    """The jitter of samples that have one order in common, by that order's number."""
    (first, second), place = divmod(number // 4, 3), number % 4
    steps: list[int | None] = [first, second, 3 - first - second]
    steps.insert(place, None)  # the hue shift

    def jittered(some: Tensor, rows: Tensor) -> Tensor:
        slots = iter(jitter.factors[rows].unbind(dim=1))
        for kind in steps:
            if kind is None:
                some = shift_hue(some, jitter.hue[rows])
            else:
                some = BLENDS[kind](some, next(slots))
        return some

    return jittered


def _jitter_by_order(images: Tensor, jitter: Jitter) -> None:
    """The samples of each order by themselves, in place; one without jitter is not touched."""
    moved = (jitter.factors != 1).any(dim=1) | (jitter.hue != 0)
    order = (3 * jitter.kinds[:, 0] + jitter.kinds[:, 1]) * 4 + jitter.place
    order = torch.where(moved, order, -1)
    numbers = order[moved].unique().tolist()
    change(images, (((order == n).nonzero().squeeze(1), _in_order(n, jitter)) for n in numbers))


def apply_jitter(images: Tensor, jitter: Jitter) -> Tensor:
    """Colour jitter, each sample in its own order; images (B, 3, H, W) in [0, 1]."""
    if not in_blocks(images):
        return _jitter_at_once(images, jitter)
    jittered = images.clone()
    _jitter_by_order(jittered, jitter)
    return jittered


def draw(index: Tensor, epoch: int, view: int | Tensor, key: int) -> Tensor:
    """The uniform numbers that decide views.

    Args:
        index: Number of each image in its dataset, int64 (B,).
        epoch: From 0.
        view: Number of the view, one for all or (B,).
        key: From `rng.key_of(seed, "view")`.

    Returns:
        float32 (B, DRAWS); row i depends on (key, index[i], epoch, view[i]) only.
    """
    return uniform(key, index, epoch, view, count=DRAWS)


def mirrored(u: Tensor, spec: ViewSpec) -> Tensor | None:
    """Which crops are mirrored, bool (B,); None if none can be.

    A mirror image commutes with all that follows, so it is folded into the crop.
    """
    return u[:, FLIP] < spec.flip if spec.flip > 0 else None


def crop(images: Tensor, u: Tensor, spec: ViewSpec, size: int | None = None) -> Tensor:
    """The crops of a batch of images of one size, resized and perhaps mirrored.

    Args:
        images: uint8 (B, H, W, 3).
        u: From `draw`, on their device.
        spec: Probabilities and ranges.
        size: Side of the result; None: the images' own height and width.

    Returns:
        float32 (B, 3, size, size) in [0, 1].
    """
    boxes = draw_boxes(u[:, CROP], images.shape[1:3], spec)
    sides = None if size is None else (size, size)
    kernel, turned = spec.interpolation, mirrored(u, spec)
    return crop_and_resize(
        images.permute(0, 3, 1, 2), boxes, turned, interpolation=kernel, size=sides
    )


def _some(pixels: Tensor, chosen: Tensor, operation: Operation) -> Tensor:
    """What an operation makes of the chosen samples beside the others as they are.

    Args:
        pixels: (B, 3, H, W); of a CPU, they are overwritten.
        chosen: bool (B,).
        operation: Given samples and their numbers; of any shape that broadcasts to theirs.
    """
    if in_blocks(pixels):
        change(pixels, [(chosen.nonzero().squeeze(1), operation)])
        return pixels
    everything = torch.arange(len(pixels), device=pixels.device)
    return torch.where(chosen.view(-1, 1, 1, 1), operation(pixels, everything), pixels)


def recolour(pixels: Tensor, u: Tensor, spec: ViewSpec) -> Tensor:
    """Everything that follows the crop.

    Args:
        pixels: Crops, float32 (B, 3, H, W) in [0, 1]; they may be overwritten.
        u: From `draw`, on their device.
        spec: Probabilities and ranges.

    Returns:
        float32 (B, 3, H, W) in [0, 1].
    """
    if spec.jitter.probability > 0:
        jitter = draw_jitter(u[:, JITTER], spec.jitter)
        if in_blocks(pixels):
            _jitter_by_order(pixels, jitter)
        else:
            pixels = _jitter_at_once(pixels, jitter)
    if spec.grayscale > 0:
        pixels = _some(pixels, u[:, GREY] < spec.grayscale, lambda some, _: luminance(some))
    if spec.blur is not None and spec.blur.probability > 0:
        sigma, largest = draw_sigma(u[:, SIGMA], spec.blur), spec.blur.sigma[1]
        chosen = u[:, BLUR] < spec.blur.probability
        pixels = _some(pixels, chosen, lambda some, n: gaussian_blur(some, sigma[n], largest))
    if spec.solarize > 0:
        pixels = _some(pixels, u[:, SOLARIZE] < spec.solarize, lambda some, _: solarize(some))
    return pixels.clamp_(0, 1)


def make_views(
    images: Tensor,
    index: Tensor,
    epoch: int,
    view: int | Tensor,
    key: int,
    spec: ViewSpec,
    size: int | None = None,
) -> Tensor:
    """One augmented view of each image.

    Args:
        images: uint8 (B, H, W, 3); the work is done on their device.
        index: Number of each image in its dataset, int64 (B,).
        epoch: From 0.
        view: Number of the view, one for all or (B,).
        key: From `rng.key_of(seed, "view")`.
        spec: Probabilities and ranges.
        size: Side of the views; None: that of the images.

    Returns:
        float32 (B, 3, size, size) in [0, 1]; row i depends on (key, index[i], epoch, view[i]) only.
    """
    u = draw(index, epoch, view, key)
    return recolour(crop(images, u, spec, size), u, spec)


@dataclass(frozen=True)
class Operations:
    """`crop` and `recolour`, or what torch.compile makes of them."""

    crop: Callable[[Tensor, Tensor, ViewSpec, int | None], Tensor]
    recolour: Callable[[Tensor, Tensor, ViewSpec], Tensor]


@cache
def operations(compiler: str | None) -> Operations:
    """The operations as they are, or compiled; the two differ by rounding.

    Args:
        compiler: Backend of torch.compile, or None.
    """
    if compiler is None:
        return Operations(crop, recolour)
    made = (torch.compile(each, backend=compiler, dynamic=False) for each in (crop, recolour))
    return Operations(*made)
