"""Losses between soft assignments: SwAV, DINO, ReSSL."""

import torch
from torch import Tensor

from clsp.pretrain.losses.blocks import mean_over_rows
from clsp.pretrain.losses.precision import full_precision


@torch.no_grad()
@full_precision
def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Equipartitioned assignments by Sinkhorn-Knopp (SwAV, arXiv:2006.09882, Eq. 3 and 5).

    Args:
        scores: Cosines with the prototypes, (B, K).
        epsilon: Entropy weight, > 0.
        iterations: Of row and column normalisation.

    Returns:
        (B, K), rows sum to 1; carries no gradient.
    """
    # A constant factor leaves the result as it is, and without one exp(1 / epsilon) can overflow.
    q = torch.exp((scores - scores.max()) / epsilon).T  # (K, B)
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
        q = q / q.sum(dim=0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


@full_precision
def soft_cross_entropy(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy of softmax(logits / temperature) under given distributions.

    Args:
        logits: (B, K).
        targets: Rows that sum to 1, (B, K); get no gradient.
        temperature: Softmax temperature, > 0.

    Returns:
        Scalar; ln K for uniform targets and equal logits.
    """
    return -(targets.detach() * (logits / temperature).log_softmax(dim=1)).sum(dim=1).mean()


def swav(scores: list[Tensor], assignments: list[Tensor], temperature: float) -> Tensor:
    """Each view predicts the other's assignment (SwAV, arXiv:2006.09882, Eq. 1).

    Args:
        scores: Of views 1 and 2 with the prototypes, (B, K) each.
        assignments: From `sinkhorn`, of views 1 and 2.
        temperature: Softmax temperature, > 0.

    Returns:
        Mean of both directions; collapse gives ln K.
    """
    first = soft_cross_entropy(scores[1], assignments[0], temperature)
    second = soft_cross_entropy(scores[0], assignments[1], temperature)
    return (first + second) / 2


@full_precision
def dino(
    student: list[Tensor],
    teacher: list[Tensor],
    centre: Tensor,
    student_temperature: float,
    teacher_temperature: float | Tensor,
) -> Tensor:
    """Mean cross entropy of the two crossed views (DINO, arXiv:2104.14294, Eq. 1 to 4).

    Args:
        student: Logits of views 1 and 2, (B, K) each.
        teacher: Logits of views 1 and 2, (B, K) each; get no gradient.
        centre: Subtracted from the teacher's logits, (K,) or (1, K).
        student_temperature: Softmax temperature, > 0.
        teacher_temperature: Softmax temperature, > 0; a scalar tensor may lie on the CPU.

    Returns:
        Scalar; ln K if the output collapses to uniform.
    """
    targets = [((t - centre) / teacher_temperature).softmax(dim=1) for t in teacher]
    first = soft_cross_entropy(student[1], targets[0], student_temperature)
    second = soft_cross_entropy(student[0], targets[1], student_temperature)
    return (first + second) / 2


@full_precision
def relational(
    query: Tensor, key: Tensor, queue: Tensor, temperature: float, key_temperature: float
) -> Tensor:
    """Keep the weak view's relations to a queue (ReSSL, arXiv:2107.09282, Eq. 4 to 6).

    Args:
        query: Unit embeddings of the strong view, (B, D).
        key: The average's unit embeddings of the weak view, (B, D); get no gradient.
        queue: Past keys, (K, D), unit rows.
        temperature: Of the query's relations, > 0.
        key_temperature: Of the key's, > 0 and smaller: a sharper target.

    Returns:
        Mean loss over the batch, scalar.
    """

    def loss_of(rows: slice) -> Tensor:
        targets = (key[rows].detach() @ queue.T / key_temperature).softmax(dim=1)  # (r, K)
        return soft_cross_entropy(query[rows] @ queue.T, targets, temperature)

    return mean_over_rows(loss_of, len(query), len(queue))
