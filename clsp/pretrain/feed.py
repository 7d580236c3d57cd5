"""Batches of a run: which anchors, which positives, and their views."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from clsp.config.labels import spec_uses_labels
from clsp.config.recipe import ViewSpec
from clsp.data.decoders import threads
from clsp.data.stores import Request
from clsp.data.streaming import put
from clsp.data.views import draw, operations
from clsp.models.encoder import normalise
from clsp.pretrain.anchors import epoch_order
from clsp.pretrain.contract import Batch, Positive
from clsp.pretrain.setup import Setup
from clsp.pretrain.workers import Workers


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
        others = positive.coming
    # Filled in on the device: a list would be copied there, and the host would wait.
    views = [torch.full_like(index, number) for number in passage.numbers]
    u = draw(index.repeat(len(passage.numbers)), epoch, torch.cat(views), setup.view_key)
    return Request(torch.cat(rows), others, u, passage.spec)


def _assemble(setup: Setup, views: dict[int, Tensor], whole: Tensor) -> Batch:
    """A batch of views in [0, 1] by their numbers, on the device; `whole` as from `Feed.index`."""
    index = put(whole, setup.anchors.device)
    normal = {number: normalise(view, setup.statistics) for number, view in views.items()}
    labels = setup.anchors.labels[index] if spec_uses_labels(setup.spec)["method"] else None
    return Batch([normal[0], normal[1]], normal.get(2), index, labels, setup.team)


def begin_batch(setup: Setup, index: Tensor, epoch: int) -> Callable[[], Batch]:
    """Begin views 1 and 2 of the anchors and the positive.

    Args:
        setup: Gives images, source and pipeline.
        index: Numbers of the anchors, int64 (B,), on the device; or on the CPU, if that has to
            know which images are shown.
        epoch: From 0.

    Returns:
        What waits for the batch: normalised views and positive of this process's part, (B / P, 3,
        size, size) each; labels only for a method that uses them.
    """
    whole, index = index, setup.team.part(index)
    positive = setup.source.batch(index, epoch)
    passages = _passages(setup, positive is not None)
    requests = [_request(setup, passage, index, epoch, positive) for passage in passages]
    crops = setup.anchors.store.begin(requests)
    recolour = operations(setup.compiler).recolour

    def finish() -> Batch:
        views: dict[int, Tensor] = {}
        for passage, request, pixels in zip(passages, requests, crops(), strict=True):
            shown = recolour(pixels, put(request.u, setup.anchors.device), passage.spec)
            views |= zip(passage.numbers, shown.chunk(len(passage.numbers)), strict=True)
        return _assemble(setup, views, whole)

    return finish


def load_batch(setup: Setup, index: Tensor, epoch: int) -> Batch:
    """A batch at once; arguments and result as of `begin_batch`."""
    return begin_batch(setup, index, epoch)()


class Feed:
    """The batches of a run in the order of its steps.

    Where something is done in the background, that of the next step is begun before this one's
    batch is handed over. Every number is keyed, so the batches are the same in any case.
    """

    def __init__(self, setup: Setup, workers: int | None = None) -> None:
        """Start with nothing begun.

        Args:
            setup: Of the run.
            workers: Processes that make views with torchvision, where the run asks for that; None:
                as many as decode images (clsp/data/decoders.py).
        """
        self._setup = setup
        self._order: tuple[int, Tensor] | None = None  # of an epoch
        self._begun: dict[int, Callable[[], Batch]] = {}
        store, source = setup.anchors.store, setup.source
        self._ahead = store.ahead or getattr(source, "reads_ahead", False)
        self._place = torch.device("cpu") if self._ahead else setup.anchors.device
        self._workers: Workers | None = None
        if setup.execution.views == "torchvision":
            self._workers = Workers(setup, self.index, threads() if workers is None else workers)

    def index(self, step: int) -> tuple[Tensor, int]:
        """Numbers of the anchors of a step, int64 (B,), and its epoch.

        They are on the device, copied once per epoch; or on the CPU, if that has to know them.
        """
        setup = self._setup
        epoch, number = divmod(step, setup.per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = epoch_order(len(setup.anchors), setup.spec.seed, epoch)
            self._order = epoch, put(torch.from_numpy(order), self._place)
        size = setup.spec.recipe.batch_size
        return self._order[1][number * size : (number + 1) * size], epoch

    def _begin(self, step: int) -> Callable[[], Batch]:
        return begin_batch(self._setup, *self.index(step))

    def batch(self, step: int) -> Batch:
        """The batch of a step.

        Raises:
            DataError: Naming the image that cannot be decoded.
        """
        if self._workers is not None:
            return _assemble(self._setup, self._workers.views(step), self.index(step)[0])
        coming = self._begun.pop(step, None) or self._begin(step)
        self._begun.clear()
        if self._ahead and step + 1 < self._setup.steps:
            self._begun[step + 1] = self._begin(step + 1)
        return coming()
