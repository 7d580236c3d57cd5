"""How much memory one training step takes, foretold without taking it.

The step is rehearsed on fake tensors, which have shapes and types but no contents, and the bytes of
all tensors that are alive are followed. So the forecast knows every method, head and loss as it is.
It leaves out what no tensor shows; that is covered by the margins below. A batch that does not fit
is refused before training, with the largest that would.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from clsp.config.execution import switches
from clsp.config.labels import spec_uses_labels
from clsp.config.schema import METHODS, RunSpec
from clsp.config.strict import parse
from clsp.pretrain.contract import Batch, Method, Moment
from clsp.pretrain.loop import objective
from clsp.pretrain.optim import build_optimizer
from clsp.pretrain.setup import Setup, build_method
from clsp.runtime.canonical import canonical_json, parse_json
from clsp.runtime.errors import ClspError, ConfigError
from clsp.runtime.registry import load

GIB = 2**30
# Copies of a batch of float32 views that making them holds at most, the result among them; the
# hue shift needs most. tests/pretrain/test_memory.py follows the real thing.
VIEW_COPIES = 16
# Workspaces that no tensor shows: on a GPU the CUDA context (about 0.5 GiB), and those of cuDNN and
# cuBLAS; on a CPU the packed operands of products and convolutions.
WORKSPACE = {"cuda": GIB, "cpu": GIB // 4}
# Memory is given out in pieces, and pieces of another size than the last ones leave gaps.
GAPS = 0.05
ATTEMPTS = 24  # rehearsals in search of the largest batch; a straight line needs four
# Pixels of a batch's views times the encoder's width. Below this, heads of usual width included, a
# step takes less than a GiB, which every machine has; on a CPU it is not rehearsed then, to save a
# short run a fraction of a second.
SMALL = 2**20


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


@cache
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


def free_bytes(device: torch.device) -> int | None:
    """Memory that this process can still take; None where nobody tells."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    known = dict(line.split(":", 1) for line in lines)
    return int(known["MemAvailable"].split()[0]) * 1024


def largest(need: Callable[[int], int], room: int, top: int) -> int:
    """The largest number of anchors whose step fits.

    Args:
        need: Bytes of a step, growing with its anchors and nearly on a straight line.
        room: Bytes that there are.
        top: A number that does not fit.

    Returns:
        Below `top`, from 2; 0 if not even 2 fit.
    """
    low, high, ahead = 2, top, 0
    if need(low) > room:
        return 0
    for _ in range(ATTEMPTS):
        if high - low <= 1:
            break
        slope = (need(high) - need(low)) / (high - low)
        on_line = low + int((room - need(low)) / slope) if slope > 0 else low
        guess = min(max(on_line + ahead, low + 1), high - 1)
        if need(guess) <= room:
            low, ahead = guess, max(1, 2 * ahead)  # the line is too steep: look ahead of it
        else:
            high, ahead = guess, 0
    return low


def _usable(spec: RunSpec, most: int, processes: int) -> int:
    """The largest batch up to `most` that processes can share and the method takes; 0 if none."""
    config = parse(load(METHODS, spec.method, "method").Config, spec.method_options, "options")
    for batch in range(most - most % processes, 1, -processes):
        try:
            config.check_batch(batch)
        except ValueError:
            continue
        return batch
    return 0


def _advice(setup: Setup, need: Callable[[int], int], room: int) -> str:
    """What to do about a batch that does not fit."""
    batch, processes = setup.spec.recipe.batch_size, setup.team.size
    most = largest(need, room, batch // processes) * processes
    fitting = _usable(setup.spec, min(most, batch - 1), processes)
    among = f" with {processes} processes" if processes > 1 else ""
    if fitting:
        return f"the largest recipe.batch_size that would fit{among} is {fitting}"
    return f"no batch that this method takes would fit{among}"


def _gib(count: int) -> str:
    return f"{count / GIB:.2f} GiB"


@contextmanager
def fitting(setup: Setup) -> Iterator[Forecast | None]:
    """Refuse a batch that does not fit, and explain it if one runs out of memory all the same.

    Gives the forecast, or None for a step on a CPU that is evidently small.

    Raises:
        ConfigError: Before anything is done, with what a step needs, what there is, and the largest
            batch that would fit.
        ClspError: If the device runs out of memory inside.
    """
    device, spec, processes = setup.anchors.device, setup.spec, setup.team.size
    batch, size = spec.recipe.batch_size, setup.anchors.dataset.card["size"]
    if device.type == "cpu" and 3 * batch * size**2 * spec.encoder.width < SMALL:
        yield None
        return
    classes = len(setup.anchors.dataset.classes)

    def found(count: int) -> Forecast:
        return forecast(spec, classes, count, size, device.type)

    def need(count: int) -> int:
        return found(count).beyond_weights

    expected, room = found(batch // processes), free_bytes(device)
    if room is not None and expected.beyond_weights > room:
        raise ConfigError(
            f"recipe.batch_size {batch}: a training step needs {_gib(expected.beyond_weights)} "
            f"beside the method and its data, but {device} has {_gib(room)} left; "
            + _advice(setup, need, room)
        )
    try:
        yield expected
    except torch.OutOfMemoryError as error:
        # What the forecast missed here is taken to be missed at every size, in proportion.
        fixed, there = expected.optimizer + expected.workspace, room or 0
        passing = expected.beyond_weights - fixed
        factor = max(1.0, (there - fixed) / passing) * (1 + GAPS)
        smaller = _advice(setup, lambda n: fixed + int((need(n) - fixed) * factor), there)
        raise ClspError(
            f"{device} ran out of memory, though a step with recipe.batch_size {batch} was "
            f"expected to need {_gib(expected.beyond_weights)} of {_gib(there)}; others may use "
            f"the device; {smaller}"
        ) from error


def memory_facts(expected: Forecast | None, device: torch.device) -> dict[str, int]:
    """What a manifest says of memory, in bytes; nothing where nothing was foretold.

    `predicted` is for method, optimizer and step of one process; `measured` the most that tensors
    took on a GPU, data and bank among them.
    """
    if expected is None:
        return {}
    found = {"predicted": expected.total}
    if device.type == "cuda":
        found["measured"] = torch.cuda.max_memory_allocated(device)
    return found
