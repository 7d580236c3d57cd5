"""A run that failed is named with its reason, and is no part of any number."""

import json
import shutil

import pytest
from faults import Tree
from results_tree import tiny_params

from clsp.audit.finding import BLOCKING, INCOMPLETE
from clsp.audit.run import run_checks
from clsp.audit.suite import Suite
from clsp.config.grid import expand_runs
from clsp.config.plan import pretrain_job

RUN = "digits.tiny.simclr.none.s0"


def _findings(tree: Tree) -> list:
    return run_checks(Suite(tiny_params(), tree.results, tree.reports, None, False))


def _fail(tree: Tree, text: str) -> None:
    """Replace a run by the record of its failed attempt."""
    (manifest,) = [p for p in tree.results.rglob("manifest.json") if p.parent.name == RUN
                   and "pretrain-encoder" in p.read_text()]  # fmt: skip
    folder = manifest.parent
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "failed.json").write_text(text)


def _record(error: str, **changed: object) -> str:
    """What clsp.job writes about a failed attempt with the spec of now."""
    spec = pretrain_job(expand_runs(tiny_params())[RUN]).spec
    return json.dumps({"step": "pretrain-encoder", "error": error, "spec": {**spec, **changed}})


def test_the_reason_of_a_failed_run_is_told(tree: Tree) -> None:
    error = "step 7 (epoch 1): not finite (loss nan)"
    _fail(tree, _record(error))
    told = [f for f in _findings(tree) if f.id == "A01" and RUN in f.subject]
    (finding,) = [f for f in told if "pretrain-encoder" in f.subject]
    assert finding.severity == INCOMPLETE
    assert finding.message == f"the last attempt failed: {error}"
    assert {number.run for number in finding.numbers} == {RUN}


@pytest.mark.parametrize(
    "text", [json.dumps({"step": "probe-encoder", "error": "x"}), _record("x", seed=5)]
)
def test_an_attempt_at_something_else_tells_nothing(tree: Tree, text: str) -> None:
    _fail(tree, text)
    (finding,) = [f for f in _findings(tree) if f.subject == f"pretrain-encoder {RUN}"
                  and f.id == "A01"]  # fmt: skip
    assert finding.message == "the artefact is not there"


def test_a_damaged_record_is_no_finding_of_its_own_and_no_crash(tree: Tree) -> None:
    _fail(tree, "{")
    found = [f for f in _findings(tree) if f.subject == f"pretrain-encoder {RUN}" and f.id == "A01"]
    assert "failed.json: not valid JSON" in found[0].message
    assert all(f.severity != BLOCKING for f in found)
