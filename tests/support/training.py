"""Runs the stage train-denoiser on a tiny dataset, as clsp.job would."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch

from clsp.config.denoisers import DenoiserSpec
from clsp.diffusion import loop, train
from clsp.diffusion.train import Job, train_denoiser, work
from clsp.runtime import stopping
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Outcome
from clsp.runtime.team import Team

WEIGHTS = "diffusion_pytorch_model.safetensors"
OUTPUTS = {
    "model_index": "model_index.json",
    "unet": "unet",
    "raw": "raw",
    "scheduler": "scheduler",
    "history": "history.jsonl",
    "snapshots": "snapshots",
}


def run(
    spec: DenoiserSpec, dataset: Artefact, folder: Path, scratch: Path | None = None
) -> Outcome:
    """Train into a folder; what an interrupted attempt left of its outputs is swept first."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "history.jsonl").unlink(missing_ok=True)
    outputs = {flag: folder / name for flag, name in OUTPUTS.items()}
    return train_denoiser(spec, dataset, **outputs, scratch=scratch or folder / "scratch")


def written(folder: Path) -> dict[str, bytes]:
    """Content of every file that a job leaves: weights, step log, grids, curve."""
    names = ("unet", "raw", "snapshots")
    inside = [p for name in names for p in sorted((folder / name).iterdir())]
    return {str(p.relative_to(folder)): p.read_bytes() for p in [*inside, folder / "history.jsonl"]}


def child(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess:
    """Run Python code in a process of its own that computes as this one does."""
    here = Path(__file__).parent
    given = {
        **os.environ,
        "PYTHONPATH": f"{here.parents[1]}{os.pathsep}{here}",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        **environment,
    }
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=given, capture_output=True, text=True)


def _before_step(step: int, act: Callable[[], None]) -> None:
    advance = loop.Loop.advance

    def acting(self: loop.Loop) -> dict[str, float] | None:
        if self.training.step == step:
            act()
        return advance(self)

    loop.Loop.advance = acting


def dying_work(job: Job, team: Team) -> Outcome | None:
    """Train and save every step, but process 1 is killed behind the last. It is pickled by name."""

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    loop.SAVE_EVERY = 0
    if team.rank == 1:
        train._digests = die
    return work(job, team)


def stopped_work(job: Job, team: Team) -> Outcome | None:
    """Train, but before process 0 takes step 3 all are told to end, and the job passes that on.

    So process 0 is told twice, as by Ctrl-C in a terminal or by a batch system.
    """
    noted: list[int] = []
    note = stopping.Stop.note

    def noting(self: stopping.Stop, number: int, frame: FrameType | None) -> None:
        note(self, number, frame)
        noted.append(number)

    def end() -> None:
        for process in (os.getpid(), team.parent):
            os.kill(process, signal.SIGTERM)
        while len(noted) < 2:  # until the job has passed the signal on
            time.sleep(0.01)

    stopping.Stop.note = noting
    if team.leads:
        _before_step(3, end)
    return work(job, team)
