"""A tiny results tree whose encoders are real ResNets, so that cards can be tried."""

from pathlib import Path

import numpy as np
import pytest
import results_tree
import torch
from copying import build, copy_tree
from exporting import lived
from injecting import Tree
from results_tree import tiny_params
from safetensors.numpy import save
from tree_weights import checkpoints

from clsp.config.grid import Run
from clsp.models.encoder import Encoder
from clsp.runtime.ledger import Attempt


def _real(run: Run, per_epoch: int) -> tuple[dict[str, bytes], dict[str, str]]:
    files, digests = checkpoints(run, per_epoch)
    torch.manual_seed(run.spec.seed)
    tensors = lived(Encoder(run.spec.encoder), run.spec.seed).state_dict()
    arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in tensors.items()}
    return {**files, "encoder.safetensors": save(arrays)}, digests


@pytest.fixture(scope="session")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree that tests copy, with an attempt that failed; nobody changes it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results_tree, "checkpoints", _real)
        base = build(tmp_path_factory.mktemp("original"), tiny_params(), mirrored=False)
    manifest = base / "results/tiny/runs/digits.tiny.simclr.none.s7/manifest.json"
    attempt = Attempt(manifest, "f" * 32, {"stage": "pretrain-encoder", "spec_sha256": "0" * 64})
    attempt.end("failed", reason="DataError: /home/alice/secret/images.npy: corrupt")
    return base


@pytest.fixture
def tree(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """A copy of the tree that the test may damage; the test runs beside it."""
    copied = copy_tree(original, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return copied
