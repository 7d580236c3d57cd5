"""Asks the suite to compute samples again, in a process of its own (audit.md A11, A12, A16).

The audit imports neither torch nor any model. `python -m clsp replay` does, reads artefacts without
changing them and writes its answer into a temporary folder.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from clsp.audit.level import DEFAULT, L3, reaches
from clsp.runtime.canonical import read_json
from clsp.runtime.errors import IncompleteError
from clsp.runtime.manifest import Artefact

STEPS = 20  # of training, from the first on (audit.md A11)
TOLD = 300  # characters of a failed replay's last words that are kept


class Replayer(Protocol):
    """Computes samples again."""

    def candidates(
        self, shard: Artefact, denoiser: Artefact, dataset: Artefact, pairs: np.ndarray
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw candidates of a bank again.

        Args:
            shard: Any shard of the bank; gives the settings.
            denoiser: That draws.
            dataset: Of the anchors.
            pairs: Rows (anchor, candidate), int64 (P, 2).

        Returns:
            uint8 (P, H, W, 3), and what they were drawn on.

        Raises:
            IncompleteError: If it cannot be done here.
        """

    def dataset(self, prepared: Artefact, raw: Sequence[Artefact]) -> dict[str, Any]:
        """Prepare a dataset again.

        Args:
            prepared: The dataset; gives the settings.
            raw: Its fetched files, where its kind has some.

        Returns:
            files: name -> sha256; counts: images of each class by split; machine: what it ran on.

        Raises:
            IncompleteError: If it cannot be done here.
        """

    def training(self, run: Artefact, inputs: Sequence[Artefact], seed: int) -> dict[str, Any]:
        """Repeat the first steps of a run.

        Args:
            run: The run.
            inputs: Its dataset and, where it read one, its bank or pairs.
            seed: Of the permutation of labels.

        Returns:
            records: step log of the first steps; middle: record of the step behind the middle
            checkpoint, or None; start: whether fresh weights are those of the first checkpoint;
            teacher_gap: largest deviation of a moving average from its closed form, or None;
            digest, permuted_digest: weights after two steps, also with permuted labels (None where
            the run uses labels); machine: what it ran on.

        Raises:
            IncompleteError: If it cannot be done here.
        """


@dataclass
class Depth:
    """How deep an audit goes.

    Attributes:
        level: Of the audit.
        nonce: Decides, with the ledger's head, what is sampled.
        replayer: Computes samples again at L3; None: nothing is.
        samples: Candidates of a bank that are drawn again. 32 miss a tenth of forged ones with
            probability 0.034, 128 a twentieth with 0.0014 (audit.md A11).
        runs: Runs whose first steps are repeated, at most.
        done: Runs, banks and datasets that came out as they are stored.
        answers: What was computed again, by run.
    """

    level: str = DEFAULT
    nonce: str = ""
    replayer: Replayer | None = None
    samples: int = 32
    runs: int = 3
    done: set[str] = field(default_factory=set)
    answers: dict[str, Any] = field(default_factory=dict)

    @property
    def replays(self) -> bool:
        """Whether this audit computes samples again."""
        return self.replayer is not None and reaches(self.level, L3)


def _run(arguments: list[str]) -> None:
    command = [sys.executable, "-P", "-m", "clsp", "replay", *arguments]
    folder = Path(__file__).parents[2]
    given = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(command, capture_output=True, text=True, env=given)
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        raise IncompleteError(f"the replay ended with code {done.returncode}: {last}"[:TOLD])


class Subprocess:
    """The real replayer."""

    def candidates(
        self, shard: Artefact, denoiser: Artefact, dataset: Artefact, pairs: np.ndarray
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw candidates again; see `Replayer`."""
        with tempfile.TemporaryDirectory(prefix="clsp-replay-") as folder:
            out = Path(folder)
            np.save(out / "pairs.npy", pairs)
            given = {"shard": shard, "denoiser": denoiser, "dataset": dataset}
            flags = [part for name, a in given.items() for part in (f"--{name}", str(a.manifest))]
            _run(["candidates", *flags, "--pairs", str(out / "pairs.npy"), "--out", folder])
            return np.load(out / "images.npy", allow_pickle=False), read_json(out / "replay.json")

    def dataset(self, prepared: Artefact, raw: Sequence[Artefact]) -> dict[str, Any]:
        """Prepare a dataset again; see `Replayer`."""
        with tempfile.TemporaryDirectory(prefix="clsp-replay-") as folder:
            flags = ["--dataset", str(prepared.manifest), "--out", folder]
            flags += ["--raw", *(str(artefact.manifest) for artefact in raw)] if raw else []
            _run(["dataset", *flags])
            return read_json(Path(folder) / "replay.json")

    def training(self, run: Artefact, inputs: Sequence[Artefact], seed: int) -> dict[str, Any]:
        """Repeat the first steps of a run; see `Replayer`."""
        with tempfile.TemporaryDirectory(prefix="clsp-replay-") as folder:
            read = [str(artefact.manifest) for artefact in inputs]
            flags = ["--run", str(run.manifest), "--inputs", *read, "--steps", str(STEPS)]
            _run(["training", *flags, "--permute", str(seed), "--out", folder])
            return read_json(Path(folder) / "replay.json")
