"""A bank's shards are those it was gathered from; shards of another split are left-overs."""

import json
from pathlib import Path

from faults import Tree, edit_statement
from injecting import edit_ledger
from results_tree import tiny_params

from clsp.audit.run import run_checks
from clsp.audit.suite import Suite
from clsp.runtime.canonical import canonical_json
from clsp.runtime.ledger import ledger_of


def _leave_behind(tree: Tree) -> Path:
    """A shard of an earlier split into three, made by other code, settings and attempt."""
    folder = tree.results / "banks/digits.mix/shards"
    statement = json.loads((folder / "1-of-2.manifest.json").read_text())
    (folder / "1-of-3.npy").write_bytes((folder / "1-of-2.npy").read_bytes())
    statement["subject"][0]["name"] = "1-of-3.npy"
    manifest = folder / "1-of-3.manifest.json"
    manifest.write_text(canonical_json(statement))

    uid = statement["predicate"]["run_uid"]

    def remember(lines: list[dict]) -> None:
        earlier = [
            {**line, "attempt": "an-earlier-one"} for line in lines if line.get("attempt") == uid
        ]
        earlier[0]["manifest"] = "results/banks/digits.mix/shards/1-of-3.manifest.json"
        lines[:0] = earlier

    def age(predicate: dict) -> None:
        predicate["run_uid"] = "an-earlier-one"
        predicate["internalParameters"]["code"] = "0" * 16
        predicate["externalParameters"]["spec"]["seed"] = 9
        predicate["resolvedDependencies"] = []

    edit_ledger(ledger_of(manifest), remember)
    edit_statement(manifest, age)
    return manifest


def test_left_over_shard_is_superseded(tree: Tree) -> None:
    manifest = _leave_behind(tree)
    for shards in (1, 2, 3):  # the rule passes 1 always
        params = tiny_params(shards=shards)
        suite = Suite(params, tree.results, tree.reports, f"sqlite:///{tree.store}")
        assert suite.shards_of("digits.mix") == ["1-of-2", "2-of-2"]
        found = run_checks(suite)
        assert {f.file for f in found if f.id == "A05"} == {str(manifest)}
        assert [f.line for f in found if f.severity != "badge"] == []


def test_before_there_is_a_bank_params_decide(tree: Tree) -> None:
    (tree.results / "banks/digits.mix/manifest.json").unlink()
    suite = Suite(tiny_params(shards=4), tree.results, tree.reports, None)
    assert suite.shards_of("digits.mix") == ["1-of-4", "2-of-4", "3-of-4", "4-of-4"]
    told = [f for f in run_checks(suite) if f.id == "A01" and f.subject == "digits.mix"]
    assert [(f.severity, f.found) for f in told] == [("incomplete", "none of them")]


def test_data_check_is_no_left_over(tree: Tree) -> None:
    suite = Suite(tiny_params(), tree.results, tree.reports, f"sqlite:///{tree.store}")
    known = {artefact.stage for artefact in suite.records}
    assert "check-data" in known
    assert not [f for f in run_checks(suite) if "provenance" in f.file]
