"""What limits a training step: its operations and bytes beside what the device can do at most.

    python benchmarks/roofline.py [--modes exact bf16] [--rounds 5] [--name roofline]

First the device's ceilings: products of large matrices in full precision and in bf16, and copies of
a large array. Then one CLSP-SimCLR step of three views (benchmarks/workload.py), stage by stage:

    seconds  measured, medians; `share` is the part of the whole step
    GFLOP    of convolutions and matrix products, as torch's FlopCounterMode counts them
    GB       that operations read and write, each by itself, nothing fused
    bound    the time that both would take at the ceilings, the larger of the two, ms
    reached  bound / seconds: near 100% only fewer operations or fewer bytes help. Above 100%
             operations were fused or found their bytes in a cache

Operations and bytes are counted on eager operations, also for compiled modes. Last, both are
counted for the authors' step (ResNet-18, batch 1024) without running it, in full precision and in
bf16, and set beside a published peak: an estimate of what a GPU could do at most, not a
measurement. Writes benchmarks/results/NAME.json and NAME.md; two minutes on two CPU cores.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from recording import Timing, compare, record, surroundings, wait
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from workload import MODES, SCALES, SIZE, Scale, Suite, drawn_images, prepared, run_spec, suites

from clsp.pretrain.contract import Batch
from clsp.pretrain.loop import forward, objective
from clsp.pretrain.memory import fake_copy
from clsp.pretrain.optim import set_learning_rates
from clsp.pretrain.setup import build_method
from clsp.runtime.device import resolve

STAGES = ("views", "forward", "backward", "optimizer")
VIEWS = 3
# Published, dense, of an H100 SXM: NVIDIA H100 Tensor Core GPU datasheet.
H100 = {"bf16": 989e12, "full": 67e12, "bytes": 3.35e12}
TARGET = 42_000  # views per second: the authors' run of 1000 epochs within an hour


class Traffic(TorchDispatchMode):
    """Bytes that operations read and write; views of a tensor move none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        shown = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        read = {t.untyped_storage()._cdata for t in shown}
        results = [t for t in tree_leaves(made) if isinstance(t, Tensor)]
        changed = func._schema.is_mutable
        if changed or any(t.untyped_storage()._cdata not in read for t in results):
            self.bytes += sum(t.numel() * t.element_size() for t in [*shown, *results])
        return made


@dataclass(frozen=True)
class Cost:
    """What one stage needs."""

    flops: int
    bytes: int

    def bound(self, flops: float, moved: float) -> float:
        """Seconds at the given ceilings."""
        return max(self.flops / flops, self.bytes / moved)


def rate(work: Callable[[], object], amount: float, device: torch.device) -> float:
    """Amount per second of a piece of work, median of several."""
    seconds = []
    for number in range(8):
        wait(device)
        started = time.perf_counter()
        work()
        wait(device)
        if number:
            seconds.append(time.perf_counter() - started)
    return amount / median(seconds)


def ceilings(device: torch.device) -> dict[str, float]:
    """FLOP/s of matrix products in both precisions, and bytes/s of a copy (read and written)."""
    side, cells = (8192, 2**28) if device.type == "cuda" else (2048, 2**25)
    found = {}
    for name, kind in (("full", torch.float32), ("bf16", torch.bfloat16)):
        a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
        found[name] = rate(lambda a=a, b=b: a @ b, 2 * side**3, device)
    source, target = (torch.zeros(cells, device=device) for _ in range(2))
    found["bytes"] = rate(lambda: target.copy_(source), 8 * cells, device)
    return found


def take(suite: Suite, between: Callable[[str], None]) -> None:
    """One step as the loop takes it; `between` is called at the end of each stage."""
    setup, position = suite.setup, suite.course.position
    batch = suite.feed.batch(position.step)
    between("views")
    set_learning_rates(setup.optimizer, setup.spec.recipe, position.step, setup.per_epoch)
    done, parts = forward(setup, batch)
    between("forward")
    setup.optimizer.zero_grad(set_to_none=True)
    parts["loss"].backward()
    between("backward")
    setup.optimizer.step()
    suite.course.watch.each_step(done, batch.index)
    between("optimizer")
    position.step += 1


def count(suite: Suite) -> dict[str, Cost]:
    """Operations and bytes of every stage of a real step."""
    found: dict[str, Cost] = {}
    with FlopCounterMode(display=False) as flops, Traffic() as traffic:

        def between(stage: str) -> None:
            before = (sum(c.flops for c in found.values()), sum(c.bytes for c in found.values()))
            found[stage] = Cost(flops.get_total_flops() - before[0], traffic.bytes - before[1])

        take(suite, between)
    return found


def clock(suite: Suite, rounds: int, device: torch.device) -> dict[str, Timing]:
    """Seconds of every stage, and of the whole; the device is waited for between stages."""
    suite.enter()
    found: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for number in range(rounds + 2):
        last = time.perf_counter()

        def between(stage: str, number: int = number) -> None:
            nonlocal last
            wait(device)
            now = time.perf_counter()
            if number >= 2:
                found[stage].append(now - last)
            last = now

        take(suite, between)
    whole = [sum(parts) for parts in zip(*found.values(), strict=True)]
    return {stage: Timing(seconds) for stage, seconds in {**found, "whole step": whole}.items()}


def rows_of(
    mode: str, timings: dict[str, Timing], costs: dict[str, Cost], top: dict[str, float]
) -> list[dict[str, Any]]:
    """One row per stage, and one for the whole."""
    parts = list(costs.values())
    costs = costs | {"whole step": Cost(sum(c.flops for c in parts), sum(c.bytes for c in parts))}
    precision = MODES[mode]["precision"]
    bounds = {stage: cost.bound(top[precision], top["bytes"]) for stage, cost in costs.items()}
    bounds["whole step"] = sum(bounds[stage] for stage in STAGES)
    rows = compare(timings, "whole step")
    for row in rows:
        stage = row["variant"]
        row |= {
            "variant": f"{mode}: {stage}",
            "ratio": timings[stage].median / timings["whole step"].median,
            "GFLOP": costs[stage].flops / 1e9,
            "GB": costs[stage].bytes / 1e9,
            "bound ms": 1000 * bounds[stage],
            "reached %": 100 * bounds[stage] / timings[stage].median,
        }
    return rows


def advice(mode: str, rows: list[dict[str, Any]], precision: str, top: dict[str, float]) -> str:
    """Which stage is worth the next effort."""
    stages = rows[: len(STAGES)]
    longest = max(stages, key=lambda row: row["value"])
    lost = max(stages, key=lambda row: row["value"] - row["bound ms"] / 1000)
    by = (
        "operations"
        if longest["GFLOP"] / top[precision] > longest["GB"] / top["bytes"]
        else "bytes"
    )
    whole, (slow, idle) = rows[len(STAGES)], (r["variant"].split(": ")[1] for r in (longest, lost))
    return (
        f"Mode {mode}: {slow} takes {longest['ratio']:.0%} of the step and is bounded by its {by}; "
        f"most time above the bound is lost in {idle}; the whole step reaches "
        f"{whole['reached %']:.0f}% of its bound."
    )


def count_unrun(scale: Scale, mode: str) -> Cost:
    """Operations and bytes of forward and backward at a scale that is not run, on fake tensors."""
    spec = run_spec(scale, VIEWS, mode)
    fake = FakeTensorMode()
    twin = fake_copy(build_method(spec, 2).to(memory_format=torch.channels_last).train(), fake)
    half = MODES[mode]["precision"] == "bf16"
    with fake, FlopCounterMode(display=False) as flops, Traffic() as traffic:
        views = [torch.empty(scale.batch, 3, SIZE, SIZE) for _ in range(VIEWS)]
        batch = Batch(views[:2], views[2], torch.zeros(scale.batch, dtype=torch.int64))
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            done = twin.step(batch)
        objective(done, spec.alignment_weight)["loss"].backward()
    return Cost(flops.get_total_flops(), traffic.bytes)


def estimates() -> tuple[list[str], dict[str, Any]]:
    """The authors' step beside the published peak of an H100: sentences and numbers."""
    scale, notes, kept = SCALES["cuda"], [], {}
    for mode in ("exact", "bf16"):
        cost, precision = count_unrun(scale, mode), MODES[mode]["precision"]
        views = VIEWS * scale.batch
        needed = TARGET / views
        kept[mode] = {"flops": cost.flops, "bytes": cost.bytes, "views": views}
        notes.append(
            f"Estimate, not measured: the authors' step of {views} views in {precision} precision "
            f"needs {cost.flops / 1e12:.2f} TFLOP and, unfused, moves {cost.bytes / 1e9:.0f} GB. "
            f"{TARGET} views/s are {needed:.1f} steps/s: {cost.flops * needed / 1e12:.0f} TFLOP/s, "
            f"{cost.flops * needed / H100[precision]:.0%} of an H100's published "
            f"{H100[precision] / 1e12:.0f}, and {cost.bytes * needed / 1e12:.1f} TB/s, "
            f"{cost.bytes * needed / H100['bytes']:.0%} of its {H100['bytes'] / 1e12:.2f}. "
            f"At both peaks a step could not take less than "
            f"{1000 * cost.bound(H100[precision], H100['bytes']):.0f} ms unfused: "
            f"{views / cost.bound(H100[precision], H100['bytes']):,.0f} views/s."
        )
    return notes, kept


def main() -> int:
    """Measure, count, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", nargs="+", choices=MODES, help="exact, and bf16 or fast")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="roofline")
    given = parser.parse_args()
    device = resolve()
    scale, top = SCALES[device.type], ceilings(device)
    modes = given.modes or ["exact", "fast" if device.type == "cuda" else "bf16"]
    data = prepared(drawn_images(4 * scale.batch))
    rows, notes = [], []
    for mode in modes:
        eager = {**MODES[mode], "compile": False}
        plain = next((name for name, switches in MODES.items() if switches == eager), "bf16")
        wanted = {"timed": run_spec(scale, VIEWS, mode), "counted": run_spec(scale, VIEWS, plain)}
        with suites(wanted, data) as (runs, _):
            costs = count(runs["counted"])
            mine = rows_of(mode, clock(runs["timed"], given.rounds, device), costs, top)
        rows += mine
        notes.append(advice(mode, mine, MODES[mode]["precision"], top))
    guessed, kept = estimates()
    about = {
        **surroundings(device),
        "ceilings": f"{top['full'] / 1e9:,.0f} GFLOP/s in full precision, "
        f"{top['bf16'] / 1e9:,.0f} in bf16, {top['bytes'] / 1e9:.1f} GB/s copied",
        "step": f"{VIEWS} x {scale.batch} views of {SIZE} pixels, ResNet-18 of width {scale.width}",
    }
    extra = ("GFLOP", "GB", "bound ms", "reached %")
    print(record(given.name, about, rows, notes + guessed, extra, ceilings=top, estimates=kept))
    return 0


if __name__ == "__main__":
    sys.exit(main())
