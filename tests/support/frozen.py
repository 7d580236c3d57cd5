"""Fixtures: tiny prepared datasets and encoder artefacts, as evaluation and mining read them.

A conftest.py imports those that its tests take.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clsp.config.evaluation import FeatureSpec
from clsp.config.recipe import Normalisation
from clsp.config.schema import EncoderSpec
from clsp.evaluate.extract import extract_features
from clsp.models.encoder import START, Encoder, save_encoder
from clsp.runtime.canonical import canonical_json, sha256_array
from clsp.runtime.checkpoint import save_tensors
from clsp.runtime.manifest import Artefact, write_manifest

STATISTICS = Normalisation(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
ENCODER = EncoderSpec(architecture="resnet18", stem="small", width=4)
SPLITS = {"train": 48, "val": 0, "test": 24}


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run on the CPU and print plain progress."""
    monkeypatch.setenv("CLSP_DEVICE", "cpu")
    monkeypatch.setenv("CLSP_PROGRESS", "plain")


def draw_images(labels: np.ndarray, classes: int, seed: int, side: int = 8) -> np.ndarray:
    """Noise around one prototype per class, so that even a random encoder separates them."""
    prototypes = np.random.default_rng(99).integers(0, 256, (classes, side, side, 3))
    noise = np.random.default_rng(seed).normal(0, 25, (len(labels), side, side, 3))
    return np.clip(prototypes[labels] + noise, 0, 255).astype(np.uint8)


def _artefact(
    folder: Path,
    stage: str,
    spec: dict[str, Any],
    names: list[str],
    facts: dict[str, Any] | None = None,
) -> Artefact:
    predicate = {
        "step": stage,
        "externalParameters": {"spec": spec, "arguments": {}},
        "metrics": {},
        "facts": facts or {},
    }
    return write_manifest(folder / "manifest.json", {n: folder / n for n in names}, [], predicate)


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Artefact]:
    """Build a prepared dataset: make_dataset("digits", classes=3, metric="top1", ...)."""

    def make(
        name: str = "digits",
        *,
        classes: int = 3,
        splits: dict[str, int] | None = None,
        metric: str = "top1",
        labels: np.ndarray | None = None,
        seed: int = 0,
        **card: Any,
    ) -> Artefact:
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        stops = np.cumsum([(splits or SPLITS)[key] for key in ("train", "val", "test")])
        count = int(stops[-1])
        if labels is None:
            labels = np.arange(count) % classes
        several = labels.ndim == 2  # 1 for each class that an image shows
        labels = labels.astype(np.uint8 if several else np.int64)
        images = draw_images(labels.argmax(1) if several else labels % classes, classes, seed)[
            :count
        ]
        np.save(folder / "images.npy", images)
        np.save(folder / "labels.npy", labels)
        starts = [0, *(int(stop) for stop in stops)]
        text = {
            "kind": "digits",
            "size": 8,
            "classes": [f"class{i}" for i in range(classes)],
            "splits": {key: starts[i : i + 2] for i, key in enumerate(("train", "val", "test"))},
            "mean": [0.5, 0.5, 0.5],
            "std": [0.2, 0.2, 0.2],
            "images_sha256": sha256_array(images),
            "labels_sha256": sha256_array(labels),
            "source_sha256": sha256_array(images[: int(stops[0])]),
            "metric": metric,
            "multilabel": several,
            **card,
        }
        text = {key: value for key, value in text.items() if value is not None}
        (folder / "card.json").write_text(canonical_json(text))
        return _artefact(
            folder, "prepare-dataset", {"kind": "digits"}, ["images.npy", "labels.npy", "card.json"]
        )

    return make


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Artefact]:
    """Build the artefact of a pretraining run with a random encoder."""

    def make(
        slug: str = "digits.tiny.simclr.none.s0",
        dataset: str = "digits",
        stage: str = "pretrain-encoder",
        scale: float = 1.0,
        label_free: bool = True,
    ) -> Artefact:
        folder = tmp_path / "runs" / slug
        folder.mkdir(parents=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            encoder = Encoder(ENCODER)
            for module in encoder.modules():  # statistics of their own, as after training
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1)
                    module.running_var.uniform_(0.5, 1.5)
        with torch.no_grad():
            encoder.conv1.weight.mul_(scale)
        save_encoder(folder / "encoder.safetensors", encoder, ENCODER, STATISTICS)
        save_tensors(folder / START, untrained(), {})
        spec = {"dataset": dataset, "recipe": {"epochs": 20}, "seed": 0}
        facts = {"label_free": label_free}
        return _artefact(folder, stage, spec, ["encoder.safetensors", START], facts)

    return make


def untrained() -> dict[str, torch.Tensor]:
    """A snapshot of a method before its first step, as pretraining keeps it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        encoder, head = Encoder(ENCODER), torch.nn.Linear(8 * ENCODER.width, 3)
    method = torch.nn.ModuleDict({"encoder": encoder, "momentum_encoder": encoder, "head": head})
    return {name: tensor.clone() for name, tensor in method.state_dict().items()}


@pytest.fixture
def make_features(tmp_path: Path) -> Callable[..., Artefact]:
    """Build the feature cache of a run or floor: make_features(run, [dataset], own="digits", ...)."""

    def make(
        encoder: Artefact | None,
        datasets: list[Artefact],
        *,
        slug: str | None = None,
        source: str = "encoder",
        own: str | None = None,
        mirrored: bool = False,
    ) -> Artefact:
        slug = slug or encoder.folder.name
        names = [artefact.folder.name for artefact in datasets]
        spec = FeatureSpec(
            run=slug,
            source=source,
            own=own,
            mirrored=mirrored,
            tasks=[name for name in names if name != own],
        )
        folder = tmp_path / "features" / slug
        folder.mkdir(parents=True)
        given = [] if encoder is None else [encoder]
        outcome = extract_features(spec, given, datasets, folder / "features.safetensors")
        return _artefact(
            folder, "extract-features", spec.canonical(), ["features.safetensors"], outcome.facts
        )

    return make
