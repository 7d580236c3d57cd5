"""Projection heads g."""

from torch import nn


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
