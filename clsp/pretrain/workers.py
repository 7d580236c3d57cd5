"""Batches by torchvision's own classes in worker processes: `execution.views: torchvision`."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clsp.data.torchvision_views import Sample, TorchvisionViews, stack
from clsp.pretrain.setup import Setup
from clsp.runtime.errors import ClspError

AHEAD = 2  # batches that each worker has under way: torch's default


class _Samples:
    """What each step shows, from some step on; a sampler of batches for DataLoader."""

    def __init__(self, setup: Setup, index: Callable[[int], tuple[Tensor, int]], first: int):
        self.setup, self.index, self.first = setup, index, first

    def __iter__(self) -> Iterator[list[Sample]]:
        for step in range(self.first, self.setup.steps):
            whole, epoch = self.index(step)
            part = self.setup.team.part(whole)
            positive = self.setup.source.batch(part, epoch)
            rows, pictures = [None] * len(part), [None] * len(part)
            if positive is not None and positive.rows is not None:
                rows = positive.rows.tolist()
            elif positive is not None:
                pictures = list(positive.images.cpu().numpy())
            found = zip(part.tolist(), rows, pictures, strict=True)
            yield [Sample(number, epoch, row, picture) for number, row, picture in found]


class Workers:
    """The views of a run, made by worker processes some steps ahead.

    Every view is keyed, so their number, the batch size and where a run resumes change nothing.
    """

    def __init__(
        self, setup: Setup, index: Callable[[int], tuple[Tensor, int]], processes: int
    ) -> None:
        """Start nothing yet.

        Args:
            setup: Gives images, source and pipelines.
            index: Gives the numbers of a step's anchors, int64 (B,) on the CPU, and its epoch.
            processes: How many; 0 makes the views in this one.
        """
        self._setup, self._index, self._processes = setup, index, processes
        self._coming: Iterator[Any] | None = None
        self._next = 0

    def _start(self, first: int) -> Iterator[Any]:
        setup, several = self._setup, self._processes > 0
        recipe, dataset = setup.spec.recipe, setup.anchors.dataset
        views = TorchvisionViews(
            dataset.split("train").images,
            recipe.views,
            recipe.second_view or recipe.views,
            dataset.images.shape[1],
            setup.spec.seed,
        )
        loader = DataLoader(
            views,
            batch_sampler=_Samples(setup, self._index, first),
            collate_fn=stack,
            num_workers=self._processes,
            prefetch_factor=AHEAD if several else None,
            # What is mapped into memory stays mapped; nothing is pickled.
            multiprocessing_context="fork" if several else None,
            pin_memory=setup.anchors.device.type == "cuda",
            generator=torch.Generator(),  # else torch would draw from its global stream
        )
        return iter(loader)

    def views(self, step: int) -> dict[int, Tensor]:
        """The views of a step by their numbers, (B / P, 3, size, size) in [0, 1], on the device.

        It is fastest to ask for one step after the other.

        Raises:
            DataError: Naming the image that cannot be decoded.
        """
        if self._coming is None or self._next != step:
            self._coming = self._start(step)
        views = next(self._coming)
        if isinstance(views, ClspError):
            raise views
        self._next = step + 1
        if self._next == self._setup.steps:
            self._coming = None  # ends the processes
        device = self._setup.anchors.device
        return {number: view.to(device, non_blocking=True) for number, view in enumerate(views)}
