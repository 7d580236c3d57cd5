"""Does every method learn? kNN of each against a randomly initialised encoder, in one run.

    python benchmarks/methods_cifar10.py --images FOLDER [--jobs 2] [--settings FILE]

FOLDER holds train/<class>/* and test/<class>/*, such as CIFAR-10 as JPEG. Runs the suite with the
settings through Snakemake (benchmarks/methods_cifar10.yaml: about an hour on two CPU cores;
benchmarks/methods_cifar10_gpu.yaml: ResNet-18 on all images, on a GPU); a run that was interrupted
goes on. Then judges encoders that were never trained as the floor: the start checkpoint as it is,
and the same with batch-norm statistics taken from the training images. Writes below
benchmarks/results/ the table as JSON with device, versions and commit, and its manifests.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from clsp.config.evaluation import KnnSpec
from clsp.config.grid import Run, expand_runs
from clsp.config.load import load_params, read_yaml
from clsp.config.recipe import Normalisation
from clsp.data.prepared import Prepared, open_prepared
from clsp.evaluate.knn import votes
from clsp.models.encoder import Encoder, normalise
from clsp.models.nearest import neighbours
from clsp.runtime.checkpoint import load_tensors
from clsp.runtime.manifest import Artefact, read_manifest

HERE = Path(__file__).parent
BLOCK = 500  # images per forward pass
MARGIN = 2.5  # points above the floor: over three standard errors at 4000 test images


def run_suite(settings: Path, images: Path, jobs: int) -> tuple[dict[str, Run], Path]:
    """Run everything but the floor; returns the runs and the folder of their results."""
    wanted = {
        "extends": str(settings),
        "datasets": {"cifar10-jpeg": {"root": str(images)}},
    }
    file = Path(".clsp") / "methods_cifar10.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(wanted), encoding="utf-8")
    command = ["snakemake", "--configfile", str(file), "--cores", str(jobs)]
    subprocess.run(command, check=True)
    params = load_params(read_yaml(file), str(file))
    return expand_runs(params), Path("results") / params.profile


@torch.inference_mode()
def features(encoder: Encoder, images: np.ndarray, statistics: Normalisation) -> np.ndarray:
    """Backbone features, float32 (N, F), of uint8 images (N, H, W, 3)."""
    blocks = [
        torch.from_numpy(np.array(images[i : i + BLOCK])) for i in range(0, len(images), BLOCK)
    ]
    return torch.cat([encoder(normalise(block, statistics)) for block in blocks]).numpy()


def knn_accuracy(
    encoder: Encoder, dataset: Prepared, statistics: Normalisation, spec: KnnSpec
) -> float:
    """Top-1 accuracy in percent of the suite's kNN, with the run's own settings."""
    train, test = dataset.split("train"), dataset.split("test")
    bank, asked = (features(encoder, split.images, statistics) for split in (train, test))
    cosines, rows = neighbours(bank, asked, spec.k, torch.device("cpu"))
    voted = votes(cosines, train.labels[rows], len(dataset.classes), spec.k, spec.temperature)
    return 100 * float((voted.argmax(axis=1) == test.labels).mean())


def floors(run: Run, trained: Artefact, dataset: Prepared) -> dict[str, float]:
    """kNN accuracy of the run's encoder before training, plain and with measured statistics."""
    tensors, _ = load_tensors(trained.path("checkpoints/start.safetensors"))
    encoder = Encoder(run.spec.encoder)
    prefix = "encoder."
    encoder.load_state_dict(
        {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
    )
    statistics = Normalisation.model_validate(trained.predicate["facts"]["normalisation"])
    plain = knn_accuracy(encoder.eval(), dataset, statistics, run.probe.knn)
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None  # a plain average over all blocks
    features(encoder.train(), dataset.split("train").images, statistics)
    measured = knn_accuracy(encoder.eval(), dataset, statistics, run.probe.knn)
    return {"random": plain, "random, measured batch norm": measured}


def rows_of(runs: dict[str, Run], results: Path) -> list[dict[str, Any]]:
    """One record per run: its accuracies, the floor, and what was watched in training."""
    found, floor = [], {}
    for slug, run in runs.items():
        trained = read_manifest(results / "runs" / slug / "manifest.json")
        probed = read_manifest(results / "evaluations/probe" / slug / "manifest.json")
        data = results / "data/prepared" / run.spec.dataset / "manifest.json"
        start = trained.predicate["facts"]["init_sha256"]
        if run.spec.seed not in floor:  # every method starts from the same encoder
            floor[run.spec.seed] = floors(run, trained, open_prepared(read_manifest(data)))
        found.append(
            {
                "label": run.label,
                "run": slug,
                "knn": probed.metrics["knn/top1"],
                "linear": probed.metrics["linear/top1"],
                "floor": floor[run.spec.seed],
                "above_floor": probed.metrics["knn/top1"] - max(floor[run.spec.seed].values()),
                "health": trained.predicate["facts"]["health"],
                "seconds": trained.predicate["runDetails"]["seconds"],
                "code": trained.predicate["internalParameters"]["code"],
                "git_commit": trained.predicate["internalParameters"]["git_commit"],
                "device": trained.predicate["internalParameters"]["device"],
                "versions": trained.predicate["internalParameters"]["versions"],
                "init_sha256": start,
            }
        )
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The records as a markdown table."""
    lines = ["| method | kNN | linear | kNN above the floor | spread | effective rank | min |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for name, value in rows[0]["floor"].items():
        lines.append(f"| {name} | {value:.2f} | | | | | |")
    for row in rows:
        health = row["health"]
        lines.append(
            f"| {row['label']} | {row['knn']:.2f} | {row['linear']:.2f} | "
            f"{row['above_floor']:+.2f} | {health['embedding_std']:.4f} | "
            f"{health['effective_rank']:.1f} | {row['seconds'] / 60:.1f} |"
        )
    return "\n".join(lines)


def keep(rows: list[dict[str, Any]], results: Path, out: Path) -> None:
    """Write the table as JSON and markdown, and copy the manifests behind it."""
    kept = out.with_suffix("")
    shutil.rmtree(kept, ignore_errors=True)
    for row in rows:
        for folder in ("runs", "evaluations/probe"):
            name = Path(folder) / row["run"] / "manifest.json"
            (kept / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(results / name, kept / name)
    about = "kNN and linear top-1, percent; CIFAR-10 as JPEG; one seed; no results"
    record = {"about": about, "margin": MARGIN, "machine": platform.machine(), "rows": rows}
    out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(f"{about}\n\n{table(rows)}\n", encoding="utf-8")


def main() -> int:
    """Exit code 1 if a method stays near the floor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--settings", type=Path, default=HERE / "methods_cifar10.yaml")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    settings = arguments.settings
    runs, results = run_suite(settings, arguments.images.resolve(), arguments.jobs)
    rows = rows_of(runs, results)
    keep(rows, results, HERE / "results" / f"{settings.stem}.json")
    print(table(rows))
    return int(any(row["above_floor"] < MARGIN for row in rows))


if __name__ == "__main__":
    sys.exit(main())
