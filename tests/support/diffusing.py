"""Tiny artefacts for tests of diffusion and synthesis: a dataset, a denoiser, shards, a bank."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from clsp.config.denoisers import DenoiserSpec
from clsp.config.schema import BankSpec
from clsp.models.denoiser import build_denoiser
from clsp.runtime.canonical import canonical_json, sha256_array
from clsp.runtime.manifest import Artefact, write_manifest
from clsp.runtime.stage import Outcome
from clsp.synthesis.contract import Request
from clsp.synthesis.gather import gather_bank
from clsp.synthesis.shard import generate_shard

DENOISER = {
    "dataset": "tiny",
    "channels": [8, 8],
    "attention": [False, True],
    "layers_per_block": 1,
    "norm_groups": 4,
    "dropout": 0.1,
    "train_timesteps": 100,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.01,
    "warmup_steps": 2,
    "gradient_clip": 1.0,
    "ema_decay": 0.9,
    "flip": 0.5,
    "seed": 0,
}
BANK = {
    "generator": "interpolate",
    "denoiser": "tiny",
    "dataset": "tiny",
    "candidates": 2,
    "interpolation_weight": 0.1,
    "steps": 4,
    "eta": 0.5,
    "rounding": "nearest",
    "batch_size": 5,
    "seed": 0,
}


def denoiser_spec(**changed: Any) -> DenoiserSpec:
    return DenoiserSpec.model_validate({**DENOISER, **changed})


def bank_spec(**changed: Any) -> BankSpec:
    return BankSpec.model_validate({**BANK, **changed})


def write_artefact(
    folder: Path,
    stage: str,
    spec: dict[str, Any],
    names: list[str],
    facts: dict[str, Any],
    shard: str | None = None,
) -> Artefact:
    """The manifest that clsp.job would write beside finished files."""
    predicate = {
        "step": stage,
        "externalParameters": {"spec": spec, "arguments": {"shard": shard} if shard else {}},
        "facts": facts,
        "metrics": {},
    }
    outputs = {name: folder / name for name in names}
    ending = f"{shard}.manifest.json" if shard else "manifest.json"
    return write_manifest(folder / ending, outputs, [], predicate)


def write_dataset(folder: Path, anchors: int = 9, size: int = 8, seed: int = 0) -> Artefact:
    """A prepared dataset of random images, `anchors` of them for training and 3 for testing."""
    folder.mkdir(parents=True)
    drawn = np.random.default_rng(seed)
    images = drawn.integers(0, 256, (anchors + 3, size, size, 3), dtype=np.uint8)
    labels = drawn.integers(0, 3, anchors + 3)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)
    card = {
        "kind": "tiny",
        "size": size,
        "classes": ["a", "b", "c"],
        "splits": {
            "train": [0, anchors],
            "val": [anchors, anchors],
            "test": [anchors, anchors + 3],
        },
        "mean": [0.5, 0.5, 0.5],
        "std": [0.3, 0.3, 0.3],
        "images_sha256": sha256_array(images),
        "labels_sha256": sha256_array(labels),
        "source_sha256": sha256_array(images[:anchors]),
    }
    (folder / "card.json").write_text(canonical_json(card))
    names = ["images.npy", "labels.npy", "card.json"]
    return write_artefact(folder, "prepare-dataset", {"kind": "tiny", "size": size}, names, {})


def write_denoiser(folder: Path, size: int = 8, **changed: Any) -> Artefact:
    """A denoiser whose every layer matters: without the initial gains of 1e-5."""
    spec = denoiser_spec(**changed)
    unet = build_denoiser(spec, size, classes=3 if spec.uses_labels else None)
    generator = torch.Generator().manual_seed(1)
    for parameter in unet.parameters():
        if parameter.ndim > 1:
            torch.nn.init.xavier_uniform_(parameter.data, 1.0, generator)
    unet.save_pretrained(folder / "unet")
    return write_artefact(folder, "train-denoiser", spec.canonical(), ["unet"], {})


def request_of(
    anchors: torch.Tensor,
    rows: torch.Tensor,
    candidates: torch.Tensor,
    seed: int = 0,
    labels: torch.Tensor | None = None,
) -> Request:
    """A batch of pairs: image, row and class of each pair's anchor given once per pair."""
    distinct, which = torch.unique(rows, return_inverse=True)
    first = torch.tensor([rows.tolist().index(row) for row in distinct.tolist()])
    classes = None if labels is None else labels[first]
    return Request(anchors[first], distinct, which, candidates, classes, seed)


class Factory:
    """Runs the stages of synthesis in one folder, as clsp.job would."""

    def __init__(self, root: Path, anchors: int = 9, **denoiser: Any) -> None:
        self.root = root
        self.dataset = write_dataset(root / "data", anchors)
        self.denoiser = write_denoiser(root / "denoiser", **denoiser)

    def shard(self, spec: BankSpec, name: str, folder: str = "shards") -> Artefact:
        """Generate one shard and write its manifest."""
        home = self.root / folder
        home.mkdir(exist_ok=True)
        done = generate_shard(
            spec, name, self.denoiser, self.dataset, home / f"{name}.npy", self.scratch(name)
        )
        files = [f"{name}.npy"]
        return write_artefact(
            home, "generate-shard", spec.canonical(), files, done.facts, shard=name
        )

    def scratch(self, name: str) -> Path:
        """The scratch folder of one shard."""
        return self.root / "scratch" / name

    def images(self, spec: BankSpec, shards: int, folder: str) -> np.ndarray:
        """All shards of a bank, joined; (N, K, H, W, 3)."""
        names = [f"{i}-of-{shards}" for i in range(1, shards + 1)]
        made = [self.shard(spec, name, folder) for name in names]
        return np.concatenate([np.load(m.folder / next(iter(m.subjects))) for m in made])

    def gather(self, spec: BankSpec, shards: list[Artefact]) -> tuple[Artefact, Outcome]:
        """Gather a bank and write its manifest."""
        home = self.root / "bank"
        home.mkdir(exist_ok=True)
        done = gather_bank(spec, shards, self.dataset, home / "images.npy", home / "index.npy")
        files = ["images.npy", "index.npy"]
        return write_artefact(home, "gather-bank", spec.canonical(), files, done.facts), done
