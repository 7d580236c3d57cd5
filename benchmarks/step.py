"""How long does a training step take, stage by stage, and what does each switch of `fast` change?

    python benchmarks/step.py [--method simclr] [--modes exact bf16 ...] [--rounds 5] [--name step]

Stages: data (order, candidates of the bank, crops that are begun), views, forward (with the loss,
and the update of a moving average), backward (with the gradient's norm), optimizer. Modes are
`exact`, each switch alone, and all of them together (`fast`). CLSP, three views of 32 x 32 pixels:
a ResNet-18 on a GPU, where events of the device tell the times, and one of width 8 on a CPU. Rounds
of all modes take turns, after one that compiles and warms up.

Another --method takes its options from benchmarks/methods_cifar10.yaml. Writes
benchmarks/results/NAME.json and NAME.md: median seconds per step, and how many times as fast as
`exact` each stage is. About 4 minutes on two CPU cores, most of it for compilation.
"""

import argparse
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
import yaml
from recording import Timing, compare, record, surroundings, wait
from workload import EXACT, MODES, SCALES, Scale, Suite, drawn_images, prepared, run_spec, suites

from clsp.config.schema import MethodEntry, RunSpec
from clsp.pretrain import loop
from clsp.pretrain.feed import begin_batch
from clsp.runtime.device import resolve

STAGES = ("data", "views", "forward", "backward", "optimizer")
METHODS = Path(__file__).parent / "methods_cifar10.yaml"
SWITCHES = {
    **MODES,
    "fused": {**EXACT, "fused": True},
}
SHOWN = ("exact", "bf16", "compile", "fused", "fast")
QUEUES = ("queue", "stored")  # options that have to be multiples of the batch size


class Clock:
    """Moments of one step: of the host on a CPU, of the device on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.on_gpu = device.type == "cuda"
        self.marks: list[float | torch.cuda.Event] = []

    def mark(self, *_: object) -> None:
        """Note the end of a stage."""
        if not self.on_gpu:
            self.marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.marks.append(event)

    def read(self) -> list[float]:
        """Seconds between the marks; starts anew."""
        marks, self.marks = self.marks, []
        pairs = list(pairwise(marks))
        if self.on_gpu:
            return [first.elapsed_time(second) / 1000 for first, second in pairs]
        return [second - first for first, second in pairs]


class Stepper:
    """A run whose steps are timed by stage."""

    def __init__(self, suite: Suite) -> None:
        self.suite, self.setup = suite, suite.setup
        self.device = suite.setup.anchors.device
        self.clock, self.number = Clock(self.device), 0
        self.setup.optimizer.register_step_pre_hook(self.clock.mark)

    def steps(self, count: int) -> list[dict[str, float]]:
        """Seconds of each stage in each of some steps."""
        self.suite.enter()
        real, index = loop.forward, torch.arange(self.setup.spec.recipe.batch_size)

        def forward(*given: object) -> object:
            done = real(*given)
            self.clock.mark()
            return done

        loop.forward = forward
        try:
            found = []
            for _ in range(count):
                rows = (index + self.number * len(index)) % len(self.setup.anchors)
                self.clock.mark()
                coming = begin_batch(self.setup, rows.to(self.device), 0)
                self.clock.mark()
                batch = coming()
                self.clock.mark()
                loop.train_step(self.setup, batch, self.number)
                self.clock.mark()
                self.number += 1
                wait(self.device)
                found.append(dict(zip(STAGES, self.clock.read(), strict=True)))
            return found
        finally:
            loop.forward = real


def spec_of(method: str, mode: str, scale: Scale) -> RunSpec:
    """CLSP by a method; queues as long as they are with the recipe's own batch, or one batch."""
    given = run_spec(scale, 3, "exact").model_dump()
    given["execution"] = None if mode == "exact" else SWITCHES[mode]
    if method != "simclr":
        entry = yaml.safe_load(METHODS.read_text(encoding="utf-8"))["methods"][method]
        options = {k: v for k, v in entry.items() if k not in MethodEntry.model_fields}
        for name in QUEUES:
            if name in options:
                options[name] = max(1, options[name] // scale.batch) * scale.batch
        given |= {"method": method, "method_options": options}
    return RunSpec.model_validate(given)


def measure(
    steppers: dict[str, Stepper], rounds: int, steps: int, say: Callable[[str], object]
) -> dict[str, dict[str, Timing]]:
    """Seconds per step of each stage and of all together, a value per round, by stage and mode."""
    found = {stage: {mode: [] for mode in steppers} for stage in ("step", *STAGES)}
    for number in range(rounds + 1):
        for mode, stepper in steppers.items():
            say(f"round {number} of {rounds}: {mode}")
            taken = stepper.steps(steps)
            if number == 0:
                continue  # compiles and warms up
            for stage in STAGES:
                found[stage][mode].append(median(one[stage] for one in taken))
            found["step"][mode].append(median(sum(one.values()) for one in taken))
    return {stage: {m: Timing(s) for m, s in modes.items()} for stage, modes in found.items()}


def main() -> int:
    """Write the table; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="simclr")
    parser.add_argument("--modes", nargs="+", choices=list(SWITCHES), default=list(SHOWN))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2, help="per round and mode")
    parser.add_argument("--batch", type=int, help="default: 1024 on a GPU, 256 on a CPU")
    parser.add_argument("--name", default="step")
    given = parser.parse_args()
    device = resolve()
    usual = SCALES[device.type]
    scale = Scale(usual.width, usual.hidden, usual.projection, given.batch or usual.batch)
    wanted = {mode: spec_of(given.method, mode, scale) for mode in ["exact", *given.modes]}
    data = prepared(drawn_images(2 * scale.batch))
    with suites(wanted, data) as (made, _):
        steppers = {mode: Stepper(suite) for mode, suite in made.items()}
        timings = measure(steppers, given.rounds, given.steps, lambda text: print(text, flush=True))
    rows = [
        {**row, "variant": f"{stage}: {row['variant']}"}
        for stage, modes in timings.items()
        for row in compare(modes, baseline="exact")
    ]
    about = surroundings(device)
    about |= {"method": f"CLSP-{given.method}", "batch": scale.batch, "width": scale.width}
    notes = [
        "Seconds per step; ratio: how many times as fast as the exact mode. In the mode `compile` "
        "encoder, heads, losses and, where the views are made to be, views are compiled."
    ]
    print(record(given.name, about, rows, notes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
