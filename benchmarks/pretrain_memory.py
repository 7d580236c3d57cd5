"""Does the memory of pretraining grow with the dataset once images are streamed? N and 10 N images.

    python benchmarks/pretrain_memory.py [--images 3000]

Images and a bank of two candidates each are random bytes at 32 pixels: what is measured is where
they are kept, not what is learned. The stage runs as Snakemake runs it, in a process of its own, on
the CPU, with a tiny encoder and equally many steps each time: streamed (no image may stay in
memory, as where a dataset is larger than clsp/data/streaming.py allows) from N and from 10 N
images, and as usual (all images in memory) from 10 N. Peak memory is read from /proc every few
milliseconds: `anonymous` has no file behind it, and is what has to stay; `resident` counts mapped
files too, as far as the kernel keeps them.
Writes benchmarks/results/pretrain_memory.json and .md. 2 minutes on two CPU cores.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from recording import Timing as Measured
from recording import compare, record, surroundings
from workload import CANDIDATES, SIZE, Scale, prepared, run_spec, write_bank

from clsp.runtime.keys import numpy_stream
from clsp.runtime.manifest import write_manifest

TINY = Scale(width=2, hidden=16, projection=8, batch=256)
MIB = 2**20
# The command line, but for the largest dataset that stays in memory.
STREAMED = "from clsp.data import streaming; streaming.RESIDENT_BYTES = 0; "
COMMAND = "import sys; from clsp.__main__ import entry; sys.exit(entry())"


def write_dataset(folder: Path, count: int) -> tuple[list[Path], list[Path]]:
    """A prepared dataset of random images and a bank for it; the files of both."""
    stream = numpy_stream(0, "benchmark bytes")
    dataset = prepared(stream.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8))
    data = folder / "data"
    data.mkdir()
    names = ("images.npy", "labels.npy", "card.json")
    np.save(data / names[0], dataset.images)
    np.save(data / names[1], dataset.labels.astype(np.int64))
    (data / names[2]).write_text(json.dumps(dataset.card), encoding="utf-8")
    predicate = {
        "step": "prepare-dataset",
        "externalParameters": {"spec": {}, "arguments": {}},
        "metrics": {},
        "counters": {},
        "facts": {},
    }
    files = [data / name for name in names]
    write_manifest(data / "manifest.json", {path.name: path for path in files}, [], predicate)
    write_bank(folder / "bank", dataset)
    bank = [folder / "bank" / name for name in ("images.npy", "index.npy", "manifest.json")]
    return [*files, data / "manifest.json"], bank


def peak_of(command: list[str]) -> dict[str, float]:
    """Run a command; its peak memory in MiB.

    Raises:
        SystemExit: With what it wrote, if it fails.
    """
    environment = {**os.environ, "CLSP_DEVICE": "cpu", "OMP_NUM_THREADS": "1"}  # as rules do
    environment.pop("MLFLOW_TRACKING_URI", None)
    peak = {"anonymous": 0.0, "resident": 0.0}
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        while child.poll() is None:
            try:
                lines = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii").splitlines()
            except OSError:
                break
            sizes = {line.split(":")[0]: line.split()[1] for line in lines if "kB" in line}
            for name, key in (("anonymous", "RssAnon"), ("resident", "VmRSS")):
                peak[name] = max(peak[name], int(sizes.get(key, 0)) / 1024)
            time.sleep(0.005)
        if child.wait():
            log.seek(0)
            raise SystemExit(log.read().decode(errors="replace"))
    return peak


def pretrain(count: int, steps: int, streamed: bool) -> dict[str, float]:
    """Peak memory of one run on so many images, in MiB."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        dataset, bank = write_dataset(folder, count)
        spec = run_spec(TINY, 3, "exact").canonical()
        spec["recipe"]["epochs"] = steps // (count // TINY.batch)
        run = folder / "run"
        (run / "checkpoints").mkdir(parents=True)
        outputs = {n: run / f"checkpoints/{n}.safetensors" for n in ("start", "middle", "final")}
        outputs |= {"encoder": run / "encoder.safetensors", "history": run / "history.jsonl"}
        outputs |= {"scratch": folder / "scratch", "manifest": run / "manifest.json"}
        flags = [str(f) for name, path in outputs.items() for f in (f"--{name}", path)]
        code = (STREAMED if streamed else "") + COMMAND
        return peak_of(
            [
                *(sys.executable, "-c", code, "pretrain-encoder", "--spec", json.dumps(spec)),
                *("--dataset", *map(str, dataset), "--bank", *map(str, bank), "--pairs", *flags),
            ]
        )


def main() -> int:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000, help="N")
    arguments = parser.parse_args()
    few, many = arguments.images, 10 * arguments.images
    steps = many // TINY.batch // (few // TINY.batch) * (few // TINY.batch)
    cases = {"N streamed": (few, True), "10 N streamed": (many, True), "10 N kept": (many, False)}
    peaks = {
        name: pretrain(count, many // TINY.batch if count == many else steps, streamed)
        for name, (count, streamed) in cases.items()
    }
    memory = {name: Measured([peak["anonymous"]]) for name, peak in peaks.items()}
    rows: list[dict[str, Any]] = compare(memory, "N streamed")
    for row in rows:
        name = row["variant"]
        count = cases[name][0]
        images = count * SIZE * SIZE * 3 / MIB
        row["ratio"] = row["value"] / rows[0]["value"]
        row |= {"unit": "MiB anonymous", "images": count, "images, MiB": images}
        row |= {"bank, MiB": CANDIDATES * images, "resident, MiB": peaks[name]["resident"]}
    notes = [
        "Peak memory of the process. The bank is read from its map in every case. What grows with "
        "the dataset once it streams is labels, order and log: some 40 bytes an image."
    ]
    extra = ("images", "images, MiB", "bank, MiB", "resident, MiB")
    print(record("pretrain_memory", surroundings(), rows, notes, extra))
    return 0


if __name__ == "__main__":
    sys.exit(main())
