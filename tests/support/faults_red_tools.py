"""Tools of a forger who keeps all records consistent: digests, inputs, ledger, scores and report."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from injecting import Tree, edit_arrays, edit_ledger, edit_mlflow
from results_tree import TreeBuilder, tiny_params

from clsp.audit.checks.a19_recompute import metric_name
from clsp.audit.finding import Number
from clsp.audit.recompute import load_predictions, score
from clsp.runtime.canonical import canonical_json, sha256_file
from clsp.runtime.manifest import describe_file

Statement = dict[str, Any]
CLASSES = 3


def manifests(tree: Tree) -> list[Path]:
    """Every manifest of the results."""
    return sorted(p for p in tree.results.rglob("*manifest.json") if p.is_file())


def change_manifest(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the predicate of a manifest; nothing else is made to agree."""
    statement = json.loads(path.read_text())
    change(statement["predicate"])
    path.write_text(canonical_json(statement) + "\n")


def _agree(tree: Tree, path: Path) -> None:
    """Make a manifest agree with its files and with those that its job read."""
    statement = json.loads(path.read_text())
    base = tree.results.parents[1]
    statement["subject"] = [
        describe_file(path.parent / subject["name"], subject["name"])
        for subject in statement["subject"]
        if (path.parent / subject["name"]).is_file()
    ]
    for dependency in statement["predicate"]["resolvedDependencies"]:
        producer = base / dependency["uri"]
        if producer.is_file():
            dependency["digest"] = {"sha256": sha256_file(producer)}
    path.write_text(canonical_json(statement) + "\n")


def settle_ledger(tree: Tree) -> None:
    """Make the ledger tell of every manifest what it says now."""
    said = {}
    for path in [*manifests(tree), *tree.reports.rglob("*manifest.json")]:
        predicate = json.loads(path.read_text())["predicate"]
        said[predicate["run_uid"]] = (predicate, sha256_file(path))

    def change(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            predicate, digest = said.get(line.get("attempt"), (None, None))
            if predicate is None:
                continue
            if line["event"] == "end":
                line["manifest_sha256"] = digest
            else:
                line["spec_sha256"] = predicate["externalParameters"]["spec_sha256"]
                line["code"] = predicate["internalParameters"]["code"]

    edit_ledger(tree.results / "ledger.jsonl", change)


def settle(tree: Tree, drawn: bool = True, **changes: Any) -> None:
    """Make every manifest, the ledger and, if asked, the report agree with the files as they are.

    Args:
        tree: That was forged.
        drawn: Whether the report is made anew, by the suite's own stages.
        changes: What the tree was asked for beyond PARAMS.
    """
    for path in manifests(tree):
        _agree(tree, path)
    settle_ledger(tree)
    if drawn:
        redraw(tree, **changes)


def redraw(tree: Tree, maker: type[TreeBuilder] = TreeBuilder, **changes: Any) -> None:
    """Make the report anew, by another builder if asked."""
    here = Path.cwd()
    os.chdir(tree.results.parents[1])
    try:
        maker(tree.results.parents[1], tiny_params(**changes)).report()
    finally:
        os.chdir(here)


def rescore(folder: Path, tree: Tree) -> None:
    """Make a probe's records, metrics and MLflow agree with the predictions as they are."""
    manifest = folder / "manifest.json"
    statement = json.loads(manifest.read_text())
    predicate = statement["predicate"]
    for record in predicate["facts"]["results"]:
        truth = score(
            load_predictions(folder / record["predictions"]["file"], record["predictions"]),
            record["metric"],
            CLASSES,
        )
        counts = {"value": truth.value, "correct": truth.correct, "total": truth.total}
        record.update(counts, per_class=truth.per_class)
        number = Number("", record["task"], record["protocol"], record["variant"])
        name = metric_name(number, record["metric"])
        predicate["metrics"][name] = truth.value
        if predicate.get("mlflow_run_id"):
            edit_mlflow(tree, name, truth.value, predicate["mlflow_run_id"])
    manifest.write_text(canonical_json(statement) + "\n")
    for path in folder.glob("*.json"):
        if path.name == "manifest.json":
            continue
        document = json.loads(path.read_text())
        keys = [(r["task"], r["protocol"], r["variant"]) for r in document["results"]]
        known = {(r["task"], r["protocol"], r["variant"]): r for r in predicate["facts"]["results"]}
        document["results"] = [known[key] for key in keys]
        path.write_text(canonical_json(document) + "\n")


def repredict(
    tree: Tree, kind: str, file: str, run: str, change: Callable[[dict[str, np.ndarray]], None]
) -> None:
    """Change predictions, and make all records of them agree."""
    edit_arrays(tree.run(kind, file, run), change)
    rescore(tree.run(kind, run=run), tree)
