"""What a run does at the limits of its machine: numbers, memory, disk. Nothing half-done stays."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pretraining import make_spec, write_dataset
from torch import nn
from torch.nn import functional

from clsp.config.execution import EXACT
from clsp.job import Call, run
from clsp.pretrain import loop
from clsp.pretrain import resume as resume_module
from clsp.pretrain import setup as built
from clsp.pretrain.run import pretrain_encoder
from clsp.runtime.canonical import canonical_json, sha256_json
from clsp.runtime.checkpoint import load_state
from clsp.runtime.errors import DivergedError, ExhaustedError
from clsp.runtime.ledger import read_ledger
from clsp.runtime.manifest import Artefact

FILES = {
    "encoder": "encoder.safetensors",
    "start": "checkpoints/start.safetensors",
    "middle": "checkpoints/middle.safetensors",
    "final": "checkpoints/final.safetensors",
    "history": "history.jsonl",
}
EDGE = 3.4e38  # a float32 number that bfloat16 rounds to infinity


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLSP_DEVICE", "cpu")
    monkeypatch.setattr(resume_module, "SAVE_EVERY", 0.0)
    return tmp_path


def call_of(spec, dataset: Artefact, home: Path) -> Call:
    """The job of a run, as the command line makes it."""
    folder = home / "results/demo/runs/tiny"
    arguments = {
        "spec": canonical_json(spec.canonical()),
        "dataset": [dataset.manifest], "bank": [], "pairs": [], "scratch": home / "scratch",
        **{flag: folder / name for flag, name in FILES.items()},
    }  # fmt: skip
    manifest = folder / "manifest.json"
    return Call("pretrain-encoder", pretrain_encoder, arguments, manifest, "c0de", 1)


def ends(home: Path) -> list[dict]:
    """How attempts ended, by the ledger, whose chain must be whole."""
    chain = read_ledger(home / "results/demo/ledger.jsonl")
    assert chain.problems == []
    return [line for line in chain.lines if line["event"] == "end"]


def nothing_final(home: Path) -> bool:
    folder = home / "results/demo/runs/tiny"
    return not any((folder / name).exists() for name in ("manifest.json", *FILES.values()))


class AtTheEdge(nn.Module):
    """An encoder that holds a large number in one step: finite in float32 alone."""

    step = 0

    def __init__(self, _spec):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.features = 6

    def forward(self, images):
        """(B, 3, H, W) -> (B, 6)."""
        found = self.bn1(self.conv1(images)).relu().mean(dim=(2, 3))
        if AtTheEdge.step != 3:
            return found
        one = found.new_ones(1, 1)
        return found + 0 * functional.linear(one, EDGE * one.float())  # 0 * inf is not a number


@pytest.mark.parametrize("precision", ["full", "bf16"])
def test_infinity_in_reduced_precision_alone_stops_the_run(home, monkeypatch, precision):
    """bfloat16 has no loss scaler that could skip steps, so that not one of them may be skipped."""
    monkeypatch.setattr(built, "Encoder", AtTheEdge)
    real = loop.train_step

    def counted(setup, batch, step):
        AtTheEdge.step = step
        return real(setup, batch, step)

    monkeypatch.setattr(loop, "train_step", counted)
    mode = EXACT.model_copy(update={"precision": precision})
    spec = make_spec(execution=mode.canonical())
    call = call_of(spec, write_dataset(home / "toy"), home)
    if precision == "full":
        assert run(call).predicate["counters"]["optimizer_steps"] == 6
        return
    with pytest.raises(DivergedError, match=r"step 3 \(epoch 1\): not finite.*loss nan") as caught:
        run(call)
    assert caught.value.exit_code == 1 and nothing_final(home)
    state = load_state(home / "scratch/c0de")
    assert state["step"] == 3  # nothing was updated after that
    assert all(torch.isfinite(t).all() for t in state["method"].values())
    (end,) = ends(home)
    assert end["status"] == "failed" and "step 3 (epoch 1): not finite" in end["reason"]


def _by_torch_on_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def _by_torch_here():
    torch.empty(10**15)


def _by_python():
    raise MemoryError


@pytest.mark.parametrize("exhaust", [_by_torch_on_a_gpu, _by_torch_here, _by_python])
def test_out_of_memory_is_recorded_and_no_batch_is_cut(home, monkeypatch, exhaust):
    spec = make_spec()
    call = call_of(spec, write_dataset(home / "toy"), home)
    real = loop.train_step

    def exhausted(setup, batch, step):
        return exhaust() if step == 3 else real(setup, batch, step)

    with monkeypatch.context() as patch, pytest.raises(ExhaustedError) as caught:
        patch.setattr(loop, "train_step", exhausted)
        run(call)
    assert caught.value.exit_code == 4 and "ran out of memory" in str(caught.value)
    assert nothing_final(home)
    (end,) = ends(home)
    assert end["status"] == "failed" and end["reason"].startswith("oom: ")
    record = json.loads((home / "results/demo/runs/tiny/failed.json").read_text())
    assert record["spec"]["recipe"]["batch_size"] == spec.recipe.batch_size
    assert record["spec_sha256"] == sha256_json(spec.canonical())
    made = run(call)  # where there is memory again it goes on, and the spec is still the same
    assert made.predicate["counters"]["samples"] == 6 * spec.recipe.batch_size
    assert [end["status"] for end in ends(home)] == ["failed", "completed"]


CHILD = """
import resource, sys
from pathlib import Path
import test_limits as here
from clsp.pretrain import loop, resume
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import read_manifest
from pretraining import make_spec

limit, last = int(sys.argv[1]), int(sys.argv[2])
resume.SAVE_EVERY = 0.0
real = loop.train_step
def limited(setup, batch, step):
    if step == last:
        raise KeyboardInterrupt
    return real(setup, batch, step)
loop.train_step = limited
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
home = Path.cwd()
try:
    here.run(here.call_of(make_spec(), read_manifest(home / "toy/manifest.json"), home))
except ClspError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def _child(home: Path, limit: int = 0, last: int = -1) -> subprocess.CompletedProcess:
    here, support = Path(__file__).parent, Path(__file__).parents[1] / "support"
    path = os.pathsep.join([str(here), str(support), os.environ.get("PYTHONPATH", "")])
    given = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, "-c", CHILD, str(limit), str(last)]
    return subprocess.run(command, cwd=home, env=given, capture_output=True, text=True)


def test_a_disk_that_fills_up_while_saving_keeps_the_last_state_and_the_run_goes_on(home):
    """No file may grow beyond a limit, which is how a full disk looks to whoever writes one."""
    write_dataset(home / "toy")
    assert _child(home, last=4).returncode != 0  # stopped, with the state of some steps kept
    kept = home / "scratch/c0de"
    before, size = load_state(kept), next(kept.glob("state-*.pt")).stat().st_size
    assert 0 < before["step"] <= 4
    done = _child(home, limit=int(size * 0.9))
    assert done.returncode == 4, done.stderr
    assert "cannot be written" in done.stderr and "Traceback" not in done.stderr
    after = load_state(kept)
    assert after["step"] == before["step"] and nothing_final(home)
    assert all(torch.equal(t, before["method"][name]) for name, t in after["method"].items())
    assert [end["status"] for end in ends(home)] == ["preempted", "failed"]
    assert _child(home).returncode == 0
    straight = home / "straight"
    straight.mkdir()
    write_dataset(straight / "toy")
    assert _child(straight).returncode == 0
    finals = [h / "results/demo/runs/tiny/manifest.json" for h in (home, straight)]
    facts = [json.loads(path.read_text())["predicate"]["facts"] for path in finals]
    assert facts[0]["final_sha256"] == facts[1]["final_sha256"]
