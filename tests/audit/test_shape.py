"""Manifests of any other shape, and checks that fail, are findings and never tracebacks."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faults import Tree
from results_tree import tiny_params

from clsp.audit import run
from clsp.audit.suite import Suite
from clsp.report.shape import misshapen
from clsp.runtime.canonical import canonical_json


def _result(statement: dict[str, Any]) -> dict[str, Any]:
    return statement["predicate"]["facts"]["results"][0]


EDITS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "subject": lambda s: s.update(subject={"a": 1}),
    "subject.0.digest.sha256": lambda s: s["subject"][0].update(digest={}),
    "subject.0.size": lambda s: s["subject"][0].update(size="9"),
    "predicate.step": lambda s: s["predicate"].pop("step"),
    "predicate.externalParameters.spec": lambda s: s["predicate"].update(
        externalParameters={"spec": []}
    ),
    "predicate.internalParameters": lambda s: s["predicate"].update(internalParameters=[]),
    "predicate.internalParameters.git_commit": lambda s: s["predicate"][
        "internalParameters"
    ].update(git_commit=7),
    "predicate.internalParameters.versions": lambda s: s["predicate"]["internalParameters"].update(
        versions=["numpy"]
    ),
    "predicate.runDetails": lambda s: s["predicate"].pop("runDetails"),
    "predicate.resolvedDependencies": lambda s: s["predicate"].update(resolvedDependencies=None),
    "predicate.resolvedDependencies.0.digest": lambda s: s["predicate"]["resolvedDependencies"][
        0
    ].pop("digest"),
    "predicate.metrics.linear/top1": lambda s: s["predicate"]["metrics"].update(
        {"linear/top1": "99"}
    ),
    "predicate.facts": lambda s: s["predicate"].update(facts=[1]),
    "predicate.facts.results": lambda s: s["predicate"]["facts"].update(results={"a": 1}),
    "predicate.facts.results.0.task": lambda s: _result(s).pop("task"),
    "predicate.facts.results.0.value": lambda s: _result(s).update(value=None),
    "predicate.facts.results.0.predictions.file": lambda s: _result(s)["predictions"].pop("file"),
    "predicate.tracking": lambda s: s["predicate"].update(tracking="no"),
}


def _audit(tree: Tree, out: Path) -> tuple[int, dict[str, Any]]:
    spec = canonical_json(tiny_params().canonical())
    given = ["--spec", spec, "--results", str(tree.results), "--reports", str(tree.reports)]
    code = run.main([*given, "--out", str(out), "--mlflow", f"sqlite:///{tree.store}"])
    return code, json.loads(out.read_text())


@pytest.mark.parametrize("place", EDITS)
def test_misshapen_manifest_is_named(place: str, tree: Tree) -> None:
    path = tree.run("probes", "manifest.json")
    statement = json.loads(path.read_text())
    assert misshapen(statement) == ""
    EDITS[place](statement)
    path.write_text(canonical_json(statement))
    suite = Suite(tiny_params(), tree.results, tree.reports, None)
    assert place in suite.records.read[1][path]
    assert all(row["status"] == "missing" for row in suite.frame if row["run"] == path.parent.name
               and row["protocol"] != "transfer")  # fmt: skip


@pytest.mark.parametrize(
    "text", ['{"predicateType":"urn:clsp-suite:step:v1","predicate":[]}', "[" * 100_000, "\x00"]
)
def test_hostile_manifest_is_a_finding(text: str, tree: Tree, tmp_path: Path) -> None:
    tree.run("probes", "manifest.json").write_text(text)
    code, record = _audit(tree, tmp_path / "audit.json")
    assert code == 1
    named = [f for f in record["findings"] if f["id"] == "A01" and "manifest" in f["message"]]
    assert named and {cell["verdict"] for cell in record["cells"]} == {"invalid"}


def test_failing_check_is_a_finding(tree: Tree) -> None:
    def check(_: Suite) -> list:
        raise KeyError("lost")

    suite = Suite(tiny_params(), tree.results, tree.reports, None)
    (finding,) = run._run_check(SimpleNamespace(ID="A99", check=check), suite)
    assert (finding.id, finding.severity, finding.everything) == ("A99", "blocking", True)
    assert "KeyError: 'lost'" in finding.found
