import errno
import os
import subprocess
import sys
import time

import pytest
import torch

from clsp.runtime.checkpoint import StateWriter, load_state, load_tensors, save_state, save_tensors
from clsp.runtime.errors import DataError


def test_tensors_and_metadata_round_trip(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3).t(), "b": torch.tensor([1], dtype=torch.int64)}
    save_tensors(tmp_path / "x.safetensors", tensors, {"spec": "{}"})
    loaded, metadata = load_tensors(tmp_path / "x.safetensors")
    assert metadata == {"spec": "{}"}
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)


def test_a_truncated_checkpoint_is_named(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, {"a": torch.zeros(100)}, {})
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DataError, match=r"x\.safetensors: not a readable checkpoint"):
        load_tensors(path)


def test_resume_state_round_trips_and_keeps_one_file(tmp_path):
    assert load_state(tmp_path / "s") is None
    for step in range(3):
        save_state(tmp_path / "s", {"step": step, "w": torch.full((2,), float(step))})
    state = load_state(tmp_path / "s")
    assert state["step"] == 2
    assert torch.equal(state["w"], torch.full((2,), 2.0))
    assert len(list((tmp_path / "s").glob("*.pt"))) == 1


def test_a_flipped_bit_in_resume_state_is_refused(tmp_path):
    save_state(tmp_path, {"w": torch.zeros(100)})
    path = next(tmp_path.glob("*.pt"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"corrupt resume checkpoint.*delete the folder"):
        load_state(tmp_path)


def test_a_kill_between_the_files_leaves_the_previous_state(tmp_path):
    save_state(tmp_path, {"step": 1})
    (tmp_path / "state.pt.partial").write_bytes(b"half")
    assert load_state(tmp_path) == {"step": 1}


def test_state_is_copied_at_once_and_written_in_the_background(tmp_path):
    weight, writer, log = torch.zeros(3), StateWriter(tmp_path / "s"), []
    state = {"w": weight, "optimizer": {0: {"m": weight}, "groups": [(weight, 0.1)]}}
    for step in range(3):
        writer.begin({**state, "step": step}, before=lambda: log.append(len(log)))
        weight += 1  # training goes on
    writer.close()
    saved = load_state(tmp_path / "s")
    assert saved["step"] == 2 and log == [0, 1, 2]
    assert saved["w"].tolist() == saved["optimizer"][0]["m"].tolist() == [2, 2, 2]
    assert saved["optimizer"]["groups"][0][0].tolist() == [2, 2, 2]
    assert len(list((tmp_path / "s").glob("*.pt"))) == 1


def test_what_goes_wrong_in_the_background_reaches_the_run(tmp_path, monkeypatch):
    writer = StateWriter(tmp_path)
    writer.begin({"step": 1})
    writer.wait()

    def full(_number):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    writer.begin({"step": 2})
    while writer.busy:
        time.sleep(0.001)
    with pytest.raises(DataError, match=r"cannot be written .*No space left on device"):
        writer.check()
    assert load_state(tmp_path) == {"step": 1}
    writer.close()


def test_a_disk_that_is_full_is_named_whatever_torch_makes_of_it(tmp_path):
    (tmp_path / "state.pt.partial").symlink_to("/dev/full")
    with pytest.raises(DataError, match="cannot be written"):
        save_state(tmp_path, {"w": torch.zeros(100_000)})


CHILD = """
import sys, time
from pathlib import Path
import torch
from clsp.runtime import checkpoint
writer = checkpoint.StateWriter(Path(sys.argv[1]))
writer.begin({"step": 1, "w": torch.ones(1000)})
writer.wait()
def stuck(path):
    print("writing", flush=True)
    time.sleep(60)
checkpoint.sha256_file = stuck
writer.begin({"step": 2, "w": torch.zeros(1000)})
time.sleep(60)
"""


def test_a_kill_during_a_background_write_leaves_the_state_before_it(tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "writing\n"
        assert (tmp_path / "state.pt.partial").stat().st_size > 4000
        child.kill()
    state = load_state(tmp_path)
    assert state["step"] == 1 and state["w"].sum() == 1000
    save_state(tmp_path, {"step": 3})  # what was left behind is in nobody's way
    assert load_state(tmp_path) == {"step": 3}
