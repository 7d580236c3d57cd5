"""Small images and the CLSP authors' pipeline, for tests of views."""

import torch
import torchvision.transforms.functional as F
from PIL import Image

from clsp.config.recipe import ViewSpec
from clsp.runtime.rng import key_of

LEVEL = 1 / 255 + 1e-6  # one grey level
JITTER = {"probability": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
STILL = {**JITTER, "probability": 0.0}
VIEWS = {
    "crop_scale": (0.08, 1.0), "crop_ratio": (3 / 4, 4 / 3), "interpolation": "bilinear",
    "flip": 0.5, "jitter": JITTER, "grayscale": 0.2, "solarize": 0.2,
}  # fmt: skip
WHOLE = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}  # a crop that changes nothing
NOTHING = {**WHOLE, "flip": 0.0, "jitter": STILL, "grayscale": 0.0, "solarize": 0.0}
BLUR = {"probability": 0.5, "sigma": (0.1, 2.0)}  # solo-learn's
KEY = key_of(0, "view")


def spec(**changes):
    """The authors' MoCo pipeline with changes."""
    return ViewSpec.model_validate({**VIEWS, **changes})


def random_images(count=6, side=12, seed=0):
    """uint8 (B, H, W, 3)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, side, side, 3), generator=generator, dtype=torch.uint8)


def as_float(images):
    """uint8 (B, H, W, 3) -> float (B, 3, H, W) in [0, 1]."""
    return images.permute(0, 3, 1, 2) / 255


def as_pil(image):
    """One uint8 (H, W, 3) as a PIL image."""
    return Image.fromarray(image.numpy())


def from_pil(images):
    """PIL images -> float (B, 3, H, W) in [0, 1]."""
    return torch.stack([F.pil_to_tensor(image) for image in images]) / 255


def worst(a, b):
    """Largest absolute difference."""
    return (a - b).abs().max().item()
