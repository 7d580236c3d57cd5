"""The encoder f: a torchvision ResNet with the authors' stems and an adjustable width."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1

from clsp.config.recipe import Normalisation
from clsp.config.schema import EncoderSpec
from clsp.config.strict import parse
from clsp.runtime.canonical import canonical_json, parse_json
from clsp.runtime.checkpoint import load_tensors, save_tensors
from clsp.runtime.device import to_device
from clsp.runtime.errors import DataError
from clsp.runtime.manifest import Artefact

LAYOUTS = {"resnet18": (BasicBlock, (2, 2, 2, 2)), "resnet50": (Bottleneck, (3, 4, 6, 3))}
PADDING = {"small": 1, "small_padding_2": 2, "mid": 1, "big": 3}  # of the first convolution
FILE = "encoder.safetensors"
START = "checkpoints/start.safetensors"  # of the whole method, before its first step


class Encoder(nn.Module):
    """ResNet without its classifier; parameter names are torchvision's, so weights interchange.

    Stems (methods.md 1.1): "small" 3x3 stride 1 padding 1 without max pooling (32 px and below),
    "mid" the same with max pooling (64 px), "big" torchvision's own, all as in the CLSP authors'
    code; "small_padding_2" is "small" with padding 2, solo-learn's stem for CIFAR.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        block, depths = LAYOUTS[spec.architecture]
        width = self.inplanes = spec.width
        big = spec.stem == "big"
        small = spec.stem in ("small", "small_padding_2")
        self.conv1 = nn.Conv2d(
            3,
            width,
            kernel_size=7 if big else 3,
            stride=2 if big else 1,
            padding=PADDING[spec.stem],
            bias=False,
        )
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._stage(block, width, depths[0], stride=1)
        self.layer2 = self._stage(block, 2 * width, depths[1], stride=2)
        self.layer3 = self._stage(block, 4 * width, depths[2], stride=2)
        self.layer4 = self._stage(block, 8 * width, depths[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.features = 8 * width * block.expansion  # F
        # torchvision's initialisation. Both authors put their 3x3 stem in afterwards, so it keeps
        # the default of nn.Conv2d (clsp utils/utils.py, solo-learn solo/methods/base.py).
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and (big or module is not self.conv1):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, block: type, planes: int, depth: int, stride: int) -> nn.Sequential:
        shortcut = None
        if stride != 1 or self.inplanes != planes * block.expansion:
            shortcut = nn.Sequential(
                conv1x1(self.inplanes, planes * block.expansion, stride),
                nn.BatchNorm2d(planes * block.expansion),
            )
        blocks = [block(self.inplanes, planes, stride, shortcut)]
        self.inplanes = planes * block.expansion
        blocks += [block(self.inplanes, planes) for _ in range(depth - 1)]
        return nn.Sequential(*blocks)

    def forward(self, images: Tensor) -> Tensor:
        """Features after global average pooling.

        Args:
            images: Normalised, (B, 3, H, W).

        Returns:
            (B, F).
        """
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.flatten(self.avgpool(x), 1)


def save_encoder(
    path: Path, encoder: Encoder, spec: EncoderSpec, normalisation: Normalisation
) -> None:
    """Write weights with what is needed to use them: architecture and input statistics."""
    metadata = {
        "encoder": canonical_json(spec.canonical()),
        "normalisation": canonical_json(normalisation.canonical()),
    }
    save_tensors(path, encoder.state_dict(), metadata)


def load_encoder(
    artefact: Artefact, device: torch.device, untrained: bool = False
) -> tuple[Encoder, Normalisation]:
    """The frozen encoder of a pretraining run, in eval mode, and its input statistics.

    Args:
        artefact: The run.
        device: Where the encoder is wanted.
        untrained: Take its weights from before the first step.

    Raises:
        DataError: If a file is corrupt or its tensors do not fit the architecture.
    """
    path = artefact.path(FILE)
    tensors, metadata = load_tensors(path)
    try:
        spec = parse(EncoderSpec, parse_json(metadata["encoder"]), str(path))
        statistics = parse(Normalisation, parse_json(metadata["normalisation"]), str(path))
    except KeyError as error:
        raise DataError(f"{path}: metadata lacks {error}") from None
    if untrained:
        path, mine = artefact.path(START), "encoder."
        stored, _ = load_tensors(path)
        tensors = {n.removeprefix(mine): t for n, t in stored.items() if n.startswith(mine)}
    encoder = Encoder(spec)
    try:
        encoder.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise DataError(f"{path}: does not fit the architecture of its run: {error}") from error
    return encoder.eval().requires_grad_(False).to(device), statistics


def normalise(images: Tensor, statistics: Normalisation) -> Tensor:
    """uint8 (B, H, W, 3) or float [0, 1] (B, 3, H, W) -> normalised float (B, 3, H, W)."""
    if images.dtype == torch.uint8:
        images = images.permute(0, 3, 1, 2).to(torch.float32) / 255
    mean, std = to_device(torch.tensor([statistics.mean, statistics.std]), images.device)  # (3,)
    return (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
