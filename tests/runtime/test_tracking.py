import multiprocessing
import sqlite3
from pathlib import Path

import pytest
from tracked import tracked_history, tracked_job, tracked_process

from clsp.runtime import tracking
from clsp.runtime.canonical import sha256_text
from clsp.runtime.history import StepLog


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A fresh SQLite store in a temporary working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(tracking.URI, f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv(tracking.EXPERIMENT, "clsp-test")
    return tmp_path


def test_a_job_is_one_run_with_parameters_epochs_and_metrics(store):
    run_id = tracked_job("a", tracked_history(store / "h.jsonl", 6), {"linear/top1": 93.5})
    client, experiment, parent = tracking.ensure_store()
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"seed": "0", "recipe.epochs": "2"}
    assert run.data.metrics["linear/top1"] == 93.5
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.data.tags["clsp.manifest"] == "runs/a/manifest.json"
    points = client.get_metric_history(run_id, "history/loss")
    assert [(p.step, p.value) for p in points] == [(1, 9.0), (3, 7.0), (5, 5.0)]
    assert len(client.search_runs([experiment])) == 2


def test_a_long_parameter_is_kept_whole_beside_its_hash(store):
    """MLflow would cut it in silence; the run shows its hash, and the text as an artifact."""
    text = "é" * 6500
    run_id = tracked_job(
        "a", tracked_history(store / "h.jsonl", 6), {}, note=text, short="x" * 6000
    )
    client, *_ = tracking.ensure_store()
    run = client.get_run(run_id)
    assert run.data.params["short"] == "x" * 6000
    shown = run.data.params["note"]
    assert shown.startswith(f"sha256 {sha256_text(text)} of 6500 characters")
    (path,) = [artifact.path for artifact in client.list_artifacts(run_id, "parameters")]
    kept = client.download_artifacts(run_id, path)
    assert Path(kept).read_text(encoding="utf-8") == text and path in shown


def test_a_resumed_job_continues_its_run_without_repeating_points(store):
    spec, history = {"seed": 1}, tracked_history(store / "h.jsonl", 4)
    with (
        pytest.raises(RuntimeError),
        tracking.mirror("pretrain-encoder", "runs/a/manifest.json", spec, "c") as first,
    ):
        first.follow(history)
        raise RuntimeError("the job died")
    client, *_ = tracking.ensure_store()
    assert client.get_run(first.run_id).info.status == "FAILED"
    tracked_history(store / "h.jsonl", 8)
    with tracking.mirror("pretrain-encoder", "runs/a/manifest.json", spec, "c") as again:
        again.follow(history)
        again.finish({}, history)
    assert again.run_id == first.run_id
    points = client.get_metric_history(first.run_id, "history/loss")
    assert [p.step for p in points] == [1, 3, 5, 7]
    assert client.get_run(first.run_id).info.status == "FINISHED"


def test_a_job_under_way_is_read_piece_by_piece_and_shows_whole_epochs(store, monkeypatch):
    read, starts = tracking.read_on, []
    monkeypatch.setattr(
        tracking, "read_on", lambda path, start: starts.append(start) or read(path, start)
    )
    log = StepLog(store / "h.jsonl")
    with tracking.mirror("pretrain-encoder", "runs/a/manifest.json", {"seed": 1}, "c") as m:
        m.history = log.path
        m._open()
        for steps in (range(3), range(3, 6), range(6, 7)):
            for step in steps:
                log.log(step, epoch=step // 2, loss=10.0 - step)
            m._push(final=False)
        points = m.client.get_metric_history(m.run_id, "history/loss")
        assert [(p.step, p.value) for p in points] == [(1, 9.0), (3, 7.0), (5, 5.0)]
        m.finish({}, log.path)
    points = m.client.get_metric_history(m.run_id, "history/loss")
    assert [p.step for p in points] == [1, 3, 5, 6]
    assert starts[0] == 0 and starts[1] < starts[2] and starts[3] == 0


def test_parallel_jobs_on_a_missing_store_lose_nothing(store):
    context = multiprocessing.get_context("spawn")
    jobs = [context.Process(target=tracked_process, args=(store, f"r{i}")) for i in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    with sqlite3.connect(store / "mlflow.db") as database:
        points = database.execute(
            "select count(*) from metrics where key='history/loss'"
        ).fetchone()
        default = database.execute("select count(*) from runs where experiment_id=0").fetchone()
        mode = database.execute("pragma journal_mode").fetchone()
    assert (points, default, mode) == ((9,), (0,), ("wal",))


def test_without_a_store_nothing_happens(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(tracking.URI, raising=False)
    assert tracked_job("a", tracked_history(tmp_path / "h.jsonl", 2), {"m": 1.0}) is None
    assert tracking.main([]) == 0
    assert not (tmp_path / "mlflow.db").exists()


def test_a_store_that_cannot_be_reached_does_not_harm_the_job(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv(tracking.URI, f"sqlite:///{tmp_path}/file/mlflow.db")
    assert tracked_job("a", None, {"m": 1.0}) is None
    assert "the results are complete without it" in caplog.text


def test_a_job_that_repeats_a_finished_one_opens_a_run_of_its_own(store):
    history = tracked_history(store / "h.jsonl", 4)
    first, second = tracked_job("a", history, {"m": 1.0}), tracked_job("a", history, {"m": 2.0})
    client, *_ = tracking.ensure_store()
    assert first != second
    assert client.get_run(first).data.metrics["m"] == 1.0
    assert len(client.get_metric_history(second, "history/loss")) == 2


def test_a_broken_store_is_reported_and_stops_nothing(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(b"no database at all, but long enough to look at")
    monkeypatch.setenv(tracking.URI, f"sqlite:///{tmp_path}/mlflow.db")
    assert tracking.main([]) == 0
    assert "cannot be used" in caplog.text


def test_a_killed_creation_leaves_no_store_behind(store):
    (store / ".mlflow.db.partial").write_bytes(b"half")
    assert tracking.main([]) == 0
    with sqlite3.connect(store / "mlflow.db") as database:
        names = database.execute("select name from experiments").fetchall()
    assert ("clsp-test",) in names
    assert not (store / ".mlflow.db.partial").exists()
