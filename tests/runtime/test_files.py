import multiprocessing
import os
import signal
import time

import pytest

from clsp.runtime.errors import DataError, IncompleteError
from clsp.runtime.files import exclusive, staged, write_atomic


def test_an_interrupted_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_atomic(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_outputs_appear_together_or_not_at_all(tmp_path):
    files = [tmp_path / "a.txt", tmp_path / "sub" / "b"]
    with pytest.raises(RuntimeError), staged(files, tmp_path, "x") as lent:
        lent[files[0]].write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with staged(files, tmp_path, "x") as lent:
        lent[files[0]].write_text("whole")
        lent[files[1]].mkdir()
        (lent[files[1]] / "c").write_text("in a folder")
    assert files[0].read_text() == "whole"
    assert (files[1] / "c").read_text() == "in a folder"


def test_a_promised_output_that_is_missing_is_an_error(tmp_path):
    with (
        pytest.raises(DataError, match=r"without writing .*a\.txt"),
        staged([tmp_path / "a.txt"], tmp_path, "x"),
    ):
        pass


def _hold(path, ready):
    with exclusive(path):
        ready.set()
        time.sleep(60)


def test_a_second_writer_is_refused_and_a_killed_one_leaves_no_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(tmp_path / "m", ready))
    holder.start()
    assert ready.wait(10)
    with pytest.raises(IncompleteError, match=f"pid {holder.pid}"), exclusive(tmp_path / "m"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with exclusive(tmp_path / "m"):
        held = True
    assert held
