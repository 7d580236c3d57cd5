"""Stands in for the process that computes samples again: it knows the tree before any fault."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from injecting import Tree

from clsp.runtime.canonical import sha256_file
from clsp.runtime.history import read_history
from clsp.runtime.manifest import Artefact

STEPS = 3


class StandIn:
    """Answers as the suite would for an honest tree; `answers.json` beside it changes answers."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        folders = [path.parent for path in tree.results.glob("banks/*/manifest.json")]
        self.banks = {f.name: np.load(f / "images.npy") for f in folders}
        self.datasets = {
            folder.name: {path.name: sha256_file(path) for path in folder.iterdir()}
            for folder in (path.parent for path in tree.results.glob("data/*/card.json"))
        }
        cards = {
            path.parent.name: json.loads(path.read_text())
            for path in tree.results.glob("data/*/card.json")
        }
        self.counts = {name: card["counts"] for name, card in cards.items()}
        logs = tree.results.glob("runs/*/history.jsonl")
        self.logs = {path.parent.name: read_history(path) for path in logs}

    def candidates(
        self, shard: Artefact, denoiser: Artefact, dataset: Artefact, pairs: np.ndarray
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Images as they were drawn."""
        images = self.banks[shard.folder.parent.name]
        drawn = np.stack([images[anchor, candidate] for anchor, candidate in pairs])
        return drawn, {"device": "cpu", "machine": {"versions": {}}}

    def dataset(self, prepared: Artefact, raw: Sequence[Artefact]) -> dict[str, Any]:
        """Digests as they were."""
        name = prepared.folder.name
        files = {n: digest for n, digest in self.datasets[name].items() if n != "manifest.json"}
        return {
            "files": {**files, **self._told().get("files", {}).get(name, {})},
            "counts": self.counts[name],
            "machine": prepared.predicate["internalParameters"],
        }

    def _told(self) -> dict[str, Any]:
        """Answers that a fault changes."""
        path = self.tree.results.parent / "answers.json"
        return json.loads(path.read_text()) if path.is_file() else {}

    def training(self, run: Artefact, inputs: Sequence[Artefact], seed: int) -> dict[str, Any]:
        """The step log as it was, and equal weights under permuted labels."""
        records = self.logs[run.folder.name]
        answer = {
            "records": records[:STEPS],
            "middle": records[STEPS],
            "start": True,
            "teacher_gap": None,
            "digest": "1" * 64,
            "permuted_digest": "1" * 64,
            "machine": run.predicate["internalParameters"],
        }
        return {**answer, **self._told()}
