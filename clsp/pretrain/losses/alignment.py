"""Pulling two embeddings together: CLSP's extra term, BYOL and SimSiam."""

import torch.nn.functional as F
from torch import Tensor

from clsp.pretrain.losses.precision import check_pair, full_precision


@full_precision
def alignment(z_anchor: Tensor, z_positive: Tensor) -> Tensor:
    """Mean of 2 - 2 cos between anchor and positive: CLSP's extra term (methods.md 2.1).

    No stop-gradient here: both sides learn, as in the authors' code, unless a method gives one
    side detached.

    Args:
        z_anchor: Embeddings of view 1, (B, D), any scale.
        z_positive: Embeddings of the positives, (B, D).

    Returns:
        Scalar in [0, 4].

    Raises:
        ValueError: If the two differ in shape.
    """
    check_pair(z_anchor, z_positive)
    cosine = (F.normalize(z_anchor, dim=1) * F.normalize(z_positive, dim=1)).sum(dim=1)
    return (2 - 2 * cosine).mean()


def byol(p_1: Tensor, p_2: Tensor, target_1: Tensor, target_2: Tensor) -> Tensor:
    """Both directions of 2 - 2 cos, summed, not averaged (BYOL, arXiv:2006.07733, Eq. 2).

    Args:
        p_1: Predictions from view 1, (B, D), any scale; p_2 from view 2.
        p_2: See p_1.
        target_1: The average's projections of view 1, (B, D); no gradient reaches them.
        target_2: The same of view 2.

    Returns:
        Scalar in [0, 8].
    """
    return alignment(p_1, target_2.detach()) + alignment(p_2, target_1.detach())


@full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """Minus the mean cosine, z without gradient (SimSiam, arXiv:2011.10566, Eq. 1 and 3).

    Args:
        p: Predictions, (B, D), any scale.
        z: Projections of the other view, (B, D).

    Returns:
        Scalar in [-1, 1].

    Raises:
        ValueError: If the two differ in shape.
    """
    check_pair(p, z)
    return -(F.normalize(p, dim=1) * F.normalize(z.detach(), dim=1)).sum(dim=1).mean()
