"""How an exported encoder is loaded with torchvision or timm, as text for its card."""

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from clsp.config.recipe import Normalisation
from clsp.config.schema import EncoderSpec
from clsp.runtime.errors import DataError

WEIGHTS = "model.safetensors"
USUAL = 64  # channels that torchvision's and timm's constructors start with
BLOCKS = {"resnet18": ("BasicBlock", (2, 2, 2, 2), 1), "resnet50": ("Bottleneck", (3, 4, 6, 3), 4)}
STEMS = {
    "small": "3x3 convolution with stride 1, no max pooling",
    "small_padding_2": "3x3 convolution with stride 1 and padding 2, no max pooling",
    "mid": "3x3 convolution with stride 1, then max pooling",
    "big": "torchvision's own: 7x7 convolution with stride 2, then max pooling",
}
PADDINGS = {"small": 1, "small_padding_2": 2, "mid": 1}


def features_of(encoder: EncoderSpec) -> int:
    """Length F of a feature vector."""
    return 8 * encoder.width * BLOCKS[encoder.architecture][2]


def is_torchvision(encoder: EncoderSpec) -> bool:
    """Whether torchvision's and timm's constructors build it as they are."""
    return encoder.width == USUAL and encoder.stem == "big"


def _built(encoder: EncoderSpec) -> list[str]:
    if encoder.width == USUAL:
        return [f"encoder = {encoder.architecture}(weights=None)"]
    block, depths, _ = BLOCKS[encoder.architecture]
    return [
        "class Scaled(ResNet):  # torchvision's constructor always starts with 64 channels",
        "    def _make_layer(self, block, planes, *rest, **options):",
        f"        self.inplanes = {encoder.width} if planes == 64 else self.inplanes",
        f"        planes = planes * {encoder.width} // 64",
        "        return super()._make_layer(block, planes, *rest, **options)",
        "",
        "",
        f"encoder = Scaled({block}, {list(depths)})",
        f"encoder.bn1 = nn.BatchNorm2d({encoder.width})",
    ]


def _stem(encoder: EncoderSpec) -> list[str]:
    width, lines = encoder.width, []
    if encoder.stem != "big":
        padding = PADDINGS[encoder.stem]
        lines.append(
            f"encoder.conv1 = nn.Conv2d(3, {width}, kernel_size=3, padding={padding}, bias=False)"
        )
    elif width != USUAL:
        size = "kernel_size=7, stride=2, padding=3"
        lines.append(f"encoder.conv1 = nn.Conv2d(3, {width}, {size}, bias=False)")
    if encoder.stem in ("small", "small_padding_2"):
        lines.append("encoder.maxpool = nn.Identity()")
    return lines


def loading_code(encoder: EncoderSpec, statistics: Normalisation, side: int) -> str:
    """Python that loads the weights into a torchvision ResNet and applies it to images.

    Args:
        encoder: Architecture, stem and width.
        statistics: Of the input, per channel, of pixels in [0, 1].
        side: Of the images that it was trained on, pixels.
    """
    block = BLOCKS[encoder.architecture][0]
    usual = encoder.width == USUAL
    imported = (
        f"from torchvision.models import {encoder.architecture}"
        if usual
        else f"from torchvision.models.resnet import {block}, ResNet"
    )
    lines = [
        "import torch",
        "from safetensors.torch import load_file",
        "from torch import nn",
        imported,
        *([""] if usual else ["", ""]),
        *_built(encoder),
        *_stem(encoder),
        "encoder.fc = nn.Identity()",
        f'encoder.load_state_dict(load_file("{WEIGHTS}"), strict=True)',
        "encoder.eval()",
        "",
        f"images = torch.zeros(1, {side}, {side}, 3, dtype=torch.uint8)  # (B, H, W, 3), 0 to 255",
        f"mean = torch.tensor({list(statistics.mean)}).view(1, 3, 1, 1)",
        f"std = torch.tensor({list(statistics.std)}).view(1, 3, 1, 1)",
        "with torch.no_grad():",
        "    pixels = images.permute(0, 3, 1, 2).to(torch.float32) / 255",
        f"    features = encoder((pixels - mean) / std)  # (B, {features_of(encoder)})",
    ]
    return "\n".join(lines)


def timm_note(encoder: EncoderSpec) -> str:
    """What timm can do with the weights, in words."""
    name = encoder.architecture
    if is_torchvision(encoder):
        return (
            "timm has the same parameter names and reads `config.json`: "
            '`timm.create_model("local-dir:FOLDER", pretrained=True)`, or from the Hub by name.'
        )
    if encoder.width == USUAL:
        return (
            f"timm has the same parameter names: "
            f'`encoder = timm.create_model("{name}", num_classes=0)` in the place of the line that '
            "calls torchvision, the others as they are."
        )
    return (
        f"The parameter names are also timm's, but its `{name}`, like torchvision's, cannot be "
        f"built with {encoder.width} channels by an argument: only names carry over, not the "
        "constructor."
    )


def config_json(
    encoder: EncoderSpec, statistics: Normalisation, side: int, about: dict[str, Any]
) -> str:
    """config.json: what timm reads where it can build the encoder, and what the suite knows.

    Args:
        encoder: Architecture, stem and width.
        statistics: Of the input.
        side: Of the images that it was trained on, pixels.
        about: What else identifies it.
    """
    described: dict[str, Any] = {
        "architecture": encoder.architecture,
        "num_classes": 0,
        "num_features": features_of(encoder),
        "global_pool": "avg",
    }
    if is_torchvision(encoder):
        described["pretrained_cfg"] = {
            "input_size": [3, side, side],
            "fixed_input_size": False,
            "crop_pct": 1.0,
            "mean": list(statistics.mean),
            "std": list(statistics.std),
            "num_classes": 0,
            "first_conv": "conv1",
            "classifier": "fc",
        }
    inside = {**encoder.canonical(), "input": statistics.canonical(), "side": side, **about}
    return json.dumps({**described, "clsp": inside}, indent=2) + "\n"


def check_weights(path: Path, encoder: EncoderSpec) -> int:
    """Look at names and shapes of a safetensors file, without torch.

    Returns:
        How many numbers it holds, running statistics of batch norm included.

    Raises:
        DataError: If it is unreadable or no ResNet of that shape under torchvision's names.
    """
    try:
        with safe_open(path, framework="numpy") as stream:
            shapes = {name: stream.get_slice(name).get_shape() for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: not a readable checkpoint ({error})") from error
    side = 7 if encoder.stem == "big" else 3
    first = [encoder.width, 3, side, side]
    if shapes.get("conv1.weight") != first:
        raise DataError(
            f"{path}: conv1.weight: expected {first}, found {shapes.get('conv1.weight')}"
        )
    known = re.compile(r"(conv1|bn1|layer[1-4]\.\d+\.(conv[1-3]|bn[1-3]|downsample\.[01]))\.\w+")
    if strange := sorted(name for name in shapes if not known.fullmatch(name)):
        raise DataError(f"{path}: {strange[0]}: not a name that torchvision's ResNet has")
    count = 0
    for shape in shapes.values():
        size = 1
        for length in shape:
            size *= length
        count += size
    return count
