"""The ledger of attempts: chained, kept by every way a job can end, and whole after a kill."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clsp.config.strict import PositiveInt, Strict
from clsp.job import Call, run
from clsp.runtime.canonical import sha256_file, sha256_text
from clsp.runtime.errors import DataError, DivergedError
from clsp.runtime.ledger import GENESIS, Attempt, ledger_of, place_of, read_ledger
from clsp.runtime.stage import Outcome, Output
from clsp.workflow import provenance


class Spec(Strict):
    """Spec of a toy stage."""

    count: PositiveInt


def made(spec: Spec, out: Output) -> Outcome:
    """Write a file."""
    out.write_text(str(spec.count))
    return Outcome({"count": spec.count})


def failing(spec: Spec, out: Output) -> Outcome:
    """Diverge."""
    raise DivergedError("step 3: not finite\nand more")


def stopped(spec: Spec, out: Output) -> Outcome:
    """End as a signal ends a job."""
    raise SystemExit(128 + 15)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


MANIFEST = Path("results/demo/a/manifest.json")
LEDGER = Path("results/demo/ledger.jsonl")


def call(function, manifest=MANIFEST):
    given = {"spec": '{"count": 2}', "out": manifest.parent / "out.txt"}
    return run(Call("toy", function, given, manifest, "c0de", 1))


def test_the_ledger_lies_with_the_results_for_results_and_reports_alike(home):
    for name in ("results/demo/runs/x/manifest.json", "reports/demo/frame.manifest.json"):
        assert ledger_of(Path(name)) == home / "results/demo/ledger.jsonl"
        assert place_of(Path(name)) == name.replace("/demo", "")
    assert ledger_of(Path("elsewhere/manifest.json")) == Path(".clsp/ledger.jsonl")


def test_every_end_is_recorded_with_its_reason(home):
    artefact = call(made)
    with pytest.raises(DivergedError):
        call(failing)
    with pytest.raises(SystemExit):
        call(stopped)
    chain = read_ledger(LEDGER)
    assert chain.problems == []
    ends = [line for line in chain.lines if line["event"] == "end"]
    assert [line["status"] for line in ends] == ["completed", "failed", "preempted"]
    assert ends[1]["reason"] == "DivergedError: step 3: not finite"
    assert ends[2]["reason"] == "SystemExit: 143"
    assert all(line["seconds"] >= 0 for line in ends)
    assert artefact.predicate["run_uid"] == ends[0]["attempt"]


def test_the_end_names_the_manifest_that_was_written(home):
    call(made)
    start, end = read_ledger(LEDGER).lines
    assert end["manifest_sha256"] == sha256_file(MANIFEST)
    assert (start["stage"], start["code"]) == ("toy", "c0de")
    assert start["manifest"] == "results/a/manifest.json"
    assert (
        start["spec_sha256"]
        == json.loads(MANIFEST.read_text())["predicate"]["externalParameters"]["spec_sha256"]
    )


def test_lines_are_chained_from_the_first_on(home):
    call(made)
    lines = LEDGER.read_text().splitlines()
    assert json.loads(lines[0])["prev_sha256"] == GENESIS
    assert json.loads(lines[1])["prev_sha256"] == sha256_text(lines[0])
    assert read_ledger(LEDGER).head == sha256_text(lines[1])


@pytest.mark.parametrize("damage", ["edit", "drop", "swap", "cut"])
def test_a_damaged_chain_is_seen(home, damage):
    for _ in range(3):
        call(made)
    lines = LEDGER.read_text().splitlines()
    if damage == "edit":
        lines[2] = lines[2].replace("toy", "tot")
    elif damage == "drop":
        del lines[2]
    elif damage == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    else:
        lines[-1] = lines[-1][:40]
    ending = "" if damage == "cut" else "\n"
    LEDGER.write_text("\n".join(lines) + ending)
    assert read_ledger(LEDGER).problems


def test_a_killed_attempt_is_noted_by_the_next_one(home):
    code = (
        "from pathlib import Path; import os, signal\n"
        "from clsp.runtime.ledger import Attempt\n"
        f"Attempt(Path({str(MANIFEST)!r}), 'killed', {{}})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    given = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], cwd=home, env=given)
    assert done.returncode == -signal.SIGKILL
    call(made)
    lines = read_ledger(LEDGER).lines
    assert [line["event"] for line in lines] == ["start", "end", "start", "end"]
    assert lines[1]["status"] == "killed" and lines[1]["attempt"] == "killed"
    assert lines[1]["noted_by"] == lines[2]["attempt"]


def test_half_a_line_is_taken_off_and_noted(home):
    call(made)
    with LEDGER.open("a") as stream:
        stream.write('{"event":"end","att')
    assert read_ledger(LEDGER).problems
    call(made)
    chain = read_ledger(LEDGER)
    assert chain.problems == []
    assert [line["event"] for line in chain.lines] == ["start", "end", "torn", "start", "end"]
    assert chain.lines[2]["text"] == '{"event":"end","att'


def test_a_job_that_cannot_record_itself_fails_and_makes_nothing(home):
    LEDGER.mkdir(parents=True)
    with pytest.raises(DataError, match="cannot be recorded"):
        call(made)
    assert not MANIFEST.exists() and not (MANIFEST.parent / "out.txt").exists()


def _attempts(number: int) -> None:
    for turn in range(5):
        manifest = Path(f"results/demo/{number}/manifest.json")
        Attempt(manifest, f"{number}-{turn}", {}).end("completed")


def test_processes_that_write_at_once_leave_one_chain(home):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_attempts, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    chain = read_ledger(LEDGER)
    assert chain.problems == [] and len(chain.lines) == 40


def test_only_the_first_end_counts(home):
    attempt = Attempt(MANIFEST, "one", {})
    attempt.end("completed")
    attempt.end("failed", reason="too late")
    assert [line.get("status") for line in read_ledger(LEDGER).lines] == [None, "completed"]


def test_the_ledger_travels_as_a_copy(home):
    (home / ".snakemake/metadata").mkdir(parents=True)
    call(made)
    provenance.export("demo")
    copied = Path("results/demo/provenance/ledger.jsonl")
    assert copied.read_bytes() == LEDGER.read_bytes()
    LEDGER.unlink()
    provenance.restore("demo")
    assert copied.read_bytes() == LEDGER.read_bytes()
    call(made)
    longer = LEDGER.read_bytes()
    provenance.restore("demo")
    assert LEDGER.read_bytes() == longer


def test_a_ledger_that_parted_from_the_one_here_is_left_alone(home):
    (home / ".snakemake/metadata").mkdir(parents=True)
    call(made)
    provenance.export("demo")
    copied = Path("results/demo/provenance/ledger.jsonl")
    LEDGER.unlink()
    call(made)
    copied.write_bytes(copied.read_bytes() + b"more\n" * 9)
    mine = LEDGER.read_bytes()
    provenance.restore("demo")
    assert LEDGER.read_bytes() == mine
