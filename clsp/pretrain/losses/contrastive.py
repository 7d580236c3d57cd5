"""Contrastive losses: SimCLR, MoCo, NNCLR, SupCon and mixtures; in nats."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from clsp.pretrain.losses.blocks import mean_over_rows
from clsp.pretrain.losses.precision import check_pair, full_precision


def _similarities(z: Tensor, rows: slice, temperature: float) -> Tensor:
    """Logits (r, R) of some rows of unit embeddings (R, D) with all of them; itself is -inf."""
    logits = z[rows] @ z.T / temperature
    if len(logits) == len(z):
        return logits.fill_diagonal_(-torch.inf)
    own = torch.arange(rows.start, rows.stop, device=z.device)[:, None]  # (r, 1)
    return logits.scatter(1, own, -torch.inf)


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
    partner = torch.arange(len(z), device=z.device).roll(len(z_a))  # i and i + B are one image

    def loss_of(rows: slice) -> Tensor:
        # (r, 2B); a view is not its own negative
        return F.cross_entropy(_similarities(z, rows, temperature), partner[rows])

    return mean_over_rows(loss_of, len(z), len(z))


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
    first = torch.zeros(len(q), dtype=torch.long, device=q.device)

    def loss_of(rows: slice) -> Tensor:
        others = q[rows] @ queue.detach().T  # (r, K)
        logits = torch.cat([positive[rows], others], dim=1) / temperature  # (r, 1 + K)
        return F.cross_entropy(logits, first[rows])

    return mean_over_rows(loss_of, len(q), 1 + len(queue))


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
    a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
    own = torch.arange(len(a), device=a.device)

    def loss_of(rows: slice) -> Tensor:
        return F.cross_entropy(a[rows] @ b.T / temperature, own[rows])  # logits (r, B)

    return mean_over_rows(loss_of, len(a), len(b))


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
    mixed, z = F.normalize(z_mixed, dim=1), F.normalize(z, dim=1)
    own = torch.arange(len(z), device=z.device)

    def loss_of(rows: slice) -> Tensor:
        logits = mixed[rows] @ z.T / temperature  # (r, B)
        first = F.cross_entropy(logits, own[rows], reduction="none")
        second = F.cross_entropy(logits, partner[rows], reduction="none")
        return (share[rows] * first + (1 - share[rows]) * second).mean()

    return mean_over_rows(loss_of, len(mixed), len(z))


def _by_class(
    z_a: Tensor,
    z_b: Tensor,
    labels: Tensor,
    temperature: float,
    form: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Mean of a form of supervised contrast over the 2B views.

    Args:
        z_a: Of view a, (B, D); z_b of view b.
        z_b: See z_a.
        labels: int64 (B,).
        temperature: Softmax temperature.
        form: Loss of some rows, (r,), from their logits with -inf for the row itself, (r, 2B), and
            from where another row has the same label, bool (r, 2B).
    """
    check_pair(z_a, z_b)
    z = F.normalize(torch.cat([z_a, z_b]), dim=1)  # (2B, D)
    both = torch.cat([labels, labels])

    def loss_of(rows: slice) -> Tensor:
        logits = _similarities(z, rows, temperature)
        same = (both[rows, None] == both[None, :]) & (logits > -torch.inf)
        return form(logits, same).mean()

    return mean_over_rows(loss_of, len(z), len(z))


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

    def form(logits: Tensor, same: Tensor) -> Tensor:
        log_share = logits.log_softmax(dim=1).masked_fill(~same, 0)
        return -(log_share.sum(dim=1) / same.sum(dim=1))

    return _by_class(z_a, z_b, labels, temperature, form)


@full_precision
def supcon_inside(z_a: Tensor, z_b: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Supervised contrast, positives summed inside the log: solo-learn's SupCon (methods.md 2.13).

    Arguments, result and errors as for `supcon`.
    """

    def form(logits: Tensor, same: Tensor) -> Tensor:
        of_class = logits.masked_fill(~same, -torch.inf).logsumexp(dim=1)
        return logits.logsumexp(dim=1) - of_class

    return _by_class(z_a, z_b, labels, temperature, form)
