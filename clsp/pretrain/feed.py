"""Batches of a run: which anchors, which positives, and their views."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clsp.config.labels import spec_uses_labels
from clsp.config.recipe import ViewSpec
from clsp.data.stores import Request
from clsp.data.views import draw, recolour
from clsp.models.encoder import normalise
from clsp.pretrain.anchors import epoch_order
from clsp.pretrain.contract import Batch, Positive
from clsp.pretrain.setup import Setup


@dataclass(frozen=True)
class Passage:
    """Views that pass one pipeline together, stacked view by view.

    Attributes:
        numbers: Of the views: 0 and 1 show the anchors, 2 the positives.
        spec: The pipeline.
    """

    numbers: tuple[int, ...]
    spec: ViewSpec


def _passages(setup: Setup, positive: bool) -> list[Passage]:
    """Positives pass the pipeline of view 1; view 2 is on its own where its pipeline differs."""
    recipe, third = setup.spec.recipe, (2,) if positive else ()
    if recipe.second_view is None:
        return [Passage((0, 1, *third), recipe.views)]
    return [Passage((0, *third), recipe.views), Passage((1,), recipe.second_view)]


def _request(
    setup: Setup, passage: Passage, index: Tensor, epoch: int, positive: Positive | None
) -> Request:
    """What a passage shows; each view is keyed by its anchor's number, whatever it shows."""
    rows, others = [index for number in passage.numbers if number < 2], None
    if 2 in passage.numbers and positive is not None:
        if positive.rows is not None:
            rows.append(positive.rows)
        others = positive.images
    views = torch.tensor(passage.numbers, device=index.device).repeat_interleave(len(index))
    u = draw(index.repeat(len(passage.numbers)), epoch, views, setup.view_key)
    return Request(torch.cat(rows), others, u, passage.spec)


def begin_batch(setup: Setup, index: Tensor, epoch: int) -> Callable[[], Batch]:
    """Begin views 1 and 2 of the anchors and the positive.

    Args:
        setup: Gives images, source and pipeline.
        index: Numbers of the anchors, int64 (B,), on the device.
        epoch: From 0.

    Returns:
        What waits for the batch: normalised views and positive, (B, 3, size, size) each; labels
        only for a method that uses them.
    """
    positive = setup.source.batch(index, epoch)
    passages = _passages(setup, positive is not None)
    requests = [_request(setup, passage, index, epoch, positive) for passage in passages]
    crops = setup.anchors.store.begin(requests)

    def finish() -> Batch:
        views: dict[int, Tensor] = {}
        for passage, request, pixels in zip(passages, requests, crops(), strict=True):
            shown = recolour(pixels, request.u, passage.spec)
            views |= zip(passage.numbers, shown.chunk(len(passage.numbers)), strict=True)
        normal = {number: normalise(view, setup.statistics) for number, view in views.items()}
        labels = setup.anchors.labels[index] if spec_uses_labels(setup.spec)["method"] else None
        return Batch([normal[0], normal[1]], normal.get(2), index, labels)

    return finish


def load_batch(setup: Setup, index: Tensor, epoch: int) -> Batch:
    """A batch at once; arguments and result as of `begin_batch`."""
    return begin_batch(setup, index, epoch)()


class Feed:
    """The batches of a run in the order of its steps.

    Where crops are made in the background, those of the next step are begun before this one's are
    handed over. Every number is keyed, so the batches are the same in any case.
    """

    def __init__(self, setup: Setup) -> None:
        """Start with nothing begun."""
        self._setup = setup
        self._order: tuple[int, Tensor] | None = None  # of an epoch
        self._begun: dict[int, Callable[[], Batch]] = {}

    def _begin(self, step: int) -> Callable[[], Batch]:
        setup = self._setup
        epoch, number = divmod(step, setup.per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(len(setup.anchors), setup.spec.seed, epoch)
            self._order = epoch, torch.from_numpy(order).to(setup.anchors.device)
        size = setup.spec.recipe.batch_size
        return begin_batch(setup, self._order[1][number * size : (number + 1) * size], epoch)

    def batch(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            DataError: Naming the image that cannot be decoded.
        """
        coming = self._begun.pop(step, None) or self._begin(step)
        self._begun.clear()
        if self._setup.anchors.store.ahead and step + 1 < self._setup.steps:
            self._begun[step + 1] = self._begin(step + 1)
        return coming()
