"""Fixtures: a tiny bank beside its dataset, and what measure-bank makes of them."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from frozen import _artefact

from clsp.config.evaluation import LinearSpec
from clsp.config.quality import QualitySpec
from clsp.data.bank import INDEX, identity
from clsp.data.prepared import open_prepared
from clsp.evaluate.quality import measure_bank
from clsp.runtime.canonical import read_json
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import Outcome

RUN = "digits.tiny.simclr.none.s0"
BANK = "digits.mix"
PROBE = LinearSpec(
    epochs=20,
    batch_size=16,
    learning_rate=0.5,
    momentum=0.0,
    weight_decay=0.0,
    milestones=(),
    decay=0.1,
    flip=False,
)


@dataclass(frozen=True)
class Result:
    """What one call of the stage gave."""

    outcome: Outcome
    document: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def numbers(self, k: int) -> dict[str, float]:
        """The numbers of the first k candidates."""
        (found,) = [r["numbers"] for r in self.document["quality"] if r["k"] == k]
        return found


def quality_spec(**changes: Any) -> QualitySpec:
    """What is measured of the tiny bank."""
    fields = {
        "encoder": RUN,
        "anchors": 20,
        "candidates": (1, 3),
        "near_copy": 0.5,
        "seed": 0,
        "bank": BANK,
        "dataset": "digits",
        "label_agreement": PROBE,
    }
    return QualitySpec(**{**fields, **changes})


def draw_candidates(images: np.ndarray, count: int, seed: int = 5) -> np.ndarray:
    """Anchors (N, H, W, 3) with noise: uint8 (N, count, H, W, 3)."""
    noise = np.random.default_rng(seed).normal(0, 30, (len(images), count, *images.shape[1:]))
    return np.clip(images[:, None] + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def make_bank(tmp_path: Path) -> Callable[..., Artefact]:
    """Build a gathered bank of given candidates: make_bank(dataset, candidates)."""

    def make(dataset: Artefact, candidates: np.ndarray | None = None, name: str = BANK) -> Artefact:
        prepared = open_prepared(dataset)
        if candidates is None:
            candidates = draw_candidates(np.array(prepared.split("train").images), 4)
        folder = tmp_path / "banks" / name
        folder.mkdir(parents=True)
        np.save(folder / "images.npy", candidates)
        np.save(folder / "index.npy", np.zeros(candidates.shape[0] * candidates.shape[1], INDEX))
        facts = {"dataset": identity(prepared), "label_conditioned": False}
        names = ["images.npy", "index.npy"]
        return _artefact(folder, "gather-bank", {"seed": 3}, names, facts)

    return make


@pytest.fixture
def measure(tmp_path: Path) -> Callable[..., Result]:
    """Run the stage: measure(spec, bank, dataset, [encoder])."""

    def call(
        spec: QualitySpec, bank: Artefact, dataset: Artefact, encoder: list[Artefact]
    ) -> Result:
        numbers, arrays = tmp_path / "quality.json", tmp_path / "quality.npz"
        outcome = measure_bank(spec, bank, dataset, encoder, numbers, arrays)
        with np.load(arrays, allow_pickle=False) as stored:
            found = {name: stored[name] for name in stored.files}
        return Result(outcome, read_json(numbers), found)

    return call
