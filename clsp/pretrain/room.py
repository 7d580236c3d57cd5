"""A batch that does not fit into memory is refused before training, with the largest that would."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from clsp.config.schema import METHODS, RunSpec
from clsp.config.strict import parse
from clsp.pretrain.memory import GAPS, GIB, Forecast, forecast
from clsp.pretrain.setup import Setup
from clsp.runtime.errors import ConfigError, ExhaustedError
from clsp.runtime.registry import load

ATTEMPTS = 24  # rehearsals in search of the largest batch; a straight line needs four
# Pixels of a batch's views times the encoder's width. Below this, heads of usual width included, a
# step takes less than a GiB, which every machine has; on a CPU it is not rehearsed then, to save a
# short run a fraction of a second.
SMALL = 2**20
# Part of a CPU's available memory that a step may be foretold to take: very large batches took more
# than their tensors, 1.2 times at 8192 anchors and over 1.6 times at 16384 (width 64, 8 pixels).
CPU_SHARE = 0.6


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
    return int(CPU_SHARE * int(known["MemAvailable"].split()[0]) * 1024)


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
        ExhaustedError: If the device runs out of memory inside.
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
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)  # another job may have had this process before
    elif room is not None:
        room //= processes  # all of them take from the same memory
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
        raise ExhaustedError(
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
