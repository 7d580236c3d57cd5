"""The suite's logistic regression beside scikit-learn's, on the same features, in one process.

    python benchmarks/logistic.py --images FOLDER [--threads 2] [--device cpu|cuda] [--name NAME]

FOLDER holds train/<class>/* and test/<class>/*, such as CIFAR-10 as JPEG. Features are those of an
untrained ResNet-18 (512 per image) and the pixels of scikit-learn's digits. For each of the 45
values of the transfer protocol's grid, strong to weak, all are fitted one after the other, each
warm-started from its own last fit, so that whatever else the machine does meets all of them:

    suite      tolerance 1e-6, at most 1000 iterations
    lbfgs      scikit-learn, float64, the same tolerance and as many iterations
    published  scikit-learn as the published transfer code calls it: float32, its default
               tolerance 1e-4 and at most 100 iterations, converged or not
    exact      scikit-learn's newton-cg to 1e-10, the optimum to all that matters; of 100 classes
               it would take hours and is left out

Writes benchmarks/results/NAME.json and NAME.md: accuracies, gradients, iterations and seconds.
Exit code 1 if an accuracy of the suite is more than 0.1 points from the exact one at any value, or
if the suite takes longer than lbfgs. About 10 minutes on two CPU cores, most of it for "exact".
--hundred adds a case of 100 classes.
"""

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
import sklearn
import torch
from PIL import Image
from scipy.special import softmax
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression as Reference
from threadpoolctl import threadpool_limits

from clsp.config.evaluation import LogisticSpec
from clsp.config.recipe import Normalisation
from clsp.config.schema import EncoderSpec
from clsp.evaluate.logistic import LogisticRegression, grid
from clsp.models.encoder import Encoder, normalise

RESULTS = Path(__file__).parent / "results"
STATISTICS = Normalisation(mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))
SPEC = LogisticSpec(
    low=-6,
    high=5,
    count=45,
    max_iterations=1000,
    tolerance=1e-6,
    validation="ssl_transfer",
    validation_fraction=0.2,
    seed=0,
)
EQUAL = 0.1  # points
SMALL = 6000  # features times classes up to which the optimum is sought


@dataclass(frozen=True)
class Case:
    """Features and labels of one comparison, train and test."""

    name: str
    train: np.ndarray  # float32 (N, F)
    labels: np.ndarray  # int64 (N,)
    test: np.ndarray  # float32 (M, F)
    test_labels: np.ndarray  # int64 (M,)

    @property
    def classes(self) -> int:
        return int(self.labels.max()) + 1

    def gradient(self, weight: np.ndarray, bias: np.ndarray, strength: float) -> float:
        """Largest entry of the gradient of the objective, for any solver alike."""
        inputs, count = self.train.astype(np.float64), len(self.train)
        residual = softmax(inputs @ weight.T + bias, axis=1)
        residual[np.arange(count), self.labels] -= 1
        slopes = residual.T @ inputs / count + 10.0**strength / count * weight
        return float(max(np.abs(slopes).max(), np.abs(residual.mean(0)).max()))

    def accuracy(self, weight: np.ndarray, bias: np.ndarray) -> float:
        """Percent of the test images."""
        scores = self.test.astype(np.float64) @ weight.T + bias
        return 100 * float((scores.argmax(1) == self.test_labels).mean())


Fitted = tuple[np.ndarray, np.ndarray, int]  # weight, bias, iterations


def suite(case: Case, device: torch.device) -> Callable[[float], Fitted]:
    """The suite's solver. The problem is set up with the first fit, and counted there."""
    state: dict[str, Any] = {"fit": None}

    def fit(strength: float) -> Fitted:
        if "problem" not in state:
            given = case.train, case.labels, case.classes
            state["problem"] = LogisticRegression(*given, SPEC, device)
        found = state["fit"] = state["problem"].fit(strength, state["fit"])
        return found.weight.cpu().numpy(), found.bias.cpu().numpy(), found.iterations

    return fit


def reference(case: Case, dtype: type, **options: Any) -> Callable[[float], Fitted]:
    """A solver of scikit-learn."""
    model = Reference(warm_start=True, **options)
    inputs = case.train.astype(dtype)

    def fit(strength: float) -> Fitted:
        model.set_params(C=10.0**-strength)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(inputs, case.labels)
        weight, bias = (part.astype(np.float64) for part in (model.coef_, model.intercept_))
        return weight, bias, int(model.n_iter_[0])

    return fit


def read_images(folder: Path, each: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images of every class, uint8 (N, H, W, 3), and their classes."""
    images, labels = [], []
    for label, inner in enumerate(sorted(p for p in folder.iterdir() if p.is_dir())):
        for path in sorted(inner.iterdir())[:each]:
            images.append(np.asarray(Image.open(path).convert("RGB")))
            labels.append(label)
    return np.stack(images), np.array(labels, np.int64)


@torch.inference_mode()
def describe(images: list[np.ndarray]) -> list[np.ndarray]:
    """Features of an untrained ResNet-18, batch-norm statistics from the first set of images."""
    torch.manual_seed(0)
    encoder = Encoder(EncoderSpec(architecture="resnet18", stem="mid", width=64)).train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over batches
    for start in range(0, len(images[0]), 500):
        encoder(normalise(torch.from_numpy(images[0][start : start + 500]), STATISTICS))
    encoder.eval()
    return [
        np.concatenate(
            [
                encoder(normalise(torch.from_numpy(one[i : i + 250]), STATISTICS)).numpy()
                for i in range(0, len(one), 250)
            ]
        )
        for one in images
    ]


def make_cases(folder: Path, train: int, test: int, hundred: bool) -> list[Case]:
    """Digits and untrained features; `train` and `test` are images per class."""
    digits = load_digits()
    pixels, labels = (digits.data / 16).astype(np.float32), digits.target.astype(np.int64)
    cases = [Case("digits, pixels", pixels[:1347], labels[:1347], pixels[1347:], labels[1347:])]
    read = read_images(folder / "train", train), read_images(folder / "test", test)
    images, classes = zip(*read, strict=True)
    features = describe(list(images))
    cases.append(Case("images, untrained", features[0], classes[0], features[1], classes[1]))
    if hundred:  # made up: the class, and the tenth of its brightness
        bright = [one.mean((1, 2, 3)) for one in images]
        edges = np.quantile(bright[0], np.linspace(0, 1, 11)[1:-1])
        finer = [10 * c + np.searchsorted(edges, b) for c, b in zip(classes, bright, strict=True)]
        cases.append(Case("images, untrained, 100", features[0], finer[0], features[1], finer[1]))
    return cases


def compare(case: Case, device: torch.device) -> list[dict[str, Any]]:
    """One record per value of the grid."""
    tolerance, limit = SPEC.tolerance, SPEC.max_iterations
    solvers = {
        "suite": suite(case, device),
        "lbfgs": reference(case, np.float64, tol=tolerance, max_iter=limit),
        "published": reference(case, np.float32, tol=1e-4, max_iter=100),
    }
    if case.train.shape[1] * case.classes <= SMALL:
        solvers["exact"] = reference(case, np.float64, solver="newton-cg", tol=1e-10, max_iter=500)
    records = []
    for strength in grid(SPEC):
        record: dict[str, Any] = {"log10_lambda": strength}
        for name, fit in solvers.items():
            begun = time.perf_counter()
            weight, bias, iterations = fit(strength)
            seconds = time.perf_counter() - begun
            record[name] = {
                "accuracy": round(case.accuracy(weight, bias), 4),
                "gradient": float(f"{case.gradient(weight, bias, strength):.3g}"),
                "iterations": iterations,
                "seconds": round(seconds, 4),
            }
        records.append(record)
        print(case.name, json.dumps(record), flush=True)
    return records


def difference(records: list[dict[str, Any]], one: str, other: str) -> float | None:
    """Largest difference of accuracies over the grid, in points."""
    if other not in records[0]:
        return None
    return round(max(abs(r[one]["accuracy"] - r[other]["accuracy"]) for r in records), 4)


def summary(case: Case, records: list[dict[str, Any]]) -> dict[str, Any]:
    """What the records of one case come to."""
    names = [name for name in records[0] if name != "log10_lambda"]
    total = {name: round(sum(r[name]["seconds"] for r in records), 2) for name in names}
    return {
        "case": case.name,
        "images": [len(case.train), len(case.test)],
        "features": case.train.shape[1],
        "classes": case.classes,
        "seconds": total,
        "iterations": {name: sum(r[name]["iterations"] for r in records) for name in names},
        "at_limit": sum(r["lbfgs"]["iterations"] >= SPEC.max_iterations for r in records),
        "from_exact": {n: difference(records, n, "exact") for n in ("suite", "lbfgs", "published")},
        "records": records,
    }


def table(found: list[dict[str, Any]], about: dict[str, Any]) -> str:
    """The summaries as markdown."""
    lines = [
        f"Device of the suite: {about['device']}; {about['threads']} threads; "
        f"{', '.join(f'{k} {v}' for k, v in about['versions'].items())}.",
        "",
        "| features | images | F | classes | suite s | lbfgs s | published s | lbfgs / suite "
        "| published / suite | points from exact: suite, lbfgs, published |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    for one in found:
        seconds = one["seconds"]
        apart = ", ".join("-" if v is None else f"{v:.2f}" for v in one["from_exact"].values())
        lines.append(
            f"| {one['case']} | {one['images'][0]} | {one['features']} | {one['classes']} "
            f"| {seconds['suite']} | {seconds['lbfgs']} | {seconds['published']} "
            f"| {seconds['lbfgs'] / seconds['suite']:.1f} "
            f"| {seconds['published'] / seconds['suite']:.1f} | {apart} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Exit code 1 if the suite differs from scikit-learn or is slower."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder with train/ and test/")
    parser.add_argument("--train", type=int, default=300, help="training images per class")
    parser.add_argument("--test", type=int, default=200, help="test images per class")
    parser.add_argument("--hundred", action="store_true", help="also 100 made-up classes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="logistic")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    about = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else platform.processor(),
        "threads": given.threads,
        "versions": {m.__name__: m.__version__ for m in (torch, sklearn, scipy, np)},
    }
    about["device"] = about["device"] or platform.machine()
    with threadpool_limits(given.threads):
        cases = make_cases(given.images, given.train, given.test, given.hundred)
        found = [summary(case, compare(case, device)) for case in cases]
    RESULTS.mkdir(exist_ok=True)
    out = RESULTS / f"{given.name}.json"
    out.write_text(json.dumps({**about, "cases": found}, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(table(found, about) + "\n", encoding="utf-8")
    print(table(found, about))
    return int(
        any(
            (one["from_exact"]["suite"] or 0.0) > EQUAL
            or one["seconds"]["suite"] > one["seconds"]["lbfgs"]
            for one in found
        )
    )


if __name__ == "__main__":
    sys.exit(main())
