"""`python -m clsp replay`: compute samples of finished artefacts, or a whole run, again.

The audit asks for all but the last at L3. Nothing is written but into --out.

Exit codes: 0 done (of `whole`: all files equal), 1 files differ, 2 usage, 4 files or environment.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

from clsp.runtime.canonical import canonical_json
from clsp.runtime.errors import ConfigError, DataError
from clsp.runtime.files import write_atomic
from clsp.runtime.manifest import read_manifest


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m clsp replay",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    drawn = kinds.add_parser("candidates", help="draw candidates of a bank again")
    for name in ("shard", "denoiser", "dataset"):
        drawn.add_argument(f"--{name}", type=Path, required=True, metavar="MANIFEST")
    drawn.add_argument("--pairs", type=Path, required=True, help="npy: rows (anchor, candidate)")
    drawn.add_argument("--out", type=Path, required=True, metavar="DIR")
    prepared = kinds.add_parser(
        "dataset", help="prepare a dataset again, and digest what comes out"
    )
    prepared.add_argument("--dataset", type=Path, required=True, metavar="MANIFEST")
    prepared.add_argument("--raw", type=Path, nargs="*", default=[], metavar="MANIFEST")
    prepared.add_argument("--out", type=Path, required=True, metavar="DIR")
    steps = kinds.add_parser("training", help="repeat the first steps of a run")
    whole = kinds.add_parser("whole", help="repeat a whole run and compare its files")
    for each in (steps, whole):
        each.add_argument("--run", type=Path, required=True, metavar="MANIFEST")
        each.add_argument("--inputs", type=Path, nargs="+", required=True, metavar="MANIFEST")
    steps.add_argument("--steps", type=int, required=True)
    steps.add_argument("--permute", type=int, required=True, metavar="SEED")
    steps.add_argument("--out", type=Path, required=True, metavar="DIR")
    whole.add_argument("--out", type=Path, metavar="DIR", help="keep what is made; default: no")
    return parser


def _pairs(path: Path) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"--pairs {path}: not a readable array ({error})") from error
    if found.dtype.kind not in "iu":
        raise ConfigError(f"--pairs {path}: expected integers, found {found.dtype}")
    return found.astype(np.int64)


def _candidates(arguments: argparse.Namespace) -> int:
    from clsp.replay.candidates import draw_candidates

    given = [read_manifest(getattr(arguments, name)) for name in ("shard", "denoiser", "dataset")]
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    images, facts = draw_candidates(*given, _pairs(arguments.pairs), threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    np.save(arguments.out / "images.npy", images, allow_pickle=False)
    write_atomic(arguments.out / "replay.json", canonical_json(facts) + "\n")
    return 0


def _dataset(arguments: argparse.Namespace) -> int:
    from clsp.replay.dataset import prepare_again

    raw = [read_manifest(path) for path in arguments.raw]
    with tempfile.TemporaryDirectory(prefix="clsp-prepare-") as folder:
        answer = prepare_again(read_manifest(arguments.dataset), raw, Path(folder))
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_atomic(arguments.out / "replay.json", canonical_json(answer) + "\n")
    return 0


def _training(arguments: argparse.Namespace) -> int:
    from clsp.replay.training import repeat_first_steps

    inputs = [read_manifest(path) for path in arguments.inputs]
    run = read_manifest(arguments.run)
    answer = repeat_first_steps(run, inputs, arguments.steps, arguments.permute)
    write_atomic(arguments.out / "replay.json", canonical_json(answer) + "\n")
    return 0


def _whole(arguments: argparse.Namespace) -> int:
    from clsp.replay.whole import rerun

    inputs = [read_manifest(path) for path in arguments.inputs]
    equal, lines = rerun(read_manifest(arguments.run), inputs, arguments.out)
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0 if equal else 1


def main(argv: list[str]) -> int:
    """Run one kind of replay; returns the exit code."""
    arguments = _parser().parse_args(argv)
    kinds = {
        "candidates": _candidates,
        "dataset": _dataset,
        "training": _training,
        "whole": _whole,
    }
    return kinds[arguments.kind](arguments)
