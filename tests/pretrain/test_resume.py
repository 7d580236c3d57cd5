"""A killed run continues as if nothing had happened."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from pretraining import (
    NOTHING,
    ROOT,
    make_prepared,
    make_spec,
    write_bank,
    write_dataset,
    write_encoded,
)

from clsp.data import decoders
from clsp.data.prepared import open_prepared
from clsp.data.stores import Files
from clsp.models.encoder import FILE
from clsp.pretrain import loop
from clsp.pretrain import resume as resume_module
from clsp.pretrain.resume import Position, Resume
from clsp.pretrain.run import pretrain_encoder
from clsp.pretrain.setup import set_up
from clsp.runtime import checkpoint
from clsp.runtime.checkpoint import load_state, load_tensors
from clsp.runtime.errors import ConfigError, DataError, DivergedError
from clsp.runtime.history import read_history
from clsp.runtime.team import Team

CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for the end of the process."""


@pytest.fixture(autouse=True)
def _save_after_every_step(monkeypatch):
    monkeypatch.setenv("CLSP_DEVICE", "cpu")
    monkeypatch.setenv("CLSP_PROGRESS", "plain")
    monkeypatch.setattr(resume_module, "SAVE_EVERY", 0.0)


def outputs(folder, scratch):
    """Paths of the stage's outputs below a folder; the scratch folder is shared by attempts."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("start", "middle", "final")
    return {
        "encoder": folder / FILE, "history": folder / "history.jsonl", "scratch": scratch,
        **{name: folder / f"{name}.safetensors" for name in names},
    }  # fmt: skip


def assert_equal_runs(left, right):
    """All files of two runs hold the same numbers, key by key."""
    for name in ("encoder", "start", "middle", "final"):
        a, b = load_tensors(left[name])[0], load_tensors(right[name])[0]
        assert a.keys() == b.keys()
        assert [key for key in a if not torch.equal(a[key], b[key])] == []
    assert read_history(left["history"]) == read_history(right["history"])


def kill_before(monkeypatch, step):
    """Let training die when it is about to take a step."""
    real = loop.train_step

    def dying(setup, batch, number):
        if number == step:
            raise Killed
        return real(setup, batch, number)

    monkeypatch.setattr(loop, "train_step", dying)


@pytest.mark.parametrize("method", ["simclr", "moco"])
@pytest.mark.parametrize("step", [1, 2, 3, 5])  # mid-epoch, edge of the middle epoch, last batch
def test_resume_equals_the_straight_run(tmp_path, monkeypatch, method, step):
    dataset = write_dataset(tmp_path / "toy")
    bank = write_bank(tmp_path / "toy.mix", open_prepared(dataset))
    spec = make_spec(method, "bank")
    straight = outputs(tmp_path / "straight", tmp_path / "scratch-a")
    expected = pretrain_encoder(spec, dataset, [bank], [], **straight)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_before(patch, step)
        pretrain_encoder(
            spec, dataset, [bank], [], **outputs(tmp_path / "dead", tmp_path / "scratch-b")
        )
    assert load_state(tmp_path / "scratch-b")["step"] == step
    resumed = outputs(tmp_path / "resumed", tmp_path / "scratch-b")
    torch.manual_seed(99)
    outcome = pretrain_encoder(spec, dataset, [bank], [], **resumed)
    assert outcome == expected
    assert_equal_runs(straight, resumed)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_resume_of_a_run_on_encoded_images(tmp_path, monkeypatch, step):
    dataset = write_encoded(tmp_path / "toy")
    bank = write_bank(tmp_path / "toy.mix", open_prepared(dataset), side=5)
    spec = make_spec("moco", "bank")
    straight = outputs(tmp_path / "straight", tmp_path / "scratch-a")
    expected = pretrain_encoder(spec, dataset, [bank], [], **straight)
    dead = outputs(tmp_path / "dead", tmp_path / "scratch-b")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_before(patch, step)
        pretrain_encoder(spec, dataset, [bank], [], **dead)
    resumed = outputs(tmp_path / "resumed", tmp_path / "scratch-b")
    monkeypatch.setenv(decoders.VARIABLE, "5")
    monkeypatch.setattr(Files, "ahead", False)
    assert pretrain_encoder(spec, dataset, [bank], [], **resumed) == expected
    assert_equal_runs(straight, resumed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_told_to_end_saves_first(tmp_path, monkeypatch, number):
    """Not a step is lost, however long ago state was saved."""
    monkeypatch.setattr(resume_module, "SAVE_EVERY", 1e9)
    dataset, scratch = write_dataset(tmp_path / "toy"), tmp_path / "scratch"
    straight = outputs(tmp_path / "straight", tmp_path / "other")
    expected = pretrain_encoder(make_spec(), dataset, [], [], **straight)
    real = loop.train_step

    def told(setup, batch, step):
        if step == 4:
            os.kill(os.getpid(), number)
        return real(setup, batch, step)

    ended = KeyboardInterrupt if number == signal.SIGINT else SystemExit
    with monkeypatch.context() as patch, pytest.raises(ended) as caught:
        patch.setattr(loop, "train_step", told)
        pretrain_encoder(make_spec(), dataset, [], [], **outputs(tmp_path / "dead", scratch))
    assert number == signal.SIGINT or caught.value.code == 128 + number
    assert load_state(scratch)["step"] == 5
    resumed = outputs(tmp_path / "resumed", scratch)
    assert pretrain_encoder(make_spec(), dataset, [], [], **resumed) == expected
    assert_equal_runs(straight, resumed)


def test_state_that_cannot_be_written_ends_the_run_and_says_where(tmp_path, monkeypatch):
    def full(folder, state):
        raise DataError(f"{folder}: cannot be written (No space left on device)")

    monkeypatch.setattr(checkpoint, "save_state", full)
    paths = outputs(tmp_path / "run", tmp_path / "scratch")
    with pytest.raises(DataError, match=r"scratch: cannot be written .*No space left"):
        pretrain_encoder(make_spec(), write_dataset(tmp_path / "toy"), [], [], **paths)
    assert not paths["encoder"].exists()


def test_state_of_another_number_of_processes_is_refused(tmp_path):
    setup = set_up(make_spec(), make_prepared(), NOTHING, CPU)
    alone = Resume(tmp_path / "scratch", "x", setup.method, setup.optimizer)
    alone.save(Position(step=3))
    alone.close()
    two = Resume(tmp_path / "scratch", "x", setup.method, setup.optimizer, Team(0, 2))
    told = r"scratch, after step 3, is of 1 processes, but this job has 2.*delete the folder"
    with pytest.raises(ConfigError, match=told):
        two.restore()


def test_of_several_processes_the_one_that_writes_decides_when(tmp_path):
    setup = set_up(make_spec(), make_prepared(), NOTHING, CPU)
    first, second = (
        Resume(tmp_path / "scratch", "x", setup.method, setup.optimizer, Team(rank, 2))
        for rank in (0, 1)
    )
    assert first.due() and not second.due()
    first.save(Position(step=2))
    first.close()
    assert "after step 2, is kept in" in first.kept and "process 0 saved last" in second.kept


def test_state_of_another_spec_or_dataset_is_not_resumed(tmp_path, monkeypatch):
    dataset, scratch = write_dataset(tmp_path / "toy"), tmp_path / "scratch"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_before(patch, 4)
        pretrain_encoder(make_spec(), dataset, [], [], **outputs(tmp_path / "dead", scratch))
    assert load_state(scratch)["step"] == 4
    other = make_spec(recipe={"learning_rate": 0.01})
    fresh = outputs(tmp_path / "fresh", tmp_path / "none")
    after = outputs(tmp_path / "after", scratch)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_before(patch, 0)
        pretrain_encoder(other, dataset, [], [], **outputs(tmp_path / "dead too", scratch))
    # Its step log took the place of the one that the old state counts on.
    assert load_state(scratch) is None
    pretrain_encoder(other, dataset, [], [], **fresh)
    pretrain_encoder(other, dataset, [], [], **after)
    assert_equal_runs(fresh, after)


def test_corrupt_state_is_refused(tmp_path):
    setup = set_up(make_spec(), make_prepared(), NOTHING, CPU)
    resume = Resume(tmp_path / "scratch", "x", setup.method, setup.optimizer)
    resume.save(Position(step=1))
    resume.close()
    (state,) = (tmp_path / "scratch").glob("state-*.pt")
    state.write_bytes(state.read_bytes()[:-10])
    with pytest.raises(DataError, match="corrupt resume checkpoint"):
        resume.restore()


def test_weights_that_are_not_finite_never_replace_the_last_good_state(tmp_path):
    setup = set_up(make_spec(), make_prepared(), NOTHING, CPU)
    resume = Resume(tmp_path / "scratch", "x", setup.method, setup.optimizer)
    resume.save(Position(step=1))
    with torch.no_grad():
        setup.method.encoder.conv1.weight[0] = torch.nan
    with pytest.raises(DivergedError, match=r"step 2: encoder.conv1.weight is no longer finite"):
        resume.save(Position(step=2))
    assert "the last good state, after step 1, is kept in" in resume.kept
    assert load_state(tmp_path / "scratch")["step"] == 1


def test_only_state_of_this_run_counts_as_kept(tmp_path):
    setup = set_up(make_spec(), make_prepared(), NOTHING, CPU)
    mine, other = (
        Resume(tmp_path / "scratch", name, setup.method, setup.optimizer) for name in ("x", "y")
    )
    assert mine.kept == "no state had been saved yet"
    other.save(Position(step=7))
    other.close()
    assert mine.kept == "no state had been saved yet"
    assert "after step 7, is kept in" in other.kept


def test_a_last_update_that_breaks_the_weights_is_no_finished_run(tmp_path, monkeypatch):
    dataset = write_dataset(tmp_path / "toy")
    real = torch.optim.SGD.step
    taken = []

    def breaking(self):
        real(self)
        taken.append(1)
        if len(taken) == 6:  # the last step
            with torch.no_grad():
                self.param_groups[0]["params"][0].fill_(torch.inf)

    monkeypatch.setattr(torch.optim.SGD, "step", breaking)
    monkeypatch.setattr(resume_module, "SAVE_EVERY", 1e9)
    paths = outputs(tmp_path / "run", tmp_path / "scratch")
    with pytest.raises(DivergedError, match=r"step 6: encoder.conv1.weight is no longer finite"):
        pretrain_encoder(make_spec(), dataset, [], [], **paths)
    assert not paths["encoder"].exists()


CHILD = """
import sys
sys.path.insert(0, {support!r})
from pathlib import Path
from pretraining import make_spec
from clsp.pretrain import resume
from clsp.pretrain.run import pretrain_encoder
from clsp.runtime.manifest import read_manifest
resume.SAVE_EVERY = 0.0
folder, data = Path(sys.argv[1]), Path(sys.argv[2])
folder.mkdir(exist_ok=True)
names = ("start", "middle", "final")
paths = {{name: folder / f"{{name}}.safetensors" for name in names}}
spec = make_spec("moco", recipe={{"epochs": 20}})
pretrain_encoder(spec, read_manifest(data), [], [], encoder=folder / "encoder.safetensors",
                 history=folder / "history.jsonl", scratch=folder / "scratch", **paths)
"""


def start_child(folder, dataset):
    """Train in a process of its own."""
    script = CHILD.format(support=str(ROOT / "tests/support"))
    environment = {
        **os.environ,
        "CLSP_DEVICE": "cpu",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-c", script, str(folder), str(dataset.manifest)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


def test_sigkill_and_a_new_process_equal_the_straight_run(tmp_path):
    dataset = write_dataset(tmp_path / "toy")
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    reference = start_child(straight, dataset)
    victim = start_child(killed, dataset)
    deadline = time.monotonic() + 60
    while not (killed / "scratch/latest").exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(victim.pid, signal.SIGKILL)
    victim.wait()
    assert not (killed / "final.safetensors").exists()
    assert 0 < load_state(killed / "scratch")["step"] < 40
    assert start_child(killed, dataset).wait(timeout=120) == 0
    assert reference.wait(timeout=120) == 0
    names = ("encoder", "start", "middle", "final")
    paths = [
        {"history": f / "history.jsonl", **{n: f / f"{n}.safetensors" for n in names}}
        for f in (straight, killed)
    ]
    assert_equal_runs(*paths)
