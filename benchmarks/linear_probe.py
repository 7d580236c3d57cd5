"""What caching features saves the linear probe, and what training a grid of rates at once saves.

    python benchmarks/linear_probe.py [--images FOLDER] [--rounds 3] [--threads 2] [--device cpu]

FOLDER holds train/<class>/* and test/<class>/*, such as CIFAR-10 as JPEG; without it,
scikit-learn's digits. Two comparisons, all variants in turn, round by round:

    plain   the authors' way: in every epoch each training image, flipped or not, passes the frozen
            backbone anew (images lie decoded in memory), and torch's SGD trains a linear layer
    cached  the suite's: two extractions, of the images and of their mirror images, and the same
            epochs on the features; extraction counted. Order and flips are those of `plain`

    single  the suite's probe once for every rate of the grid
    grid    all rates at once

The backbone is an untrained narrow ResNet-18, since only its cost matters; the grid is trained on
512 random features of the pixels, as many as a ResNet-18 has. Writes
benchmarks/results/linear_probe.json and .md. Exit code 1 if `cached` is less than 20 times as fast
as `plain`, or an accuracy differs by more than 0.1 points. Under 5 minutes on two CPU cores.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from logistic import read_images
from recording import compare, record, side_by_side, surroundings
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

from clsp.config.evaluation import LinearSpec
from clsp.config.recipe import Normalisation
from clsp.config.schema import EncoderSpec
from clsp.evaluate.linear import (
    Samples,
    decay_of,
    initial_layer,
    linear_logits,
    load_samples,
    rows_of_epoch,
    train_linear,
    train_rates,
)
from clsp.models.encoder import Encoder, normalise
from clsp.models.features import FrozenEncoder, batch_size_for, extract

STATISTICS = Normalisation(mean=(0.49, 0.48, 0.45), std=(0.25, 0.24, 0.26))
SPEC = LinearSpec(  # the authors' (methods.md 4), but for the rate: these features are not trained
    epochs=100,
    batch_size=256,
    learning_rate=0.1,
    momentum=0.0,
    weight_decay=0.0,
    milestones=(60, 80),
    decay=0.1,
    flip=True,
)
# Up to where training is stable: beyond, rounding grows to another solution.
RATES = tuple(float(f"{rate:.3g}") for rate in np.logspace(-4, -1.3, 10))
FEATURES = 512
FASTER, EQUAL = 20.0, 0.1  # times; points
Split = tuple[np.ndarray, np.ndarray]  # uint8 (N, H, W, 3), int64 (N,)


def load(folder: Path | None, train: int, test: int) -> tuple[Split, Split]:
    """Training and test images with their classes; `train` and `test` are images per class."""
    if folder is not None:
        return read_images(folder / "train", train), read_images(folder / "test", test)
    digits = load_digits()
    images = np.repeat((digits.images * 15).astype(np.uint8)[..., None], 3, axis=3)
    labels, count = digits.target.astype(np.int64), min(10 * train, 1297)
    held = slice(count, count + 10 * test)
    return (images[:count], labels[:count]), (images[held], labels[held])


def untrained(width: int, images: np.ndarray, device: torch.device) -> FrozenEncoder:
    """A narrow encoder whose batch-norm statistics are those of some images."""
    torch.manual_seed(0)
    spec = EncoderSpec(architecture="resnet18", stem="small", width=width)
    encoder = Encoder(spec).to(device).train()
    with torch.no_grad():
        for start in range(0, len(images), 500):
            batch = torch.from_numpy(images[start : start + 500]).to(device)
            encoder(normalise(batch, STATISTICS))
    frozen = encoder.eval().requires_grad_(False)
    return FrozenEncoder(frozen, STATISTICS, device, Path("untrained"), "untrained", None)


def plain(source: FrozenEncoder, train: Split, test: Split) -> np.ndarray:
    """Logits of the test images; the backbone runs in every epoch."""
    images, labels = (torch.from_numpy(part).to(source.device) for part in train)
    count, classes = len(labels), int(labels.max()) + 1
    layer = nn.Linear(source.encoder.features, classes).to(source.device)
    with torch.no_grad():
        first = initial_layer(source.encoder.features, classes, 0)
        for own, drawn in zip(layer.parameters(), first, strict=True):
            own.copy_(drawn)
    optimizer = torch.optim.SGD(layer.parameters(), lr=SPEC.learning_rate)
    for epoch in range(SPEC.epochs):
        optimizer.param_groups[0]["lr"] = SPEC.learning_rate * decay_of(SPEC, epoch)
        rows = torch.from_numpy(rows_of_epoch(SPEC, count, 0, epoch)).to(source.device)
        for batch in rows.split(SPEC.batch_size):
            chosen, flips = images[batch % count], (batch >= count)[:, None, None, None]
            with torch.no_grad():
                views = torch.where(flips, chosen.flip(2), chosen)
                features = source.encoder(normalise(views, STATISTICS))
            loss = functional.cross_entropy(layer(features), labels[batch % count])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return np.concatenate(
            [
                layer(source.encoder(normalise(part.to(source.device), STATISTICS))).cpu().numpy()
                for part in torch.from_numpy(test[0]).split(SPEC.batch_size)
            ]
        )


def cached(source: FrozenEncoder, train: Split, test: Split) -> np.ndarray:
    """Logits of the test images; the backbone sees every image twice."""
    size = batch_size_for(train[0])
    copies = [extract(source, train[0], size, "features", mirrored) for mirrored in (False, True)]
    samples = load_samples(copies, train[1], int(train[1].max()) + 1, source.device)
    layer = train_linear(SPEC, samples, seed=0, label="linear")
    return linear_logits(extract(source, test[0], size, "features"), *layer)


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Percent."""
    return 100 * float((logits.argmax(1) == labels).mean())


def backbone(
    source: FrozenEncoder, train: Split, test: Split, rounds: int
) -> tuple[list[dict[str, Any]], float]:
    """The first comparison, and the largest difference of the logits of both."""
    logits: dict[str, np.ndarray] = {}

    def keep(name: str, work: Callable[..., np.ndarray]) -> Callable[[], None]:
        return lambda: logits.update({name: work(source, train, test)})

    work = {"plain": keep("plain", plain), "cached": keep("cached", cached)}
    rows = compare(side_by_side(work, rounds, source.device, warm_up=0), "plain")
    for row in rows:
        row["accuracy"] = accuracy(logits[row["variant"]], test[1])
    return rows, float(np.abs(logits["plain"] - logits["cached"]).max())


def random_features(images: np.ndarray) -> np.ndarray:
    """512 random half-planes of the pixels, float32 (N, 512)."""
    stream = torch.Generator().manual_seed(0)
    pixels = torch.from_numpy(images).flatten(1) / 127.5 - 1
    width = pixels.shape[1]
    axes = torch.randn(width, FEATURES, generator=stream) / width**0.5
    return functional.relu(pixels @ axes).numpy()


def grid(train: Split, test: Split, device: torch.device, rounds: int) -> list[dict[str, Any]]:
    """The second comparison; `accuracy` is the best over rates, `apart` the largest difference."""
    spec = SPEC.model_copy(update={"flip": False})
    inputs, classes = random_features(train[0]), int(train[1].max()) + 1
    samples: Samples = load_samples([inputs], train[1], classes, device)
    layers: dict[str, Any] = {}

    def single() -> None:
        layers["single"] = [
            train_linear(
                spec.model_copy(update={"learning_rate": rate}), samples, seed=0, label="single"
            )
            for rate in RATES
        ]

    def at_once() -> None:
        found = train_rates(spec, samples, RATES, seed=0, label="grid")
        layers["grid"] = list(zip(*found, strict=True))

    rows = compare(side_by_side({"single": single, "grid": at_once}, rounds, device, 0), "single")
    features = random_features(test[0])
    by_rate = {
        name: [accuracy(linear_logits(features, *layer), test[1]) for layer in trained]
        for name, trained in layers.items()
    }
    for row in rows:
        mine = by_rate[row["variant"]]
        row["accuracy"], row["by_rate"] = max(mine), mine
        row["apart"] = max(abs(a - b) for a, b in zip(mine, by_rate["single"], strict=True))
    return rows


def main() -> int:
    """Exit code 1 if caching saves too little or changes a result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="folder with train/ and test/")
    parser.add_argument("--train", type=int, default=60, help="images per class for the backbone")
    parser.add_argument("--grid-train", type=int, default=500, help="images per class for the grid")
    parser.add_argument("--test", type=int, default=30, help="test images per class, the same")
    parser.add_argument("--grid-test", type=int, default=200, help="of the grid")
    parser.add_argument("--width", type=int, default=16, help="of the backbone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", default="linear_probe", help="of the files with the results")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = torch.device(given.device)
    train, test = load(given.images, given.train, given.test)
    source = untrained(given.width, train[0], device)
    first, apart = backbone(source, train, test, given.rounds)
    more = load(given.images, given.grid_train, given.grid_test)
    second = grid(*more, device, given.rounds)
    about = surroundings(device, "numpy", "scikit-learn")
    about["images"] = given.images.name if given.images else "scikit-learn's digits"
    about["backbone"] = f"ResNet-18 of width {given.width}, {len(train[0])} training images"
    about["grid"] = f"{len(RATES)} rates, {FEATURES} features, {len(more[0][0])} training images"
    plain_row, cached_row = first
    difference = abs(plain_row["accuracy"] - cached_row["accuracy"])
    notes = [
        f"{SPEC.epochs} epochs. plain and cached, {len(test[0])} test images: {difference:.2f} "
        f"points apart, logits by at most {apart:.2g}.",
        f"single and grid, {len(more[1][0])} test images: at most {second[1]['apart']:.2f} points "
        "apart at any rate; the table shows the best rate's accuracy.",
    ]
    print(record(given.name, about, [*first, *second], notes, extra=("accuracy",)))
    same = difference <= EQUAL and second[1]["apart"] <= EQUAL
    return int(cached_row["ratio"] < FASTER or not same)


if __name__ == "__main__":
    sys.exit(main())
