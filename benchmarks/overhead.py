"""What the workflow itself costs: start of a command, parsing, a no-op, and short jobs.

    python benchmarks/overhead.py [--rounds 3] [--jobs 12] [--full] [--name overhead]

Four questions, each answered side by side in one run:

    start    `python -m clsp STAGE --help`, every stage, beside `python -c pass`
    parse    `snakemake -n` of params.yaml and of the paper's grids, nothing done yet
    no-op    `snakemake` after everything is done, beside `snakemake -n` of it
    jobs     short jobs of one run (extract-features of untrained encoders and their evaluation),
             through Snakemake with the shared process and without it

Works in a temporary copy of this tree; the last two run a small configuration once (about 2 minutes
on two cores). --full asks the no-op of the whole demo, which then runs first (many minutes).
Writes benchmarks/results/NAME.json and NAME.md. Exit code 1 if a command that needs no torch takes
a second or more, a grid 10 s or more, or the no-op 15 s or more.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from recording import compare, record, side_by_side, surroundings

from clsp.__main__ import COMMANDS, STAGES
from clsp.config.load import read_yaml

ROOT = Path(__file__).parents[1]
PARTS = ("clsp", "rules", "profiles", "configs", "reports/spec", "Snakefile", "requirements.lock")
GRIDS = ("params.yaml", "configs/cifar.yaml", "configs/comparison_cifar.yaml")
TORCH_FREE = (
    *("fetch-dataset", "prepare-dataset", "check-data", "count-duplicates", "gather-bank"),
    *("collect-results", "render-table", "render-figure", "render-report", "audit", "check"),
)
LIMITS = {"start": 1.0, "parse": 10.0, "no-op": 15.0}  # seconds, of the issue


def small(params: dict[str, Any], jobs: int) -> dict[str, Any]:
    """The demo without training: untrained encoders, one per seed, and what judges them."""
    transfer = params["evaluation"]["transfer"]
    transfer["datasets"] = transfer["datasets"][:1]
    transfer["floors"] = ["random"]
    transfer["logistic"]["count"] = 3
    transfer["few_shot"].update(shots=[1], draws=2)
    params["recipes"]["demo"].update(epochs=1, warmup_epochs=0)
    params["encoders"]["tiny"]["width"] = 4
    params["datasets"]["digits"]["limit"] = 200
    params["evaluation"]["linear"].update(epochs=2, milestones=[1])
    params["evaluation"]["knn"].update(k=5, best_of=[])
    grid = next(iter(params["runs"].values()))
    seeds = list(range(max(1, jobs // 5)))
    one = {"method": ["simclr"], "positives": ["none"], "seed": seeds}
    params["runs"] = {"all": {**grid, "dataset": ["digits"], "encoder": ["tiny"], **one}}
    needed = {"digits", *transfer["datasets"]}
    params["datasets"] = {k: v for k, v in params["datasets"].items() if k in needed}
    params.update(quality=None, tables=["main"], figures=[], profile="overhead", device="cpu")
    return params


class Copy:
    """A copy of the tree, in which commands are timed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ignored = shutil.ignore_patterns("__pycache__")
        for part in PARTS:
            source, target = ROOT / part, folder / part
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target, ignore=ignored)
            else:
                shutil.copy(source, target)
        shutil.copy(ROOT / "params.yaml", folder)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = {**os.environ, "PATH": path, "PYTHONPATH": str(folder)}

    def call(self, *command: str, **changes: str) -> Callable[[], None]:
        """A round: the command, which must succeed."""

        def run() -> None:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env={**self.environment, **changes},
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                sys.exit(
                    f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}"
                )

        return run


def starts(copy: Copy, rounds: int) -> list[dict[str, Any]]:
    """Every command's --help."""
    work = {"python -c pass": copy.call("python", "-c", "pass")}
    for name in [*STAGES, *COMMANDS]:
        work[f"start {name}"] = copy.call("python", "-m", "clsp", name, "--help")
    return compare(side_by_side(work, rounds, warm_up=0), baseline="python -c pass")


def parses(copy: Copy, rounds: int) -> list[dict[str, Any]]:
    """Dry runs of whole grids."""
    work = {
        f"parse {Path(file).stem}": copy.call(
            *("snakemake", "--configfile", file, "-n", "--quiet", "all")
        )
        for file in GRIDS
    }
    return compare(side_by_side(work, rounds, warm_up=0), baseline=f"parse {Path(GRIDS[0]).stem}")


def short_jobs(copy: Copy, rounds: int, jobs: int) -> list[dict[str, Any]]:
    """Whole runs of short jobs, all of them again in every round."""
    params = small(read_yaml(ROOT / "params.yaml"), jobs)
    (copy.folder / "small.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    command = ("snakemake", "--configfile", "small.yaml")
    again = (*command, "--forceall", "evaluate")
    work = {
        "jobs, each by itself": copy.call(*again, CLSP_SHARED_PROCESS="0"),
        "jobs, shared process": copy.call(*again, CLSP_SHARED_PROCESS="1"),
    }
    copy.call(*command)()
    return compare(side_by_side(work, rounds, warm_up=0), baseline="jobs, each by itself")


def no_op(copy: Copy, rounds: int, command: tuple[str, ...]) -> list[dict[str, Any]]:
    """Snakemake with nothing to do, and its tables."""
    copy.call(*command)()
    work = {
        "no-op": copy.call(*command),
        "no-op, tables": copy.call(command[0], "tables", *command[1:]),
        "no-op, dry": copy.call(*command, "-n", "--quiet", "all"),
    }
    return compare(side_by_side(work, rounds, warm_up=0), baseline="no-op, dry")


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """What takes longer than it may."""
    limits = {f"start {name}": LIMITS["start"] for name in TORCH_FREE}
    limits |= {f"parse {Path(file).stem}": LIMITS["parse"] for file in GRIDS}
    limits["no-op"] = LIMITS["no-op"]
    return [
        f"{row['variant']} takes {row['value']:.2f} s, and may take {limits[row['variant']]:g} s"
        for row in rows
        if row["value"] >= limits.get(row["variant"], float("inf"))
    ]


def main() -> int:
    """Exit code 1 if a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=12, help="about as many short jobs")
    parser.add_argument("--full", action="store_true", help="no-op of the whole demo")
    parser.add_argument("--name", default="overhead")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder))
        rows = [*starts(copy, given.rounds), *parses(copy, given.rounds)]
        rows += short_jobs(copy, 1, given.jobs)
        small_one = ("snakemake", "--configfile", "small.yaml")
        rows += no_op(copy, given.rounds, ("snakemake",) if given.full else small_one)
    found = missed(rows)
    about = surroundings(None, "snakemake", "mlflow", "diffusers")
    print(record(given.name, about, rows, found or ["Every limit is kept."]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
