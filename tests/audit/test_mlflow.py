"""When MLflow is compared, and with which store."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from faults import Tree
from results_tree import tiny_params

from clsp.audit.checks import a20_mlflow
from clsp.audit.run import _mlflow
from clsp.audit.suite import Suite
from clsp.runtime import tracking
from clsp.runtime.canonical import canonical_json


def _set(tree: Tree, **values: Any) -> None:
    for path in tree.results.rglob("*manifest.json"):
        statement = json.loads(path.read_text())
        if statement["predicate"]["tracking"]:
            statement["predicate"].update(values)
            path.write_text(canonical_json(statement))


def _suite(tree: Tree, store: str | None = None, **more: Any) -> Suite:
    return Suite(tiny_params(), tree.results, tree.reports, store, **more)


def test_artefacts_made_without_tracking_are_not_compared(tree: Tree) -> None:
    _set(tree, tracking=False, mlflow_run_id=None)
    assert a20_mlflow.check(_suite(tree)) == []
    assert a20_mlflow.check(_suite(tree, f"sqlite:///{tree.store}")) == []


def test_store_out_of_reach_when_the_job_ran(tree: Tree) -> None:
    _set(tree, mlflow_run_id=None)
    found = a20_mlflow.check(_suite(tree, f"sqlite:///{tree.store}"))
    assert {f.severity for f in found} == {"incomplete"}
    assert "could not be reached when the job ran" in found[0].message


@pytest.mark.parametrize("store", [None, "sqlite:////nowhere/mlflow.db"])
def test_without_a_store_the_way_out_is_named(tree: Tree, store: str | None) -> None:
    found = a20_mlflow.check(_suite(tree, store))
    assert {f.severity for f in found} == {"incomplete"}
    assert all("--without-mlflow" in f.message for f in found)
    assert a20_mlflow.check(_suite(tree, store, compare_mlflow=False)) == []


def test_unknown_kind_of_store_is_told(tree: Tree) -> None:
    found = a20_mlflow.check(_suite(tree, "carrier-pigeon://loft"))
    assert found and "carrier-pigeon" in found[0].message


def test_store_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(tracking.URI, "http://tracker")
    on, off = tiny_params(tracking=True), tiny_params(tracking=False)
    by_file = SimpleNamespace(mlflow=None, spec=None)
    by_rule = SimpleNamespace(mlflow=None, spec="{}")
    given = SimpleNamespace(mlflow="sqlite:///x.db", spec=None)
    assert _mlflow(given, off) == "sqlite:///x.db"
    assert _mlflow(by_file, on) == _mlflow(by_rule, off) == "http://tracker"
    assert _mlflow(by_file, off) is None
    Path("mlflow.db").touch()
    assert _mlflow(by_file, off) == tracking.default_uri()
    monkeypatch.delenv(tracking.URI)
    assert _mlflow(by_file, on) == _mlflow(by_rule, off) == tracking.default_uri()
