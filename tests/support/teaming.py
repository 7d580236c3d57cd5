"""The same steps of every method by one process and by several, in float64; run as a program.

One program imports everything once and forks teams of one, two and four processes, which talk over
gloo. Each leaves what it computed in the folder that is named on the command line.
"""

import dataclasses
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import get_args

import torch
import torch.distributed as dist
from pretraining import NOTHING, make_prepared, make_spec, write_dataset
from torch import Tensor
from torchvision.models.resnet import BasicBlock

from clsp.config.execution import EXACT
from clsp.config.schema import METHODS
from clsp.models import encoder
from clsp.pretrain import forward as passes
from clsp.pretrain import loop, resume, run
from clsp.pretrain.contract import Batch
from clsp.pretrain.feed import load_batch
from clsp.pretrain.loop import train_step
from clsp.pretrain.optim import set_learning_rates
from clsp.pretrain.run import Job, work
from clsp.pretrain.setup import Setup, set_up
from clsp.runtime.manifest import Artefact, read_manifest
from clsp.runtime.registry import names, settings_class
from clsp.runtime.stage import Outcome
from clsp.runtime.team import ALONE, Team

STEPS = (1, 3)  # after so many everything is compared; the third uses what the first two left
PATIENCE = timedelta(seconds=120)
SPEC = make_spec("all4one", "augmentation", options={"dropout": 0.3})  # each process draws its own
OUTPUTS = {
    "encoder": "encoder.safetensors",
    "start": "start.safetensors",
    "middle": "middle.safetensors",
    "final": "final.safetensors",
    "history": "history.jsonl",
}


@dataclasses.dataclass(frozen=True)
class Case:
    """A run that teams share.

    Attributes:
        method: By its name.
        positives: Its source.
        forward: The method's option of that name.
        steps: How many are taken.
        batch_norm: The recipe's.
        mixing: BSIM's option.
    """

    method: str
    positives: str
    forward: str
    steps: int = max(STEPS)
    batch_norm: str | None = None
    mixing: str | None = None

    def __str__(self) -> str:
        parts = (self.method, self.positives, self.forward, self.batch_norm, self.mixing)
        return "-".join(part for part in parts if part)


def forwards(method: str) -> tuple[str, ...]:
    """Values of the method's option `forward`."""
    return get_args(settings_class(METHODS, method).model_fields["forward"].annotation)


FOUR_GPU = [Case(method, "augmentation", "four_gpu") for method in ("simclr", "moco")]
PER_DEVICE = Case("simclr", "augmentation", "joint", batch_norm="per_device")
CASES = [
    *(Case(method, "augmentation", forwards(method)[0]) for method in names(METHODS)),
    *(Case(method, "none", forwards(method)[-1], 1) for method in names(METHODS)),
    Case("simclr", "augmentation", "separate", 1),  # the positive leaves no trace
    Case("bsim", "augmentation", "joint", 1, mixing="mixup"),
    *FOUR_GPU,
    PER_DEVICE,
]
TEAMS = {1: CASES, 2: CASES, 4: FOUR_GPU}


def shorten() -> None:
    """Make encoders of 12 batch norms rather than 20, since messages take most of the time."""
    encoder.LAYOUTS["resnet18"] = (BasicBlock, (1, 1, 1, 1))


def ready(case: Case, team: Team) -> Setup:
    """The set-up of a small run in which nothing is drawn per process."""
    options = {"forward": case.forward}
    if case.mixing is not None:
        options["mixing"] = case.mixing
    if "dropout" in settings_class(METHODS, case.method).model_fields:
        options["dropout"] = 0.0
    recipe = {"learning_rate": 0.02, "batch_norm": case.batch_norm}
    spec = make_spec(case.method, case.positives, recipe, options)
    with in_float64():
        return set_up(spec, make_prepared(), NOTHING, torch.device("cpu"), team)


@contextmanager
def in_float64() -> Iterator[None]:
    """New tensors of no stated type are float64."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def wide(views: list[Tensor | None]) -> list[Tensor | None]:
    """Views as float64."""
    return [None if view is None else view.double() for view in views]


def take_steps(setup: Setup, steps: int) -> dict[str, Tensor]:
    """Loss and its parts of each step; all gradients and the whole state after those of STEPS."""
    found: dict[str, Tensor] = {}
    for step in range(steps):
        set_learning_rates(setup.optimizer, setup.spec.recipe, step, setup.per_epoch)
        batch = load_batch(setup, torch.arange(8) + step, setup.moment(step).epoch)
        *views, positive = wide([*batch.views, batch.positive])
        batch = dataclasses.replace(batch, views=views, positive=positive)
        with in_float64():
            taken = train_step(setup, batch, step)
        found |= {f"{step} {name}": value.detach() for name, value in taken.scalars.items()}
        shown = {"z_anchor": taken.done.z_anchor, "neighbours": taken.done.neighbours}
        found |= {f"{step} {name}": t.detach() for name, t in shown.items() if t is not None}
        if step + 1 in STEPS:
            named = setup.method.named_parameters()
            found |= {f"{step} grad {n}": p.grad.clone() for n, p in named if p.grad is not None}
            state = setup.method.state_dict().items()
            found |= {f"{step} state {name}": tensor.clone() for name, tensor in state}
    return found


def first_gradients(team: Team, precision: str) -> Tensor:
    """All gradients of a first step of SimCLR, in the precision of a run."""
    execution = EXACT.model_copy(update={"precision": precision})
    spec = make_spec("simclr", options={"forward": "joint"}, execution=execution)
    setup = set_up(spec, make_prepared(), NOTHING, torch.device("cpu"), team)
    train_step(setup, load_batch(setup, torch.arange(8), 0), 0)
    return torch.cat([p.grad.flatten() for p in setup.method.parameters() if p.grad is not None])


def split_views(network, views, forward, team=ALONE):
    """What two processes with statistics of their own do, in one process; for PER_DEVICE."""
    del forward, team
    parts = []
    for number in range(2):
        shown = torch.cat([view.chunk(2)[number] for view in views])
        with passes.frozen_running_statistics(torch.nn.Sequential() if number == 0 else network):
            parts.append(network(shown).chunk(len(views)))
    return [torch.cat(rows) for rows in zip(*parts, strict=True)]


def job_of(dataset: Artefact, folder: Path, scratch: Path) -> Job:
    """The stage's job, with outputs below a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = {name: folder / file for name, file in OUTPUTS.items()}
    return Job(SPEC, dataset, NOTHING, outputs, scratch)


def stop_before(step: int, team: Team) -> None:
    """Let process 0 be told to end when it is about to take a step."""
    take = loop.train_step

    def told(setup: Setup, batch: Batch, number: int) -> loop.Taken:
        if number == step and team.leads:
            os.kill(os.getpid(), signal.SIGTERM)
        return take(setup, batch, number)

    loop.train_step = told


def run_stage(team: Team, folder: Path) -> None:
    """The whole stage at one go, and stopped in its fourth step and continued."""
    dataset = read_manifest(folder / "toy/manifest.json")
    outcome = work(job_of(dataset, folder / "straight", folder / "scratch-a"), team)
    if team.leads:
        torch.save(dataclasses.asdict(outcome), folder / "outcome.pt")
    job, take = job_of(dataset, folder / "stopped", folder / "scratch-b"), loop.train_step
    stop_before(3, team)
    try:
        work(job, team)
    except SystemExit as ended:
        (folder / f"ended-{team.rank}").write_text(str(ended.code))
    loop.train_step = take
    dist.barrier()  # a new job begins when all of the old one have ended, and the state is whole
    if team.leads:
        there = sorted(path.name for path in (folder / "stopped").iterdir())
        (folder / "left").write_text(" ".join(there))
    work(job, team)


def dying_work(job: Job, team: Team) -> Outcome | None:
    """Train and save every step, but process 1 is killed behind the last. It is pickled by name.

    It waits until process 0 has come there too, so that the last state is on the disk.
    """
    agree, there = run._agreed, job.scratch / "there"

    def die_behind(state: dict[str, Tensor], step: int, team: Team) -> str:
        if step and team.leads:
            there.touch()
        elif step:
            while not there.exists():
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGKILL)
        return agree(state, step, team)

    resume.SAVE_EVERY = 0.0
    shorten()
    run._agreed = die_behind
    return work(job, team)


def member(team: Team, folder: Path) -> None:
    """Body of one process."""
    torch.set_num_threads(1)
    shorten()
    if team.size > 1:
        store = f"file://{folder}/store-{team.size}"
        dist.init_process_group(
            "gloo", store, timeout=PATIENCE, rank=team.rank, world_size=team.size
        )
    found = {}
    views_together = passes.forward_views
    for case in TEAMS[team.size]:
        if case == PER_DEVICE and team.size == 1:
            passes.forward_views = split_views
        found[str(case)] = take_steps(ready(case, team), case.steps)
        passes.forward_views = views_together
    if team.size < 4:
        found["precisions"] = {p: first_gradients(team, p) for p in ("full", "bf16")}
    torch.save(found, folder / f"{team.size}-{team.rank}.pt")
    if team.size == 2:
        run_stage(team, folder)
    if team.size > 1:
        dist.destroy_process_group()


def main(folder: Path) -> int:
    """Fork all teams; returns how many of their processes failed."""
    context = multiprocessing.get_context("fork")
    write_dataset(folder / "toy")
    failed = 0
    for size in TEAMS:
        members = [
            context.Process(target=member, args=(Team(rank, size), folder)) for rank in range(size)
        ]
        for process in members:
            process.start()
        for process in members:
            process.join()
        failed += sum(process.exitcode != 0 for process in members)
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
