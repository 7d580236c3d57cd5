"""Projection heads g, predictors h and prototypes (methods.md section 2)."""

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def build_projection_head(features: int, hidden: int, projection: int) -> nn.Sequential:
    """Linear -> ReLU -> Linear without batch norm, as in the CLSP authors' code (methods.md 2.1).

    Args:
        features: Width F of the encoder's output, 512 for ResNet-18.
        hidden: Width of the hidden layer, 4096 in the paper.
        projection: Width D of the embedding, 256 in the paper.

    Returns:
        A module that maps (B, F) to (B, D); torch's default initialisation.
    """
    return nn.Sequential(
        nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, projection)
    )


def build_mlp(
    widths: list[int],
    *,
    bias: bool = True,
    last_norm: Literal["none", "affine", "plain"] = "none",
) -> nn.Sequential:
    """Linear layers with batch norm and ReLU between them.

    Args:
        widths: Of the input, every hidden layer and the output.
        bias: Of the hidden layers; the last always has one.
        last_norm: Batch norm after the last layer: none, with affine parameters, or without, in
            which case the last bias has no effect and is frozen.

    Returns:
        A module that maps (B, widths[0]) to (B, widths[-1]); torch's default initialisation.
    """
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths[:-1]):
        layers += [
            nn.Linear(wide, narrow, bias=bias),
            nn.BatchNorm1d(narrow),
            nn.ReLU(inplace=True),
        ]
    last = nn.Linear(widths[-2], widths[-1])
    layers.append(last)
    if last_norm != "none":
        layers.append(nn.BatchNorm1d(widths[-1], affine=last_norm == "affine"))
    if last_norm == "plain":
        last.bias.requires_grad_(False)
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Scores of unit embeddings with unit vectors: a weight-normalised layer whose g is 1.

    Args:
        count: Number of prototypes K.
        width: Width D of the embeddings.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(nn.Linear(width, count, bias=False).weight.detach().clone())

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, D), any scale -> cosines (B, K)."""
        with torch.autocast(embeddings.device.type, enabled=False):  # methods.md 7, 10
            directions = F.normalize(self.directions, dim=1)
            return F.normalize(embeddings.to(directions.dtype), dim=1) @ directions.T


class DinoHead(nn.Module):
    """Linear, GELU, Linear, GELU, Linear, unit length, prototypes (methods.md 2.11); no batch norm.

    Args:
        features: Width F of the encoder's output.
        hidden: Width of the hidden layers.
        projection: Width D of the bottleneck.
        prototypes: Number of outputs K.
        std: Standard deviation of the truncated normal that weights start from. The published 0.02
            is for layers of 2048 units. In a narrow head the bottleneck's output starts very small;
            we suspect, but have not measured, that its biases then swamp it. Short narrow runs
            collapsed with it, and learned with a larger one and a colder teacher.
    """

    def __init__(
        self, features: int, hidden: int, projection: int, prototypes: int, std: float
    ) -> None:
        super().__init__()
        self.bottleneck = nn.Sequential(
            nn.Linear(features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, projection),
        )
        for layer in self.bottleneck:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)
        self.prototypes = Prototypes(prototypes, projection)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F) -> embeddings (B, D) of the bottleneck and logits (B, K)."""
        embeddings = self.bottleneck(features)
        return embeddings, self.prototypes(embeddings)


def freeze_gradient(module: nn.Module) -> None:
    """Drop the gradients of a module after backward, so that this step leaves it as it is."""
    for parameter in module.parameters():
        parameter.grad = None


def unit(embeddings: Tensor) -> Tensor:
    """Rows of length 1, x / max(|x|, 1e-12)."""
    return F.normalize(embeddings, dim=1)
