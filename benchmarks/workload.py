"""The training that speed is measured on: CLSP-SimCLR and SimCLR on CIFAR-sized images.

The recipe is the CLSP authors' for CIFAR-10 (configs/recipes/clsp_cifar.yaml): its views, SGD, and
loss, with one joint forward pass. The encoder is a ResNet-18: the authors' on a GPU, a narrow one
on a CPU. Imported by loop.py and roofline.py; no program of its own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import Image

from clsp.config.execution import switches
from clsp.config.schema import RunSpec
from clsp.data.bank import INDEX, identity
from clsp.data.prepared import Prepared
from clsp.pretrain.feed import Feed
from clsp.pretrain.journal import Journal
from clsp.pretrain.loop import Course
from clsp.pretrain.resume import Resume
from clsp.pretrain.setup import Setup, set_up
from clsp.pretrain.watch import Watch
from clsp.runtime.canonical import sha256_array
from clsp.runtime.device import resolve
from clsp.runtime.history import StepLog
from clsp.runtime.keys import numpy_stream
from clsp.runtime.manifest import Artefact, write_manifest
from clsp.runtime.stopping import Stop

SIZE, CANDIDATES, SEED = 32, 2, 0
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)  # the authors', of CIFAR-10
TEMPERATURE, WEIGHT = 0.2, 1.0
RATE, MOMENTUM, DECAY = 0.05, 0.9, 1e-4  # a rate that neither diverges nor matters for speed
JITTER = {"probability": 0.8, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
VIEWS = {
    "crop_scale": (0.08, 1.0),
    "crop_ratio": (3 / 4, 4 / 3),
    "interpolation": "bilinear",
    "flip": 0.5,
    "jitter": JITTER,
    "grayscale": 0.2,
    "solarize": 0.0,
}
EXACT = {
    "precision": "full",
    "compile": False,
    "fused": False,
    "deterministic": True,
    "views": "device",
}
MODES: dict[str, dict[str, Any]] = {
    "exact": EXACT,
    "torchvision views": {**EXACT, "views": "torchvision"},
    "bf16": {**EXACT, "precision": "bf16"},
    "compile": {**EXACT, "compile": True},
    "not deterministic": {**EXACT, "deterministic": False},
    "fast": {
        "precision": "bf16",
        "compile": True,
        "fused": True,
        "deterministic": False,
        "views": "device",
    },
}


@dataclass(frozen=True)
class Scale:
    """How large the network and its batches are."""

    width: int  # of the encoder; 64 is ResNet-18's own
    hidden: int
    projection: int
    batch: int


SCALES = {"cpu": Scale(8, 256, 64, 256), "cuda": Scale(64, 4096, 256, 1024)}


def drawn_images(count: int) -> np.ndarray:
    """Smooth pictures with some grain, uint8 (count, SIZE, SIZE, 3)."""
    stream, images = numpy_stream(SEED, "benchmark images"), []
    for _ in range(count):
        coarse = Image.fromarray(stream.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        images.append((smooth + stream.normal(0, 7, (SIZE, SIZE, 1))).clip(0, 255).astype(np.uint8))
    return np.stack(images)


def read_images(folder: Path, count: int) -> np.ndarray:
    """Images of a folder train/<class>/*, evenly by class, uint8 (count, SIZE, SIZE, 3)."""
    paths = sorted(folder.glob("train/*/*"))
    chosen = [paths[row] for row in np.linspace(0, len(paths) - 1, count).astype(int)]
    sides = (SIZE, SIZE)
    return np.stack([np.asarray(Image.open(p).convert("RGB").resize(sides)) for p in chosen])


def prepared(images: np.ndarray) -> Prepared:
    """A dataset of these images in memory; half of their labels are 0, half 1."""
    labels = np.arange(len(images)) % 2
    card = {
        "kind": "benchmark",
        "size": SIZE,
        "classes": ["a", "b"],
        "splits": {"train": [0, len(images)], "val": [len(images)] * 2, "test": [len(images)] * 2},
        "mean": list(MEAN),
        "std": list(STD),
        "images_sha256": sha256_array(images),
        "labels_sha256": sha256_array(labels),
        "source_sha256": sha256_array(images),
    }
    return Prepared(images, labels, card)


def write_bank(folder: Path, dataset: Prepared) -> Artefact:
    """A bank whose candidates are the anchors, rolled by some pixels."""
    folder.mkdir()
    rolled = [np.roll(dataset.images, number + 1, axis=2) for number in range(CANDIDATES)]
    index = np.zeros(len(dataset.images) * CANDIDATES, INDEX)
    np.save(folder / "images.npy", np.stack(rolled, axis=1))
    np.save(folder / "index.npy", index)
    predicate = {
        "step": "gather-bank",
        "externalParameters": {"spec": {}, "arguments": {}},
        "metrics": {},
        "counters": {},
        "facts": {"dataset": identity(dataset), "label_conditioned": False},
    }
    files = {name: folder / name for name in ("images.npy", "index.npy")}
    return write_manifest(folder / "manifest.json", files, [], predicate)


def run_spec(scale: Scale, views: int, mode: str) -> RunSpec:
    """SimCLR (2 views) or CLSP-SimCLR (3 views) in one of the modes."""
    values = {
        "dataset": "benchmark",
        "normalisation": {"mean": MEAN, "std": STD},
        "encoder": {"architecture": "resnet18", "stem": "small", "width": scale.width},
        "method": "simclr",
        "method_options": {
            "temperature": TEMPERATURE,
            "hidden": scale.hidden,
            "projection": scale.projection,
            "forward": "joint",
        },
        "positives": "bank" if views == 3 else "none",
        "positives_options": {},
        "bank": "benchmark.mix" if views == 3 else None,
        "alignment_weight": WEIGHT if views == 3 else 0.0,
        "recipe": {
            "family": "benchmark",
            "epochs": 10**6,
            "batch_size": scale.batch,
            "optimizer": "sgd",
            "learning_rate": RATE,
            "learning_rate_scaling": "none",
            "momentum": MOMENTUM,
            "weight_decay": DECAY,
            "weight_decay_on": "all",
            "schedule": "epoch",
            "warmup_epochs": 0,
            "warmup_start": 0.0,
            "views": VIEWS,
        },
        "execution": None if mode == "exact" else MODES[mode],
        "seed": SEED,
    }
    return RunSpec.model_validate(values)


class Suite:
    """A run of the suite, taken step by step, with everything that a run does."""

    def __init__(self, spec: RunSpec, dataset: Prepared, bank: Artefact, folder: Path) -> None:
        given = {"bank": [bank] if spec.positives == "bank" else [], "pairs": []}
        device = resolve(switches(spec.execution).deterministic)
        self.setup: Setup = set_up(spec, dataset, given, device)
        labels = torch.from_numpy(dataset.labels).to(device)
        watch = Watch(self.setup.method, labels, spec.recipe.epochs)
        resume = Resume(folder, "benchmark", self.setup.method, self.setup.optimizer)
        journal = Journal(StepLog(folder / "log.jsonl"))
        self.course = Course(self.setup, watch, resume.restore(), journal, resume)
        self.feed, self.stop = Feed(self.setup), Stop(None)

    def enter(self) -> None:
        """Choose kernels as this run asks: torch has one setting, and runs take turns."""
        resolve(self.setup.execution.deterministic)

    def steps(self, count: int) -> None:
        """Take so many steps and write their log."""
        self.enter()
        for _ in range(count):
            self.course.advance(self.feed.batch(self.course.position.step))
            self.course.keep(self.stop)
        self.course.journal.flush()


@contextmanager
def suites(
    wanted: dict[str, RunSpec], dataset: Prepared
) -> Iterator[tuple[dict[str, Suite], np.ndarray]]:
    """Runs by name, and the candidates (N, CANDIDATES, SIZE, SIZE, 3) that they see."""
    with TemporaryDirectory() as scratch:
        bank = write_bank(Path(scratch) / "bank", dataset)
        made = {}
        for number, (name, spec) in enumerate(wanted.items()):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            made[name] = Suite(spec, dataset, bank, folder)
        yield made, np.load(bank.path("images.npy"), mmap_mode="r")
        for one in made.values():
            one.course.resume.close()
