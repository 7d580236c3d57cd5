"""How fast are augmented views made: by the suite, torchvision and kornia, side by side?

    python benchmarks/augmentation.py [--images FOLDER] [--rounds 5] [--device cpu|cuda]

Three views of each of 256 images of 32 pixels, as the third-view recipe wants them, by two
recipes: the CLSP authors' (crop, jitter, flip, grayscale) and solo-learn's (bicubic, stronger
jitter, blur, and solarize, which it has in others). All variants run on the same machine in turn:

    torchvision       its classes on PIL images, one by one, in as many DataLoader workers as there
                      are processors: what most codes do, and `execution.views: torchvision`
    torchvision v2    its newer classes on uint8 tensors, in the same workers
    suite             clsp.data.views, and the same compiled by torch.compile
    kornia            its batched classes with parameters of each sample; blur with a Gaussian of 23
                      taps. Left out where the package is absent:
                      pip install --no-deps kornia==0.9.0 kornia_rs

torchvision v2 on a whole batch is no variant: it gives all of its images the same parameters.
FOLDER holds train/<class>/*, such as CIFAR-10 as JPEG; without it pictures are drawn.
Writes benchmarks/results/augmentation.json and .md: views per second, ratios to torchvision, and
the largest difference between compiled and eager views. 2 to 4 minutes on two CPU cores.
"""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from recording import compare, record, side_by_side, surroundings
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from workload import JITTER, SIZE, VIEWS, drawn_images, read_images

from clsp.config.recipe import ViewSpec
from clsp.data.torchvision_views import build_transform
from clsp.data.views import draw, operations
from clsp.runtime.rng import key_of

try:
    import kornia.augmentation as kornia
except ImportError:
    kornia = None

BATCH, SHOWN, KEY = 256, 3, key_of(0, "view")
STRONG = {**JITTER, "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
SOLO = {
    **VIEWS,
    "interpolation": "bicubic",
    "jitter": STRONG,
    "solarize": 0.2,
    "blur": {"probability": 0.5, "sigma": (0.1, 2.0)},
}
RECIPES = {"CLSP": ViewSpec.model_validate(VIEWS), "solo-learn": ViewSpec.model_validate(SOLO)}
TAPS = 23  # of the Gaussian in SimCLR's, solo-learn's and lightly's blur of tensors


class Shown(Dataset[list[Tensor]]):
    """Views of one image, as DataLoader asks for them."""

    def __init__(self, images: list[Any], transform: Callable[[Any], Tensor]) -> None:
        self.images, self.transform = images, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> list[Tensor]:
        return [self.transform(self.images[row]) for _ in range(SHOWN)]


def in_workers(
    images: list[Any], transform: Callable[[Any], Tensor], device: torch.device
) -> Callable[[], None]:
    """One pass over the images by worker processes, which stay and do nothing in between."""
    loader = DataLoader(
        Shown(images, transform),
        batch_size=BATCH,
        num_workers=len(os.sched_getaffinity(0)),
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )

    def work() -> None:
        for batch in loader:
            for view in batch:
                view.to(device, non_blocking=True)

    return work


def suite(pixels: Tensor, spec: ViewSpec, compiler: str | None) -> Callable[[], list[Tensor]]:
    """The same by the suite, from pixels on the device."""
    made = operations(compiler)

    def work() -> list[Tensor]:
        views = []
        for start in range(0, len(pixels), BATCH):
            index = torch.arange(start, start + BATCH, device=pixels.device).repeat(SHOWN)
            number = torch.arange(SHOWN, device=pixels.device).repeat_interleave(BATCH)
            u = draw(index, 0, number, KEY)
            views.append(made.recolour(made.crop(pixels[index], u, spec, None), u, spec))
        return views

    return work


def newer(spec: ViewSpec) -> v2.Compose:
    """The recipe in torchvision's second set of classes, for uint8 tensors (3, H, W)."""
    jitter = spec.jitter
    strengths = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    kernel = v2.InterpolationMode(spec.interpolation)
    steps = [
        v2.RandomResizedCrop(SIZE, spec.crop_scale, spec.crop_ratio, kernel, antialias=True),
        v2.RandomApply([v2.ColorJitter(*strengths)], p=jitter.probability),
        v2.RandomHorizontalFlip(spec.flip),
        v2.RandomGrayscale(spec.grayscale),
    ]
    if spec.blur is not None:
        blur = v2.GaussianBlur(TAPS, spec.blur.sigma)
        steps += [v2.RandomApply([blur], p=spec.blur.probability)]
        steps += [v2.RandomSolarize(128, p=spec.solarize)]
    return v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True)])


def by_kornia(pixels: Tensor, spec: ViewSpec) -> Callable[[], None]:
    """The recipe in kornia's classes, for batches of floats on the device."""
    jitter = spec.jitter
    strengths = jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue
    resample = spec.interpolation
    steps = [
        kornia.RandomResizedCrop((SIZE, SIZE), spec.crop_scale, spec.crop_ratio, resample),
        kornia.ColorJitter(*strengths, p=jitter.probability),
        kornia.RandomHorizontalFlip(p=spec.flip),
        kornia.RandomGrayscale(p=spec.grayscale),
    ]
    if spec.blur is not None:
        blur = kornia.RandomGaussianBlur
        steps.append(blur((TAPS, TAPS), spec.blur.sigma, p=spec.blur.probability))
        steps.append(kornia.RandomSolarize(p=spec.solarize))
    chain = torch.nn.Sequential(*steps)

    def work() -> None:
        for start in range(0, len(pixels), BATCH):
            shown = pixels[start : start + BATCH].permute(0, 3, 1, 2).to(torch.float32) / 255
            chain(shown.repeat(SHOWN, 1, 1, 1))

    return work


def measure(
    name: str, images: np.ndarray, device: torch.device, rounds: int
) -> tuple[list[dict[str, Any]], float]:
    """Rows of one recipe, and the largest difference between its compiled and eager views."""
    spec, pixels = RECIPES[name], torch.from_numpy(images).to(device)
    pictures = [Image.fromarray(image) for image in images]
    tensors = list(torch.from_numpy(images).permute(0, 3, 1, 2))
    work: dict[str, Callable[[], object]] = {
        "torchvision": in_workers(pictures, build_transform(spec, SIZE), device),
        "torchvision v2": in_workers(tensors, newer(spec), device),
        "suite": suite(pixels, spec, None),
        "suite, compiled": suite(pixels, spec, "inductor"),
    }
    if kornia is not None:
        work["kornia"] = by_kornia(pixels, spec)
    pairs = zip(work["suite"](), work["suite, compiled"](), strict=True)
    apart = max((one - other).abs().max().item() for one, other in pairs)
    timings = side_by_side(work, rounds, device)
    rows = compare(timings, "torchvision", SHOWN * len(images), "views")
    return [{**row, "variant": f"{name}: {row['variant']}"} for row in rows], apart


def main() -> int:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with train/<class>/*")
    parser.add_argument("--batches", type=int, default=4, help="of 256 images, in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device, count = torch.device(arguments.device), arguments.batches * BATCH
    given = arguments.images
    images = drawn_images(count) if given is None else read_images(given, count)
    rows, notes = [], []
    for name in RECIPES:
        found, apart = measure(name, images, device, arguments.rounds)
        rows += found
        notes.append(f"{name}: compiled and eager views differ by at most {apart:.1e} (of 1).")
    if kornia is None:
        notes.append("kornia: absent (pip install --no-deps kornia==0.9.0 kornia_rs).")
    about = surroundings(device, "torchvision", "kornia", "pillow")
    about["images"] = "drawn" if given is None else str(given.name)
    about["workers of torchvision"] = len(os.sched_getaffinity(0))
    about["image backend"] = torchvision.get_image_backend()
    print(record("augmentation", about, rows, notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
