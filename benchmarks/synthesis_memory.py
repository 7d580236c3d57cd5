"""Does the memory of generating and gathering a bank grow with the dataset? N and 10 N anchors.

    python benchmarks/synthesis_memory.py --images FOLDER [--anchors 1000]

FOLDER holds train/<class>/*.jpg and test/<class>/*.jpg, such as CIFAR-10 as JPEG. The stages run
as Snakemake runs them, one process each, with a tiny denoiser: what is measured is the bookkeeping,
not the network. Peak memory is read from /proc every few milliseconds: `anonymous` has no file
behind it, and is what has to stay; `resident` counts mapped files too, as far as the kernel keeps
them.
Writes below benchmarks/results/ the table as JSON and markdown.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from recording import peak_of

HERE = Path(__file__).parent
SIZE, CANDIDATES = 32, 8
DENOISER = {
    "dataset": "images",
    "channels": [8, 8],
    "attention": [False, False],
    "layers_per_block": 1,
    "norm_groups": 4,
    "dropout": 0.0,
    "train_timesteps": 10,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "epochs": 1,
    "batch_size": 64,
    "learning_rate": 0.001,
    "warmup_steps": 0,
    "gradient_clip": 1.0,
    "ema_decay": 0.9,
    "flip": 0.0,
    "seed": 0,
}
BANK = {
    "generator": "interpolate",
    "denoiser": "tiny",
    "dataset": "images",
    "candidates": CANDIDATES,
    "interpolation_weight": 0.1,
    "steps": 2,
    "eta": 0.1,
    "rounding": "nearest",
    "batch_size": 256,
    "seed": 0,
}


def run(stage: str, spec: dict[str, Any], *flags: object) -> dict[str, float]:
    """Run one stage in a process of its own; its seconds and its peak memory in MiB."""
    command = [sys.executable, "-m", "clsp", stage, "--spec", json.dumps(spec), *map(str, flags)]
    started = time.monotonic()
    peak = peak_of(command)
    return {"seconds": time.monotonic() - started, **peak}


def measure(images: Path, anchors: int, folder: Path) -> list[dict[str, Any]]:
    """Prepare, train, generate and gather with so many anchors; one record per stage measured."""
    data, model, bank = folder / "data", folder / "model", folder / "bank"
    kind = {"kind": "image_folder", "root": str(images), "size": SIZE, "limit": anchors}
    names = ("images.npy", "labels.npy", "items.csv", "card.json")
    made = [data / name for name in names]
    flags = [f for path in made for f in (f"--{path.stem}", path)]
    run("prepare-dataset", kind, "--raw", *flags, "--manifest", data / "manifest.json")
    dataset = ["--dataset", *made, data / "manifest.json"]
    outputs = ("model_index.json", "unet", "raw", "scheduler", "history.jsonl", "snapshots")
    made = [model / name for name in outputs]
    flags = [f for path in made for f in (f"--{path.stem.replace('_', '-')}", path)]
    scratch = ["--scratch", folder / "scratch"]
    run(
        "train-denoiser",
        DENOISER,
        *dataset,
        *flags,
        *scratch,
        "--manifest",
        model / "manifest.json",
    )
    denoiser = ["--denoiser", *made, model / "manifest.json"]
    shard = [bank / "1-of-1.npy", bank / "1-of-1.manifest.json"]
    drawn = run(
        *("generate-shard", BANK, "--shard", "1-of-1", *denoiser, *dataset, *scratch),
        *("--images", shard[0], "--manifest", shard[1]),
    )
    joined = run(
        *("gather-bank", BANK, "--shards", *shard, *dataset),
        *("--images", bank / "images.npy", "--index", bank / "index.npy"),
        *("--manifest", bank / "manifest.json"),
    )
    about = {"anchors": anchors, "bank_mib": (bank / "images.npy").stat().st_size / 2**20}
    return [
        {**about, "stage": "generate-shard", **drawn},
        {**about, "stage": "gather-bank", **joined},
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The records as a markdown table."""
    lines = [
        "| anchors | bank, MiB | stage | peak anonymous, MiB | peak resident, MiB | seconds |",
        "|---:|---:|---|---:|---:|---:|",
    ]
    for row in rows:
        lines.append(
            f"| {row['anchors']} | {row['bank_mib']:.0f} | {row['stage']} | "
            f"{row['anonymous']:.0f} | {row['resident']:.0f} | {row['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=Path, required=True, help="folder with train/<class>/*.jpg"
    )
    parser.add_argument("--anchors", type=int, default=1000, help="N; 10 N must be there")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "synthesis_memory.json")
    arguments = parser.parse_args()
    rows = []
    for anchors in (arguments.anchors, 10 * arguments.anchors):
        with tempfile.TemporaryDirectory() as scratch:
            rows += measure(arguments.images.resolve(), anchors, Path(scratch))
    about = (
        f"Peak memory of one process, {CANDIDATES} candidates per anchor at {SIZE} pixels, batches "
        f"of {BANK['batch_size']}, torch {torch.__version__}, {os.cpu_count()} processors of "
        f"{platform.machine()}, CPU"
    )
    record = {"about": about, "rows": rows}
    arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    arguments.out.with_suffix(".md").write_text(f"{about}\n\n{table(rows)}\n", encoding="utf-8")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
