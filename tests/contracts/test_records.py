"""The thirteen records that a cell rests on are written by the stages; failing to fails the step."""

import contextlib
import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from clsp import job as job_module
from clsp.__main__ import STAGES, _resolve
from clsp.config.strict import PositiveInt, Strict
from clsp.job import Call, run
from clsp.runtime.canonical import canonical_json
from clsp.runtime.errors import DataError
from clsp.runtime.history import StepLog, read_history
from clsp.runtime.ledger import read_ledger
from clsp.runtime.stage import Outcome, Output, parameters

# Record of audit.md 2.2 -> stage, and the outputs without which it does not finish. Records 1 and 8
# are in every manifest, whose writing is tried below; 12 is a mirror, which decides nothing.
OUTPUTS = {
    1: ("fetch-dataset", {"files"}),
    2: ("prepare-dataset", {"images", "labels", "items", "card"}),
    3: ("train-denoiser", {"unet", "raw", "scheduler", "history"}),
    4: ("generate-shard", {"images"}),
    5: ("gather-bank", {"index"}),
    6: ("pretrain-encoder", {"encoder", "start", "middle", "final"}),
    7: ("pretrain-encoder", {"history"}),
    9: ("extract-features", {"features"}),
    10: ("probe-encoder", {"linear_logits", "knn_logits"}),
    11: ("probe-encoder", {"linear", "knn"}),
    13: ("render-table", {"csv", "md", "tex"}),
}
ENVIRONMENT = {"python", "versions", "cpu", "gpu", "threads", "torch_switches", "variables"}
MANIFEST = Path("results/demo/a/manifest.json")
LEDGER = Path("results/demo/ledger.jsonl")


class Spec(Strict):
    """Spec of a toy stage."""

    count: PositiveInt
    note: str  # long, so that the manifest is longer than the ledger


def made(spec: Spec, out: Output, other: Output) -> Outcome:
    """Write two files."""
    for path in (out, other):
        path.write_text(str(spec.count))
    return Outcome({"count": spec.count})


def half(spec: Spec, out: Output, other: Output) -> Outcome:
    """Forget one of them."""
    out.write_text(str(spec.count))
    return Outcome({"count": spec.count})


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(function) -> Call:
    spec = canonical_json({"count": 2, "note": "x" * 4000})
    given = {"spec": spec, "out": MANIFEST.parent / "a", "other": MANIFEST.parent / "b"}
    return Call("toy", function, given, MANIFEST, "c0de", 1)


def how_it_ended() -> tuple[str, str]:
    chain = read_ledger(LEDGER)
    assert chain.problems == []
    return chain.lines[-1]["status"], chain.lines[-1]["reason"]


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """What a full disk is like: from some byte on nothing can be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("number", OUTPUTS)
def test_a_stage_has_to_write_its_record(number: int):
    stage, wanted = OUTPUTS[number]
    kinds = {p.name: p.kind for p in parameters(_resolve(STAGES[stage][0]))}
    assert wanted <= {name for name, kind in kinds.items() if kind == "output"}


def test_a_record_that_a_stage_forgets_fails_the_job_and_leaves_no_final_name(home):
    with pytest.raises(DataError, match=r"finished without writing .*/b"):
        run(call(half))
    assert [p.name for p in MANIFEST.parent.iterdir()] == []
    assert how_it_ended()[0] == "failed"


def test_a_manifest_that_cannot_be_written_fails_the_job(home):
    """Files without a manifest are no artefact."""
    run(call(made))
    size = 2 * LEDGER.stat().st_size + 100  # the ledger may grow, the manifest is longer
    assert size < MANIFEST.stat().st_size
    with no_file_beyond(size), pytest.raises(DataError, match=r"manifest\.json: cannot be wr"):
        run(call(made))
    assert DataError.exit_code == 4
    assert not MANIFEST.exists() and not list(MANIFEST.parent.glob(".*partial*"))
    status, reason = how_it_ended()
    assert status == "failed" and "manifest.json: cannot be written" in reason
    run(call(made)).verify()


def test_a_ledger_that_cannot_grow_stops_the_job_before_it_begins(home):
    run(call(made))
    before, files = LEDGER.read_bytes(), MANIFEST.read_bytes()
    with no_file_beyond(len(before) + 20), pytest.raises(DataError, match="cannot be recorded"):
        run(call(made))
    assert LEDGER.read_bytes() == before and MANIFEST.read_bytes() == files


def test_a_step_log_that_cannot_grow_is_an_error_and_stays_whole(home):
    log = StepLog(home / "history.jsonl")
    log.log(0, loss=1.0)
    records = [{"step": step, "loss": 1.0} for step in range(1, 100)]
    with no_file_beyond(200), pytest.raises(DataError, match=r"history\.jsonl: cannot be written"):
        log.extend(records)
    again = StepLog(home / "history.jsonl", log.length)
    again.extend(records)
    assert [record["step"] for record in read_history(again.path)] == list(range(100))


def test_an_environment_that_cannot_be_told_fails_the_job(home, monkeypatch):
    recorded = run(call(made)).predicate["internalParameters"]
    assert ENVIRONMENT | {"lock_sha256", "git_commit"} <= recorded.keys()

    def unreadable(threads: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(job_module, "describe_machine", unreadable)
    with pytest.raises(OSError, match="Input/output"):
        run(call(made))
    assert not MANIFEST.exists() and how_it_ended()[0] == "failed"
