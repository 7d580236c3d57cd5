"""Views as most codes make them: torchvision's classes on PIL images, one after the other (D32).

What clsp.data.views does in batches is measured against this, and `execution.views: torchvision`
trains with it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import transforms as T

from clsp.config.recipe import BlurSpec, ViewSpec
from clsp.data.encoded import EncodedImages
from clsp.data.prepared import Images
from clsp.runtime.errors import ClspError
from clsp.runtime.keys import key_of

SOLARIZE_FROM = 128  # grey level; PIL.ImageOps.solarize's default


class Blur:
    """PIL's Gaussian blur with a standard deviation drawn uniformly, as solo-learn has it."""

    def __init__(self, spec: BlurSpec) -> None:
        self.sigma = spec.sigma

    def __call__(self, picture: Image.Image) -> Image.Image:
        """Blur one image."""
        sigma = torch.empty(1).uniform_(*self.sigma).item()
        return picture.filter(ImageFilter.GaussianBlur(sigma))


def build_transform(spec: ViewSpec, size: int) -> T.Compose:
    """The pipeline of a recipe.

    Args:
        spec: Probabilities and ranges.
        size: Side of the views, pixels.

    Returns:
        What makes a float tensor (3, size, size) in [0, 1] of a PIL image, with random numbers from
        torch's global stream.
    """
    jitter = spec.jitter
    strengths = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    crop = T.RandomResizedCrop(
        size,
        scale=spec.crop_scale,
        ratio=spec.crop_ratio,
        interpolation=T.InterpolationMode(spec.interpolation),
    )
    steps: list[Any] = [
        crop,
        T.RandomApply([T.ColorJitter(*strengths)], p=jitter.probability),
        T.RandomHorizontalFlip(p=spec.flip),
        T.RandomGrayscale(p=spec.grayscale),
    ]
    if spec.blur is not None:
        steps.append(T.RandomApply([Blur(spec.blur)], p=spec.blur.probability))
    if spec.solarize > 0:
        steps.append(T.RandomSolarize(SOLARIZE_FROM, p=spec.solarize))
    return T.Compose([*steps, T.ToTensor()])


@dataclass(frozen=True)
class Sample:
    """What is shown of one anchor.

    Attributes:
        index: Number of the anchor, which keys its views.
        epoch: From 0.
        row: Training image that is its positive, or None.
        picture: Other image that is, uint8 (H, W, 3), or None.
    """

    index: int
    epoch: int
    row: int | None = None
    picture: np.ndarray | None = None


class TorchvisionViews(Dataset[list[Tensor] | ClspError]):
    """Views 0 and 1 of an anchor, and view 2 of its positive if it has one."""

    def __init__(
        self, images: Images, first: ViewSpec, second: ViewSpec, size: int, seed: int
    ) -> None:
        """Nothing is read yet.

        Args:
            images: Training images.
            first: Pipeline of view 0 and of the positive.
            second: Pipeline of view 1.
            size: Side of the views, pixels.
            seed: Of the run.
        """
        self.images, self.seed = images, seed
        self.transforms = [build_transform(spec, size) for spec in (first, second, first)]

    def _picture(self, row: int) -> Image.Image:
        if isinstance(self.images, EncodedImages):
            return self.images.picture(row)
        return Image.fromarray(self.images[row])

    def _view(self, picture: Image.Image, sample: Sample, number: int) -> Tensor:
        """One view. The stream is put back afterwards, should this be the process that trains."""
        key = key_of(self.seed, "torchvision view", sample.epoch, sample.index, number)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(key)
            return self.transforms[number](picture)

    def __getitem__(self, sample: Sample) -> list[Tensor] | ClspError:
        """Views (3, size, size) in [0, 1], or why an image cannot be read.

        An error is returned, because one that is raised in another process arrives with that
        process's traceback as its message.
        """
        try:
            anchor = self._picture(sample.index)
            shown = [anchor, anchor]
            if sample.row is not None:
                shown.append(self._picture(sample.row))
            elif sample.picture is not None:
                shown.append(Image.fromarray(sample.picture))
        except ClspError as error:
            return error
        return [self._view(picture, sample, number) for number, picture in enumerate(shown)]


def stack(samples: list[list[Tensor] | ClspError]) -> list[Tensor] | ClspError:
    """Views of a batch, (B, 3, size, size) each, or its first error."""
    failed = [sample for sample in samples if isinstance(sample, ClspError)]
    return failed[0] if failed else [torch.stack(views) for views in zip(*samples, strict=True)]
