"""Does training with the suite's views give what training with torchvision's gives?

    python benchmarks/views_recipe.py [--images FOLDER] [--seeds 3] [--epochs 10]

The same small SimCLR run, with the CLSP authors' views, from the same weights and over the same
batches: once with `execution.views: device`, once with `execution.views: torchvision`, for each
seed. Its encoder is judged by 20 nearest neighbours of the plain images. Both pipelines draw other
numbers, so runs of one seed differ as runs of two seeds do: the difference of the means is set
beside its standard error from the spread over seeds.
FOLDER holds train/<class>/* and test/<class>/*, such as CIFAR-10 as JPEG; without it scikit-learn's
digits stand in. Writes benchmarks/results/views_recipe.json and .md. Exit code 1 if the difference
is more than three standard errors. Under 5 minutes on two CPU cores.
"""

import argparse
import sys
import time
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image
from recording import record, surroundings
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional
from workload import SIZE, Scale, Suite, prepared, run_spec

from clsp.data.prepared import Prepared
from clsp.evaluate.knn import votes
from clsp.models.encoder import normalise
from clsp.models.nearest import neighbours
from clsp.runtime.manifest import Artefact

NETWORK = Scale(width=8, hidden=128, projection=64, batch=128)
RATE, K, TEMPERATURE, MOST_APART = 0.05, 20, 0.07, 3.0
VIEWS = {"device": "exact", "torchvision": "torchvision views"}


def read(folder: Path, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of a split, equally many of each class, uint8 (N, SIZE, SIZE, 3), and classes."""
    images, labels = [], []
    classes = sorted(path for path in (folder / split).iterdir() if path.is_dir())
    for label, inner in enumerate(classes):
        for path in sorted(inner.iterdir())[: count // len(classes)]:
            images.append(np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE))))
            labels.append(label)
    return np.stack(images), np.array(labels, np.int64)


def digits() -> list[tuple[np.ndarray, np.ndarray]]:
    """Train and test split of the digits, enlarged to SIZE."""
    found = load_digits()
    grey = (found.images * 255 / 16).round().astype(np.uint8)
    sides = (SIZE, SIZE)
    images = np.stack([np.asarray(Image.fromarray(g).convert("RGB").resize(sides)) for g in grey])
    labels = found.target.astype(np.int64)
    return [(images[:1280], labels[:1280]), (images[1280:], labels[1280:])]


@torch.inference_mode()
def describe(suite: Suite, images: np.ndarray) -> np.ndarray:
    """Unit features of plain images, float32 (N, F)."""
    encoder = suite.setup.method.encoder.eval()
    device = suite.setup.anchors.device
    parts: list[Tensor] = []
    for start in range(0, len(images), 256):
        shown = torch.from_numpy(images[start : start + 256]).to(device)
        parts.append(functional.normalize(encoder(normalise(shown, suite.setup.statistics)), dim=1))
    return torch.cat(parts).cpu().numpy()


def accuracy(suite: Suite, splits: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """Percent of the test images whose class most of their neighbours have."""
    (train, labels), (test, answers) = splits
    bank, asked = describe(suite, train), describe(suite, test)
    cosines, rows = neighbours(bank, asked, K, suite.setup.anchors.device)
    classes = int(labels.max()) + 1
    found = votes(cosines, labels[rows], classes, K, TEMPERATURE).argmax(1)
    return 100 * float((found == answers).mean())


def train(
    dataset: Prepared,
    mode: str,
    seed: int,
    epochs: int,
    splits: list[tuple[np.ndarray, np.ndarray]],
) -> tuple[float, float, float]:
    """Accuracy before and after one run, and its seconds."""
    spec = run_spec(NETWORK, 2, mode)
    changed = {"epochs": epochs, "learning_rate": RATE, "warmup_epochs": 1, "warmup_start": 0.01}
    recipe = spec.recipe.model_copy(update=changed)
    spec = spec.model_copy(update={"recipe": recipe, "seed": seed})
    with TemporaryDirectory() as scratch:
        suite = Suite(spec, dataset, Artefact(Path(scratch), {}), Path(scratch))
        before = accuracy(suite, splits)
        suite.setup.method.train()
        started = time.perf_counter()
        suite.steps(suite.setup.steps)
        seconds = time.perf_counter() - started
        suite.course.resume.close()
        return before, accuracy(suite, splits), seconds


def main() -> int:
    """Measure, print and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with train/ and test/")
    parser.add_argument("--train", type=int, default=1500, help="images")
    parser.add_argument("--test", type=int, default=1000, help="images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    given, epochs = arguments.images, arguments.epochs
    splits = (
        digits()
        if given is None
        else [read(given, s, n) for s, n in (("train", arguments.train), ("test", arguments.test))]
    )
    dataset = prepared(splits[0][0])
    found: dict[str, list[float]] = {name: [] for name in VIEWS}
    seconds: dict[str, list[float]] = {name: [] for name in VIEWS}
    untrained: list[float] = []
    for seed in range(arguments.seeds):
        for name, mode in VIEWS.items():
            before, after, took = train(dataset, mode, seed, epochs, splits)
            found[name].append(after)
            seconds[name].append(took)
            untrained.append(before)
            print(f"seed {seed}, {name}: {before:.1f} -> {after:.1f} % in {took:.0f} s", flush=True)
    apart = mean(found["device"]) - mean(found["torchvision"])
    error = sqrt(sum(stdev(values) ** 2 / len(values) for values in found.values()))
    rows: list[dict[str, Any]] = [
        {
            "variant": name,
            "unit": "% kNN",
            "value": mean(values),
            "least": min(values),
            "most": max(values),
            "baseline": "torchvision",
            "ratio": mean(values) / mean(found["torchvision"]),
            "spread": stdev(values),
            "seconds of a run": mean(seconds[name]),
            "accuracies": values,
        }
        for name, values in found.items()
    ]
    about = surroundings(None, "torchvision", "scikit-learn")
    about["images"] = "scikit-learn's digits" if given is None else given.name
    about["training and test images"] = f"{len(splits[0][0])} and {len(splits[1][0])}"
    about["run"] = f"{epochs} epochs of batches of {NETWORK.batch}, {arguments.seeds} seeds"
    notes = [
        f"Device less torchvision: {apart:+.2f} points, standard error {error:.2f}. "
        f"Untrained: {mean(untrained):.1f} %."
    ]
    print(record("views_recipe", about, rows, notes, ("spread", "seconds of a run")))
    return int(abs(apart) > MOST_APART * max(error, 1e-9))


if __name__ == "__main__":
    sys.exit(main())
