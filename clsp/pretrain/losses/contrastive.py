"""Contrastive losses: SimCLR, MoCo, NNCLR, SupCon and mixtures; in nats."""

import torch
import torch.nn.functional as F
from torch import Tensor

from clsp.pretrain.losses.precision import check_pair, full_precision


@full_precision
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
    check_pair(z_a, z_b)
    z = F.normalize(torch.cat([z_a, z_b]), dim=1)  # (2B, D)
    logits = z @ z.T / temperature  # (2B, 2B)
    logits.fill_diagonal_(-torch.inf)  # a view is not its own negative
    partner = torch.arange(len(z), device=z.device).roll(len(z_a))  # i and i + B are one image
    return F.cross_entropy(logits, partner)


@full_precision
def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """Cross entropy of the matching key against a queue (MoCo, arXiv:1911.05722, Eq. 1).

    Args:
        query: (B, D), any scale.
        key: (B, D), any scale; row i shows the same image as query[i]. Gets no gradient.
        queue: Negatives, (K, D), unit rows. Gets no gradient.
        temperature: Softmax temperature, > 0.

    Returns:
        Mean loss over the batch, scalar.

    Raises:
        ValueError: If query and key differ in shape.
    """
    check_pair(query, key)
    q, k = F.normalize(query, dim=1), F.normalize(key.detach(), dim=1)
    positive = (q * k).sum(dim=1, keepdim=True)  # (B, 1)
    logits = torch.cat([positive, q @ queue.detach().T], dim=1) / temperature  # (B, 1 + K)
    return F.cross_entropy(logits, torch.zeros(len(q), dtype=torch.long, device=q.device))


@full_precision
def cross_contrast(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Cross entropy of cosines of a with b against the diagonal (NNCLR, arXiv:2104.14548, Eq. 3).

    Args:
        a: (B, D), any scale; in NNCLR the neighbours. Rows of the logits.
        b: (B, D), any scale; in NNCLR the predictions of the other view. Columns.
        temperature: Softmax temperature, > 0.

    Returns:
        Mean loss over the batch, scalar. Identical embeddings give ln B.

    Raises:
        ValueError: If the two differ in shape.
    """
    check_pair(a, b)
    logits = F.normalize(a, dim=1) @ F.normalize(b, dim=1).T / temperature  # (B, B)
    return F.cross_entropy(logits, torch.arange(len(a), device=a.device))


@full_precision
def mixture_contrast(
    z_mixed: Tensor, z: Tensor, partner: Tensor, share: Tensor, temperature: float
) -> Tensor:
    """A mixture of images i and j resembles both, by their shares (BSIM; form inferred, D17).

    share l(mixed_i, z_i) + (1 - share) l(mixed_i, z_j), l the cross entropy of the cosines with
    every z of the batch (methods.md 2.14).

    Args:
        z_mixed: Projections of mixtures, (B, D), any scale; row i shows images i and partner[i].
        z: Projections of another view of the single images, (B, D).
        partner: Number within the batch of the second image, int64 (B,).
        share: Part of the first image in each mixture, (B,), in [0, 1].
        temperature: Softmax temperature, > 0.

    Returns:
        Mean loss over the batch, scalar.

    Raises:
        ValueError: If the embeddings differ in shape.
    """
    check_pair(z_mixed, z)
    logits = F.normalize(z_mixed, dim=1) @ F.normalize(z, dim=1).T / temperature  # (B, B)
    own = torch.arange(len(z), device=z.device)
    first = F.cross_entropy(logits, own, reduction="none")
    second = F.cross_entropy(logits, partner, reduction="none")
    return (share * first + (1 - share) * second).mean()


def _similarities(
    z_a: Tensor, z_b: Tensor, labels: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Logits (2B, 2B) with -inf on the diagonal, and where two different rows share a label."""
    check_pair(z_a, z_b)
    z = F.normalize(torch.cat([z_a, z_b]), dim=1)  # (2B, D)
    logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    both = torch.cat([labels, labels])
    return logits, (both[:, None] == both[None, :]).fill_diagonal_(False)


@full_precision
def supcon(z_a: Tensor, z_b: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrast, mean over positives outside the log (arXiv:2004.11362, Eq. 2).

    As the CLSP authors and SupContrast write it, without the latter's factor T / 0.07
    (methods.md 2.13).

    Args:
        z_a: Projections of view a, (B, D), any scale.
        z_b: Projections of view b, (B, D).
        labels: Class of each image, int64 (B,).
        temperature: Softmax temperature, > 0.

    Returns:
        Mean loss over the 2B views, scalar.

    Raises:
        ValueError: If the views differ in shape.
    """
    logits, same = _similarities(z_a, z_b, labels, temperature)
    log_share = logits.log_softmax(dim=1).masked_fill(~same, 0)  # (2B, 2B)
    return -(log_share.sum(dim=1) / same.sum(dim=1)).mean()


@full_precision
def supcon_inside(z_a: Tensor, z_b: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrast, positives summed inside the log: solo-learn's SupCon (methods.md 2.13).

    Arguments, result and errors as for `supcon`.
    """
    logits, same = _similarities(z_a, z_b, labels, temperature)
    of_class = logits.masked_fill(~same, -torch.inf).logsumexp(dim=1)
    return (logits.logsumexp(dim=1) - of_class).mean()
