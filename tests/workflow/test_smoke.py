"""The whole chain at its smallest, as a user runs it."""

import csv
import json
import time
from collections import Counter

import pytest

pytestmark = pytest.mark.slow


def test_every_stage_leaves_its_artefacts(finished):
    stages = {
        json.loads((finished.folder / path).read_text())["predicate"]["step"]
        for path in finished.manifests()
    }
    assert stages == {
        "fetch-dataset",
        "prepare-dataset",
        "check-data",
        "train-denoiser",
        "generate-shard",
        "gather-bank",
        "pretrain-encoder",
        "extract-features",
        "probe-encoder",
        "probe-transfer",
        "probe-few-shot",
        "fine-tune-encoder",
        "measure-bank",
        "count-duplicates",
    }
    reports = finished.folder / "reports" / "smoke"
    for name in (
        "report.html",
        "frame.csv",
        "metrics.json",
        "audit.json",
        "tables/main.tex",
        "tables/transfer.md",
        "tables/fine_tune.md",
        "tables/quality.md",
        "figures/few_shot.png",
        "figures/curves.png",
        "figures/candidates.png",
        "figures/interpolation_grid.png",
    ):
        assert (reports / name).stat().st_size > 0
    assert not list(finished.folder.glob("results/**/.partial*"))
    assert not list(finished.folder.glob(".clsp/scratch/*/*"))


def test_the_audit_of_a_clean_run_passes(finished):
    done = finished.run("python", "-m", "clsp", "audit", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((finished.folder / "reports/smoke/audit.json").read_text())
    assert not [f for f in report["findings"] if f["severity"] == "blocking"]


def test_the_frame_has_every_run_and_protocol(finished):
    rows = list(csv.DictReader((finished.folder / "reports/smoke/frame.csv").open()))
    seen = {(row["label"], row["protocol"], row["variant"]) for row in rows}
    for label in ("SimCLR", "CLSP-SimCLR", "MoCo v2+", "CLSP-MoCo v2+"):
        assert {(label, "linear", ""), (label, "knn", ""), (label, "transfer", "")} <= seen
        assert {(label, "few_shot", "shots=1"), (label, "fine_tune", "")} <= seen
    for label in ("Random encoder", "Raw pixels"):
        assert {(label, "transfer", ""), (label, "few_shot", "shots=2")} <= seen
    assert {row["status"] for row in rows} == {"done"}


def test_every_page_of_a_demonstration_says_so(finished):
    reports = finished.folder / "reports" / "smoke"
    for name in (
        "report.html",
        "tables/main.md",
        "tables/main.tex",
        "tables/main.csv",
        "tables/transfer.md",
        "tables/transfer.tex",
        "tables/transfer.csv",
    ):
        assert "not results" in (reports / name).read_text(), name


def test_a_second_run_has_nothing_to_do(suite):
    started = time.monotonic()
    done = suite.run("snakemake")
    assert "Nothing to be done" in done.stdout + done.stderr
    assert time.monotonic() - started < 60  # a hang, not a speed


def _without_a_gpu():
    from clsp.runtime.device import cuda_devices

    if cuda_devices():
        pytest.skip("jobs that may use the GPU are on their own")


def test_short_jobs_shared_a_process(finished):
    _without_a_gpu()
    log = (finished.folder / "logs/smoke/shared_process.log").read_text().splitlines()
    taken = Counter(line.partition(": process ")[0] for line in log if ": process " in line)
    shared = {"pretrain-encoder": 4, "probe-encoder": 4, "render-figure": 9, "probe-transfer": 6}
    assert taken.items() >= shared.items(), log
    alone = {line.partition(" runs by itself: ")[0] for line in log if "by itself" in line}
    assert alone == {"prepare-dataset"}  # it has two threads


def test_a_job_by_itself_comes_to_the_same(suite):
    _without_a_gpu()
    path = min(suite.folder.glob("results/smoke/evaluations/probe/*/manifest.json"))
    shared = json.loads(path.read_text())
    target = path.relative_to(suite.folder)
    again = ("snakemake", target, "--forcerun", "probe_encoder")
    suite.run(*again, CLSP_SHARED_PROCESS="0")
    alone = json.loads(path.read_text())
    assert alone["predicate"]["run_uid"] != shared["predicate"]["run_uid"]
    for statement in (shared, alone):
        for key in ("run_uid", "runDetails", "mlflow_run_id"):
            del statement["predicate"][key]
    assert alone == shared


def test_mlflow_has_one_run_per_job(finished):
    import sqlite3

    with sqlite3.connect(f"file:{finished.folder}/mlflow.db?mode=ro", uri=True) as database:
        tags = database.execute(
            "select value, count(*) from tags where key = 'clsp.stage' group by value"
        ).fetchall()
        status = database.execute("select distinct status from runs").fetchall()
    assert dict(tags) == {
        "train-denoiser": 1,
        "gather-bank": 1,
        "pretrain-encoder": 4,
        "probe-encoder": 4,
        "probe-transfer": 6,
        "probe-few-shot": 6,
        "fine-tune-encoder": 4,
        "measure-bank": 1,
    }
    assert status == [("FINISHED",)]


def test_tables_and_report_regenerate_without_torch(suite):
    reports = suite.folder / "reports" / "smoke"
    names = ["frame.csv", "tables/main.csv", "tables/main.tex", "tables/transfer.md", "report.html"]
    before = {name: (reports / name).read_bytes() for name in names}
    blocker = suite.folder / "blocked"
    blocker.mkdir()
    (blocker / "torch.py").write_text("raise ImportError('torch must not be needed here')\n")
    for name in names:
        (reports / name).unlink()
    path = f"{blocker}:{suite.folder}"
    suite.run("snakemake", "report", PYTHONPATH=path)
    for name in names[:4]:
        assert (reports / name).read_bytes() == before[name], name
    assert (reports / "report.html").stat().st_size > 0
