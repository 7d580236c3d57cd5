"""Collapse and liveness, watched while a run trains and never a reason to stop it.

Both of the paper's methods pass through a nearly collapsed start that is normal (methods.md 5), so
warnings begin after ten epochs, or a tenth of a longer run, and only a loss or gradient that is not
finite ends a run.
Labels are used here for the log alone: a method never sees them through this module.
"""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clsp.models.ema import Teacher
from clsp.pretrain.contract import Step

log = logging.getLogger(__name__)
COLLAPSED = 0.1  # of 1 / sqrt(D), the spread of a healthy embedding
GRACE = 10  # epochs before the first warning, or a tenth of a longer run


def embedding_spread(z: Tensor) -> Tensor:
    """Standard deviation over the batch of unit embeddings, mean over D: 0 means collapse.

    Args:
        z: (B, D), any scale. Gets no gradient.

    Returns:
        Scalar; about 1 / sqrt(D) for a healthy encoder.
    """
    return F.normalize(z.detach().float(), dim=1).std(dim=0).mean()


def effective_rank(z: Tensor) -> Tensor:
    """Exponential of the entropy of the singular values of unit embeddings (Roy & Vetterli, 2007).

    Args:
        z: (B, D), any scale. Gets no gradient.

    Returns:
        Scalar in [1, min(B, D)]; 1 means that all embeddings lie on one line.
    """
    values = torch.linalg.svdvals(F.normalize(z.detach().float(), dim=1))
    shares = values / values.sum().clamp_min(1e-12)
    return torch.exp(-(shares * shares.clamp_min(1e-12).log()).sum())


@torch.no_grad()
def teacher_distance(teacher: Teacher, online: nn.Module) -> Tensor:
    """Relative distance of the average's weights from the online ones; 0: it never moved away.

    Returns:
        |average - online| / |online| over all parameters, scalar >= 0.
    """
    pairs = zip(teacher.network.parameters(), online.parameters(), strict=True)
    gaps = [((a - o).float().pow(2).sum(), o.float().pow(2).sum()) for a, o in pairs]
    return (sum(gap for gap, _ in gaps) / sum(size for _, size in gaps)).sqrt()


def watched(done: Step) -> Tensor:
    """The embedding of view 1 that tells of collapse, (B, D)."""
    return done.z_anchor if done.watched is None else done.watched


class Watch:
    """Values for the step log, and warnings.

    Args:
        method: The method; one with `teacher` and `online()` has its distance taken.
        labels: Classes of the training images, int64 (N,), on the device; for the log alone.
        epochs: Of the run.
    """

    def __init__(self, method: nn.Module, labels: Tensor, epochs: int) -> None:
        self.method, self.labels = method, labels
        self.grace = max(GRACE, epochs // 10)
        self.warned = False

    def each_step(self, done: Step, index: Tensor) -> dict[str, Tensor]:
        """Spread of the embedding and, where neighbours were taken, how many share the class.

        The share counts neighbours that are embeddings of an image, not a queue's random start,
        where both images have a label.
        """
        values = {"embedding_std": embedding_spread(watched(done))}
        if done.neighbours is not None:
            own, theirs = self.labels[index][:, None], self.labels[done.neighbours.clamp_min(0)]
            real = (done.neighbours >= 0) & (own >= 0) & (theirs >= 0)
            same = theirs == own
            values["neighbour_label_share"] = (same & real).sum() / real.sum().clamp_min(1)
        return values

    def each_epoch(self, done: Step) -> dict[str, Tensor]:
        """What costs too much for every step: effective rank and distance of the teacher."""
        values = {"effective_rank": effective_rank(watched(done))}
        if isinstance(getattr(self.method, "teacher", None), Teacher):
            values["teacher_distance"] = teacher_distance(self.method.teacher, self.method.online())
        return values

    def judge(self, epoch: int, width: int, values: dict[str, Any]) -> None:
        """Warn once if the embedding is collapsed after the first epochs of a run.

        Args:
            epoch: Just finished, from 0.
            width: Of the embedding, D.
            values: The epoch's last record.
        """
        if self.warned or epoch + 1 < self.grace:
            return
        if values["embedding_std"] < COLLAPSED / width**0.5:
            self.warned = True
            log.warning(
                "epoch %d: the embedding has collapsed: spread %.2g where 1/sqrt(D) is %.2g, "
                "effective rank %.1f; the run goes on",
                epoch + 1,
                values["embedding_std"],
                width**-0.5,
                values["effective_rank"],
            )
