import pytest
import torch

from clsp.runtime.checkpoint import load_state, load_tensors, save_state, save_tensors
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
