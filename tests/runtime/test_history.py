import pytest

from clsp.runtime.errors import DataError
from clsp.runtime.history import StepLog, last_records, read_history, read_on


def test_records_are_appended_and_read_back(tmp_path):
    history = StepLog(tmp_path / "h.jsonl")
    history.log(0, epoch=0, loss=1.5)
    history.extend([{"step": 2, "epoch": 1, "loss": 1.25}, {"step": 3, "epoch": 1, "loss": 1.0}])
    expected = [
        {"step": 0, "epoch": 0, "loss": 1.5},
        {"step": 2, "epoch": 1, "loss": 1.25},
        {"step": 3, "epoch": 1, "loss": 1.0},
    ]
    assert read_history(tmp_path / "h.jsonl") == expected
    assert last_records(tmp_path / "h.jsonl", 2) == expected[1:]
    assert last_records(tmp_path / "h.jsonl", 9) == expected
    assert history.sync() == history.length == (tmp_path / "h.jsonl").stat().st_size


def test_resuming_cuts_off_what_no_state_counts_on(tmp_path):
    path = tmp_path / "h.jsonl"
    first = StepLog(path)
    first.extend([{"step": step, "loss": float(step)} for step in range(3)])
    length = first.sync()
    first.log(3, loss=9.0)
    second = StepLog(path, length)
    assert second.last == 2
    second.log(3, loss=3.0)
    assert [r["loss"] for r in read_history(path)] == [0, 1, 2, 3]
    with pytest.raises(DataError, match=r"h.jsonl: the step log has \d+ bytes, but .* on 9999"):
        StepLog(path, 9999)


def test_steps_increase_and_values_are_finite_or_nothing_is_written(tmp_path):
    history = StepLog(tmp_path / "h.jsonl")
    history.log(4, loss=0.0)
    with pytest.raises(ValueError, match="step 4 does not follow 4"):
        history.log(4, loss=0.0)
    with pytest.raises(ValueError, match="step 5 does not follow 5"):
        history.extend([{"step": 5, "loss": 0.0}, {"step": 5, "loss": 0.0}])
    with pytest.raises(ValueError, match="not JSON compliant"):
        history.extend([{"step": 5, "loss": 0.0}, {"step": 6, "loss": float("nan")}])
    assert len(read_history(tmp_path / "h.jsonl")) == 1 and history.last == 4


def test_a_line_being_written_is_left_out(tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_text('{"step":0}\n{"st')
    assert read_history(path) == last_records(path, 3) == [{"step": 0}]


def test_a_growing_log_is_read_on_from_where_reading_ended(tmp_path):
    path = tmp_path / "h.jsonl"
    path.write_text('{"step":0}\n{"step":1}\n{"st')
    found, place = read_on(path, 0)
    assert found == [{"step": 0}, {"step": 1}]
    assert read_on(path, place) == ([], place)
    with open(path, "a") as stream:
        stream.write('ep":2}\n')
    assert read_on(path, place) == ([{"step": 2}], path.stat().st_size)
    path.write_text('{"step":0}\n')  # a run that resumed cut it off
    assert read_on(path, place) == ([{"step": 0}], path.stat().st_size)


def test_a_log_that_cannot_be_written_is_named(tmp_path):
    history = StepLog(tmp_path / "h.jsonl")
    (tmp_path / "h.jsonl").unlink()
    (tmp_path / "h.jsonl").symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"h.jsonl: cannot be written .*No space left"):
        history.log(0, loss=1.0)
