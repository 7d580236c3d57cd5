import pytest

from clsp.runtime.history import History, read_history


def test_records_are_appended_and_read_back(tmp_path):
    history = History(tmp_path / "h.jsonl")
    history.log(0, epoch=0, loss=1.5)
    history.log(2, epoch=1, loss=1.25)
    assert read_history(tmp_path / "h.jsonl") == [
        {"step": 0, "epoch": 0, "loss": 1.5},
        {"step": 2, "epoch": 1, "loss": 1.25},
    ]


def test_resuming_rewrites_exactly_the_earlier_records(tmp_path):
    path = tmp_path / "h.jsonl"
    first = History(path)
    for step in range(5):
        first.log(step, loss=float(step))
    second = History(path, first.records[:3])
    second.log(3, loss=3.0)
    assert [r["step"] for r in read_history(path)] == [0, 1, 2, 3]


def test_steps_increase_and_values_are_finite(tmp_path):
    history = History(tmp_path / "h.jsonl")
    history.log(4, loss=0.0)
    with pytest.raises(ValueError, match="step 4 does not follow 4"):
        history.log(4, loss=0.0)
    with pytest.raises(ValueError, match="not JSON compliant"):
        history.log(5, loss=float("nan"))
    assert len(read_history(tmp_path / "h.jsonl")) == 1


def test_a_line_being_written_is_left_out(tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_text('{"step":0}\n{"st')
    assert read_history(path) == [{"step": 0}]
