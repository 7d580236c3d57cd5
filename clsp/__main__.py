"""The command line: `python -m clsp STAGE --flags`. `python -m clsp --help` lists the stages.

Exit codes: 0 done, 1 audit finding, 2 usage or configuration, 3 incomplete or busy,
4 files or environment, 128 + n ended by signal n.
"""

import argparse
import ctypes
import importlib
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from clsp import __version__
from clsp.runtime import device
from clsp.runtime.errors import ClspError, ConfigError, DataError
from clsp.runtime.registry import nearest
from clsp.workflow.delegate import delegate, offered

STAGES = {
    "fetch-dataset": ("clsp.data.fetch:fetch_dataset", "download a dataset, or draw its miniature"),
    "prepare-dataset": ("clsp.data.prepare:prepare_dataset", "turn a dataset into uint8 arrays"),
    "check-data": ("clsp.data.check:check_data", "refuse settings that the data cannot meet"),
    "count-duplicates": (
        "clsp.data.duplicates:count_duplicates",
        "exact duplicates of training in test images",
    ),
    "train-denoiser": ("clsp.diffusion.train:train_denoiser", "train the diffusion model"),
    "import-denoiser": (
        "clsp.diffusion.imported:import_denoiser",
        "read a denoiser that was trained elsewhere",
    ),
    "import-encoder": (
        "clsp.models.imported:import_encoder",
        "read an encoder that was pretrained elsewhere",
    ),
    "generate-shard": ("clsp.synthesis.shard:generate_shard", "draw one shard of a bank"),
    "gather-bank": ("clsp.synthesis.gather:gather_bank", "join shards into a bank"),
    "pretrain-encoder": (
        "clsp.pretrain.run:pretrain_encoder",
        "pretraining of one run",
    ),
    "mine-pairs": (
        "clsp.mining.mine:mine_pairs",
        "pair training images that an encoder finds alike",
    ),
    "extract-features": (
        "clsp.evaluate.extract:extract_features",
        "features of one encoder on every dataset",
    ),
    "probe-encoder": ("clsp.evaluate.probe:probe_encoder", "linear probe and kNN of one encoder"),
    "probe-transfer": ("clsp.evaluate.transfer:probe_transfer", "transfer of one encoder"),
    "probe-few-shot": (
        "clsp.evaluate.few_shot:probe_few_shot",
        "transfer of one encoder with few labels",
    ),
    "fine-tune-encoder": (
        "clsp.evaluate.fine_tune:fine_tune_encoder",
        "transfer of one encoder by fine-tuning",
    ),
    "measure-bank": ("clsp.evaluate.quality:measure_bank", "quality figures of one bank"),
    "collect-results": ("clsp.report.collect:collect_results", "manifests -> one tidy frame"),
    "judge-claims": ("clsp.report.verdicts:judge_claims", "verdicts on what the paper claims"),
    "render-table": ("clsp.report.table:render_table", "one table as csv, md and tex"),
    "render-figure": ("clsp.report.figure:render_figure", "one figure as png and csv"),
    "render-report": ("clsp.report.page:render_report", "the HTML report"),
}
ON_GPU = (
    "train-denoiser",
    "generate-shard",
    "pretrain-encoder",
    "mine-pairs",
    "extract-features",
    "probe-encoder",
    "probe-transfer",
    "probe-few-shot",
    "fine-tune-encoder",
    "measure-bank",
)
COMMANDS = {
    "audit": ("clsp.audit.run:main", "re-derive every number and compare"),
    "bundle": ("clsp.bundle.run:main", "pack what an audit needs into one archive"),
    "replay": ("clsp.replay.run:main", "compute samples of finished artefacts again"),
    "data": ("clsp.data.command:main", "list, fetch and verify the datasets"),
    "check": ("clsp.config.check:main", "validate a params.yaml and list its runs"),
    "memory": ("clsp.pretrain.requirements:main", "GPU memory that the runs of a params.yaml need"),
    "track-init": ("clsp.runtime.tracking:main", "create the MLflow store"),
    "snapshot": ("clsp.workflow.snapshot:main", "record results with DVC"),
    "provenance": ("clsp.workflow.provenance:main", "export or restore Snakemake's records"),
    "export": ("clsp.export.command:main", "model cards and an RO-Crate of finished results"),
}


SHARE = "share-process"  # started by Snakemake, not by users


def _resolve(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _overview() -> str:
    rows = [f"  {name:18} {about}" for name, (_, about) in {**STAGES, **COMMANDS}.items()]
    return (
        "usage: python -m clsp COMMAND [--flags]; COMMAND --help shows its flags\n\n"
        "Stages (run by Snakemake, or by hand with the line that `snakemake -np` prints) "
        "and commands:\n" + "\n".join(rows)
    )


def _stage_parser(stage: str, function: Callable[..., Any]) -> argparse.ArgumentParser:
    from clsp.runtime.stage import parameters

    parser = argparse.ArgumentParser(
        prog=f"python -m clsp {stage}",
        description=function.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    about = {
        "spec": "the job's spec as JSON, or @FILE",
        "input": "files of one artefact, its manifest among them",
        "inputs": "files of any number of artefacts with their manifests",
        "file": "a tracked file",
        "files": "one or more files; their hashes are recorded",
        "output": "where to write",
        "scratch": "folder for resume state; removed on success",
    }
    for parameter in parameters(function):
        flag = f"--{parameter.name.replace('_', '-')}"
        common = {"required": True, "dest": parameter.name, "help": about.get(parameter.kind)}
        if parameter.kind == "spec":
            parser.add_argument(flag, metavar="JSON", **common)
        elif parameter.kind in ("input", "inputs"):
            count = "+" if parameter.kind == "input" else "*"
            parser.add_argument(flag, nargs=count, type=Path, metavar="FILE", **common)
        elif parameter.kind == "files":
            parser.add_argument(flag, nargs="+", type=Path, metavar="FILE", **common)
        elif parameter.kind == "value":
            parser.add_argument(flag, type=parameter.type, **common)
        else:
            parser.add_argument(flag, type=Path, metavar="PATH", **common)
    parser.add_argument("--manifest", type=Path, required=True, help="where to write the manifest")
    parser.add_argument("--code", default="", help="digest of the stage's code, for the record")
    return parser


def _die_with_parent() -> None:
    """Ask the kernel to end this job when Snakemake is killed, so that no orphan keeps writing."""
    if sys.platform == "linux" and os.environ.get("CLSP_DIE_WITH_PARENT"):
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 = PR_SET_PDEATHSIG
        if os.getppid() == 1:  # it died before we could ask
            sys.exit(128 + signal.SIGTERM)


def _terminate(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _run_stage(stage: str, argv: list[str]) -> int:
    function = _resolve(STAGES[stage][0])
    arguments = vars(_stage_parser(stage, function).parse_args(argv))
    # Before CUDA is initialised.
    claimed = device.claim_gpus(device.processes()) if stage in ON_GPU else []
    threads = int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    from clsp.job import Call, run

    manifest, code = arguments.pop("manifest"), arguments.pop("code")
    run(Call(stage, function, arguments, manifest, code, threads))
    for handle in claimed:
        os.close(handle)
    return 0


def main(argv: list[str]) -> int:
    """Run one command; returns the exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if argv[0] == "--version":
        print(__version__)
        return 0
    command, rest = argv[0], argv[1:]
    if command in STAGES:
        return _run_stage(command, rest)
    if command in COMMANDS:
        return _resolve(COMMANDS[command][0])(rest)
    known = [*STAGES, *COMMANDS]
    raise ConfigError(f'unknown command "{command}"{nearest(command, known)}; see --help')


def _may_share(argv: list[str]) -> bool:
    """Whether a job may be done by the shared process; one that may use a GPU is on its own.

    CUDA must not be initialised before a fork, and claims of GPUs belong to a process.
    """
    wanted = argv == ["track-init"] or (argv[:1] and argv[0] in STAGES and "--manifest" in argv)
    if not wanted or not offered() or device.processes() > 1:
        return False
    return argv[0] not in ON_GPU or device.wanted() == "cpu" or device.cuda_devices() == 0


def _prepare(argv: list[str]) -> None:
    """Import what a job needs, in the process that the job will be forked from."""
    if argv[0] in STAGES:
        importlib.import_module(STAGES[argv[0]][0].partition(":")[0])
        importlib.import_module("clsp.job")
    importlib.import_module("clsp.runtime.tracking").prepare(argv[0])


def entry() -> None:
    """Console entry point: one clear message per expected error, and its exit code."""
    argv = sys.argv[1:]
    if argv[:1] == [SHARE]:
        # Only here, because starting every command with it would take time.
        from clsp.workflow.shared_process import serve

        serve(argv[1], _prepare, _run_here)
    else:
        _end(lambda: delegate(argv) if _may_share(argv) else None, argv)


def _run_here(argv: list[str]) -> NoReturn:
    _end(lambda: None, argv)


def _end(elsewhere: Callable[[], int | None], argv: list[str]) -> NoReturn:
    """Run one command, if not elsewhere, and end the process as it asks for."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, _terminate)
    _die_with_parent()
    try:
        code = elsewhere()
        if code is None:
            code = main(argv)
    except ClspError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except OSError as error:  # a full disk, a read-only folder, a file that vanished
        print(f"error: {error}", file=sys.stderr)
        code = DataError.exit_code
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    entry()
