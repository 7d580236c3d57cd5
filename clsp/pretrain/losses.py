"""Contrastive losses: pure functions of embeddings, in nats."""

import torch
import torch.nn.functional as F
from torch import Tensor


def _check_pair(a: Tensor, b: Tensor) -> None:
    if a.shape != b.shape:
        raise ValueError(f"embeddings differ in shape: {tuple(a.shape)} and {tuple(b.shape)}")


def nt_xent(z_a: Tensor, z_b: Tensor, temperature: float) -> Tensor:
    """Normalised-temperature cross entropy between two views (SimCLR, arXiv:2002.05709, Eq. 1).

    Args:
        z_a: Projections of view a, (B, D), any scale.
        z_b: Projections of view b, (B, D); row i shows the same image as z_a[i].
        temperature: Softmax temperature, > 0.

    Returns:
        Mean loss over the 2B views, scalar. Identical embeddings give ln(2B - 1).

    Raises:
        ValueError: If the views differ in shape.
    """
    _check_pair(z_a, z_b)
    z = F.normalize(torch.cat([z_a, z_b]), dim=1)  # (2B, D)
    logits = z @ z.T / temperature  # (2B, 2B)
    logits.fill_diagonal_(-torch.inf)  # a view is not its own negative
    partner = torch.arange(len(z), device=z.device).roll(len(z_a))  # i and i + B are one image
    return F.cross_entropy(logits, partner)


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Cross entropy of the matching key against a queue (MoCo, arXiv:1911.05722, Eq. 1).

    Args:
        query: (B, D), any scale.
        key: (B, D), any scale; row i shows the same image as query[i]. Gets no gradient.
        queue: Negatives, (D, K), unit columns. Gets no gradient.
        temperature: Softmax temperature, > 0.

    Returns:
        Mean loss over the batch, scalar.

    Raises:
        ValueError: If query and key differ in shape.
    """
    _check_pair(query, key)
    q, k = F.normalize(query, dim=1), F.normalize(key.detach(), dim=1)
    positive = (q * k).sum(dim=1, keepdim=True)  # (B, 1)
    logits = torch.cat([positive, q @ queue.detach()], dim=1) / temperature  # (B, 1 + K)
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


def alignment(z_anchor: Tensor, z_positive: Tensor) -> Tensor:
    """Mean of 2 - 2 cos between anchor and positive: CLSP's extra term (methods.md 2.1).

    No stop-gradient: both sides learn, as in the authors' code.

    Args:
        z_anchor: Embeddings of view 1, (B, D), any scale.
        z_positive: Embeddings of the positives, (B, D).

    Returns:
        Scalar in [0, 4].

    Raises:
        ValueError: If the two differ in shape.
    """
    _check_pair(z_anchor, z_positive)
    cosine = (F.normalize(z_anchor, dim=1) * F.normalize(z_positive, dim=1)).sum(dim=1)
    return (2 - 2 * cosine).mean()


def embedding_spread(z: Tensor) -> Tensor:
    """Standard deviation over the batch of unit embeddings, mean over D: 0 means collapse.

    Args:
        z: (B, D), any scale. Gets no gradient.

    Returns:
        Scalar; about 1 / sqrt(D) for a healthy encoder.
    """
    return F.normalize(z.detach(), dim=1).std(dim=0).mean()
