"""How much memory one training step takes, foretold without taking it.

The step is rehearsed on fake tensors, which have shapes and types but no contents, and the bytes of
all tensors that are alive are followed. So the forecast knows every method, head and loss as it is.
It leaves out what no tensor shows; that is covered by the margins below.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clsp.config.execution import switches
from clsp.config.labels import spec_uses_labels
from clsp.config.schema import RunSpec
from clsp.config.strict import parse
from clsp.pretrain.contract import Batch, Method, Moment
from clsp.pretrain.loop import objective
from clsp.pretrain.optim import build_optimizer
from clsp.pretrain.setup import build_method
from clsp.runtime.canonical import canonical_json, parse_json

GIB = 2**30
# Copies of a batch of float32 views that making them holds at most, the result among them; the
# hue shift needs most. tests/pretrain/test_memory.py follows the real thing.
VIEW_COPIES = 16
# Workspaces that no tensor shows. On a GPU the CUDA context (about 0.5 GiB), and those of cuDNN and
# cuBLAS. On a CPU packed operands of convolutions: a process grew by up to 0.42 GiB more than its
# tensors (width 16, 1536 views of 32 pixels).
WORKSPACE = {"cuda": GIB, "cpu": GIB // 2}
# Memory is given out in pieces, and pieces of another size than the last ones leave gaps.
GAPS = 0.05


class Alive(TorchDispatchMode):
    """Bytes of all tensors that operations made and that are still alive, now and at most.

    Args:
        besides: Tensors that are not counted when an operation changes them or shows part of them;
            they outlive this.
    """

    def __init__(self, besides: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in besides}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and note what it made."""
        made = func(*args, **(kwargs or {}))
        self.note(made)
        return made

    def note(self, made: Any) -> None:
        """Count tensors, each memory once whatever number of them show it."""
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._known.add(storage._cdata)
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    finalize(storage, self._gone, storage._cdata, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@dataclass(frozen=True)
class Forecast:
    """Bytes that one process needs for a training step.

    Attributes:
        weights: Parameters and buffers of the method: queues and averages too.
        optimizer: Its state.
        step: What is alive at most within a step beyond both: views, activations, gradients.
        views: What making the views takes at most, which happens between steps.
        workspace: What no tensor shows.
    """

    weights: int
    optimizer: int
    step: int
    views: int
    workspace: int

    @property
    def beyond_weights(self) -> int:
        """Still needed once the method has been built."""
        passing = max(self.step, self.views) * (1 + GAPS)
        return self.optimizer + int(passing) + self.workspace

    @property
    def total(self) -> int:
        """All of it; the data come on top."""
        return self.weights + self.beyond_weights


def fake_copy(method: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """A copy of a method whose parameters and buffers are fake."""
    held = [*method.parameters(), *method.buffers()]
    return copy.deepcopy(method, {id(tensor): mode.from_tensor(tensor) for tensor in held})


def _batch(spec: RunSpec, count: int, size: int) -> Batch:
    """An empty batch of the shape that a run has."""
    views = [torch.empty(count, 3, size, size) for _ in range(2 + (spec.positives != "none"))]
    index = torch.zeros(count, dtype=torch.int64)
    labels = torch.zeros_like(index) if spec_uses_labels(spec)["method"] else None
    return Batch(views[:2], views[2] if len(views) > 2 else None, index, labels)


def rehearse(method: Method, spec: RunSpec, count: int, size: int, kind: str = "cuda") -> Forecast:
    """Foretell a step of a method; neither it nor any generator is changed.

    Args:
        method: As `build_method` gives it; its weights are not read.
        spec: Of the run.
        count: Anchors that one process sees in a step, B.
        size: Side of the views, pixels.
        kind: Of the device: "cuda" or "cpu".
    """
    mode = FakeTensorMode()
    twin, recipe = fake_copy(method, mode), spec.recipe
    held = [*twin.parameters(), *twin.buffers()]
    half = switches(spec.execution).precision == "bf16"
    with mode:
        optimizer = build_optimizer(twin, recipe)
        with Alive(held) as state:
            for parameter in twin.parameters():
                parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        kept = [t for t in tree_leaves(list(optimizer.state.values())) if isinstance(t, Tensor)]
        with Alive([*held, *kept]) as alive:
            batch = _batch(spec, count, size)
            shown = sum(v.nbytes for v in [*batch.views, batch.positive] if v is not None)
            if hasattr(twin, "before_step"):
                twin.before_step(Moment(recipe.epochs - 1, recipe.epochs, recipe.epochs - 1))
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                done = twin.step(batch)
            objective(done, spec.alignment_weight)["loss"].backward()
            optimizer.step()
    weights = sum({id(t): t.nbytes for t in held}.values())
    return Forecast(weights, state.now, alive.peak, VIEW_COPIES * shown, WORKSPACE[kind])


@lru_cache(maxsize=1)  # asked for several batches in a row; the weights of many would fill memory
def _built(spec: str, classes: int) -> tuple[RunSpec, Method]:
    found = parse(RunSpec, parse_json(spec), "spec")
    method = build_method(found, classes).to(memory_format=torch.channels_last).train()
    return found, method


@cache
def _forecast(spec: str, classes: int, count: int, size: int, kind: str) -> Forecast:
    found, method = _built(spec, classes)
    return rehearse(method, found, count, size, kind)


def forecast(spec: RunSpec, classes: int, count: int, size: int, kind: str) -> Forecast:
    """`rehearse` with a method of its own; remembered, as runs often differ by their seed alone.

    Args:
        spec: Of the run.
        classes: Of the dataset.
        count: Anchors that one process sees in a step.
        size: Side of the views, pixels.
        kind: Of the device: "cuda" or "cpu".
    """
    labelled = any(spec_uses_labels(spec).values())
    blind = {  # what no shape depends on
        "dataset": "any",
        "normalisation": None,
        "positives": "none" if spec.positives == "none" else "augmentation",
        "positives_options": {},
        "bank": None,
        "pairs": None,
        "recipe": spec.recipe.model_copy(update={"normalisation": None}),
        "seed": 0,
    }
    same = canonical_json(spec.model_copy(update=blind).canonical())
    return _forecast(same, classes if labelled else 1, count, size, kind)
