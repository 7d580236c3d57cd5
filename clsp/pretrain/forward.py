"""Which images share a forward pass, and so their batch-norm statistics (methods.md 2.1).

joint      one pass over the concatenation of all images: one GPU running the authors' SimCLR.
separate   one pass per view: one GPU running the authors' MoCo. Running statistics see each view
           in turn; in MoCo the positive last, as in the authors' code, in other methods not at all.
four_gpu   the authors' DataParallel on 4 GPUs: rows are split in order into 4 chunks, each with
           its own batch statistics, and only the first chunk's reach the running statistics,
           which evaluation uses. In CLSP-SimCLR these are real view-1 images alone.

Which one is part of a run's spec (D05). Processes that share a batch exchange images for four_gpu:
each of P runs 4 / P of the chunks. In the other two every image stays where it is, and the recipe's
`batch_norm` says whose statistics are used (clsp/pretrain/batch_norm.py).
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from clsp.pretrain.contract import Batch
from clsp.pretrain.gather import moved
from clsp.runtime.team import ALONE, Team

GPUS = 4  # the authors' README


@contextlib.contextmanager
def frozen_running_statistics(network: nn.Module) -> Iterator[None]:
    """Batch statistics are used but leave no trace in the running statistics."""
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True


def forward_as_four_gpus(
    network: nn.Module, images: Tensor, team: Team = ALONE, views: int = 1
) -> Tensor:
    """Forward as DataParallel on four devices does; same rows out as in.

    Args:
        network: Its running statistics move in process 0 alone, which has the first chunk.
        images: This process's rows of each view, one view after the other, (V B / P, 3, H, W).
        team: Of P = 1, 2 or 4 processes; then B is a multiple of 4.
        views: V.
    """
    order = None
    if team.size > 1:
        # Of the whole batch, view by view; on the device, which a copy would wait for.
        rows = torch.arange(len(images) * team.size, device=images.device)
        order = rows.view(views, team.size, -1).transpose(0, 1).flatten()  # as processes hold them
        images = moved(team, images, order.argsort())
    parts = []
    for number, chunk in enumerate(images.chunk(GPUS // team.size)):
        moving = team.leads and number == 0
        with contextlib.nullcontext() if moving else frozen_running_statistics(network):
            parts.append(network(chunk))
    embeddings = torch.cat(parts)
    return embeddings if order is None else moved(team, embeddings, order)


def forward_views(
    network: nn.Module, views: list[Tensor], forward: str, team: Team = ALONE
) -> list[Tensor]:
    """Embed several views in one call of the method.

    Args:
        network: Maps (B, 3, H, W) to (B, D), or embeddings to predictions.
        views: Normalised images, (B, 3, H, W) each, or what the network takes.
        forward: "joint", "separate" or "four_gpu"; see the module's text.
        team: Of the processes that share a batch, for "four_gpu"; B is then this one's part.

    Returns:
        One (B, D) per view.
    """
    if forward == "separate":
        return [network(view) for view in views]
    images = torch.cat(views)
    if forward == "joint":
        embeddings = network(images)
    else:
        embeddings = forward_as_four_gpus(network, images, team, len(views))
    return list(embeddings.chunk(len(views)))


def forward_positive(network: nn.Module, positive: Tensor | None) -> Tensor | None:
    """Embed the positive by itself; the running statistics stay those of real views (D22).

    Evaluation uses them, and its images are real (methods.md 7, 6). In CLSP-SimCLR on four GPUs
    they come from real images alone too.
    """
    if positive is None:
        return None
    with frozen_running_statistics(network):
        return network(positive)


def forward_batch(
    network: nn.Module, batch: Batch, forward: str
) -> tuple[list[Tensor], Tensor | None]:
    """Embed the two views and, last, the positive.

    Args:
        network: Maps (B, 3, H, W) to (B, D).
        batch: Views and perhaps a positive.
        forward: As in `forward_views`; with "separate" the positive leaves no trace in the
            running statistics.

    Returns:
        The views' embeddings, (B, D) each, and the positive's or None.
    """
    if forward == "separate":
        views = forward_views(network, batch.views, forward)
        return views, forward_positive(network, batch.positive)
    shown = batch.views if batch.positive is None else [*batch.views, batch.positive]
    first, second, *rest = forward_views(network, shown, forward, batch.team)
    return [first, second], rest[0] if rest else None
