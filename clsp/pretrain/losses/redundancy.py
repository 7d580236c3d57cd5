"""Losses on the statistics of embedding features: Barlow Twins, VICReg, All4One's feature term."""

import torch.nn.functional as F
from torch import Tensor

from clsp.pretrain.losses.precision import check_pair, full_precision

NORM_EPSILON = 1e-5  # of the batch norm that standardises Barlow Twins' features (methods.md 2.8)
VARIANCE_EPSILON = 1e-4  # inside VICReg's square root (methods.md 2.9)


def _off_diagonal(square: Tensor) -> Tensor:
    """Entries of (D, D) off the diagonal, (D * (D - 1),)."""
    width = len(square)
    return square.flatten()[:-1].view(width - 1, width + 1)[:, 1:].flatten()


def _standardised(z: Tensor) -> Tensor:
    """Columns with mean 0 and, up to the epsilon, biased variance 1."""
    return (z - z.mean(dim=0)) / (z.var(dim=0, unbiased=False) + NORM_EPSILON).sqrt()


@full_precision
def barlow_twins(z_1: Tensor, z_2: Tensor, off_diagonal_weight: float, scale: float) -> Tensor:
    """Cross-correlation towards the identity (Barlow Twins, arXiv:2103.03230, Eq. 1).

    Args:
        z_1: Projections of view 1, (B, D); z_2 of view 2.
        z_2: See z_1.
        off_diagonal_weight: lambda, weight of the redundancy term.
        scale: Factor of the whole loss.

    Returns:
        Scalar >= 0; 0 for equal, perfectly decorrelated views.

    Raises:
        ValueError: If the views differ in shape.
    """
    check_pair(z_1, z_2)
    correlation = _standardised(z_1).T @ _standardised(z_2) / len(z_1)  # (D, D)
    on = (1 - correlation.diagonal()).pow(2).sum()
    off = _off_diagonal(correlation).pow(2).sum()
    return scale * (on + off_diagonal_weight * off)


@full_precision
def invariance(z_1: Tensor, z_2: Tensor) -> Tensor:
    """VICReg's first term: mean squared error over B and D (arXiv:2105.04906, Eq. 5).

    Raises:
        ValueError: If the views differ in shape.
    """
    check_pair(z_1, z_2)
    return F.mse_loss(z_1, z_2)


@full_precision
def variance(z_1: Tensor, z_2: Tensor) -> Tensor:
    """VICReg's second term: hinge on each feature's deviation, summed over views (Eq. 1 and 2).

    As in solo-learn; the VICReg authors halve it (methods.md 2.9). Unbiased variance.

    Returns:
        Scalar in [0, 2).
    """
    spreads = [(z.var(dim=0) + VARIANCE_EPSILON).sqrt() for z in (z_1, z_2)]
    return sum((1 - spread).relu().mean() for spread in spreads)


@full_precision
def covariance(z_1: Tensor, z_2: Tensor) -> Tensor:
    """VICReg's third term: squared covariances off the diagonal over D (Eq. 3 and 4).

    Returns:
        The sum over both views, scalar >= 0.
    """
    total = z_1.new_zeros(())
    for z in (z_1, z_2):
        centred = z - z.mean(dim=0)
        total = total + _off_diagonal(centred.T @ centred / (len(z) - 1)).pow(2).sum() / z.shape[1]
    return total


@full_precision
def feature_contrast(m_1: Tensor, m_2: Tensor, z_1: Tensor, z_2: Tensor) -> Tensor:
    """All4One's feature term on columns normalised over the batch (methods.md 2.5).

    Args:
        m_1: The average's unit projections of view 1, (B, D); get no gradient. m_2 of view 2.
        m_2: See m_1.
        z_1: Online projections of view 1, (B, D), any scale. z_2 of view 2.
        z_2: See z_1.

    Returns:
        10 (on + off) / 2, scalar >= 0.

    Raises:
        ValueError: If the tensors differ in shape.
    """
    check_pair(m_1, z_2)
    check_pair(m_2, z_1)
    m_1, m_2 = (F.normalize(m.detach(), dim=0) for m in (m_1, m_2))
    crossed = [m_1.T @ F.normalize(z_2, dim=0), m_2.T @ F.normalize(z_1, dim=0)]  # (D, D) each
    on = sum((c.diagonal() - 1).pow(2).mean() for c in crossed)
    off = sum(_off_diagonal(c).pow(2).mean() for c in crossed)
    return 10 * ((on / 2).sqrt() + (off / 2).sqrt()) / 2
