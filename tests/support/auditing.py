"""The audit of a results tree, as its command runs it."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults import Tree
from results_tree import tiny_params

from clsp.audit.run import main
from clsp.runtime.canonical import canonical_json


def audit(
    tree: Tree, out: Path, options: Sequence[str] = (), **changes: Any
) -> tuple[int, dict[str, Any]]:
    """Exit code and audit.json, with top-level entries of the tree's parameters replaced."""
    spec = canonical_json(tiny_params(**changes).canonical())
    given = ["--spec", spec, "--results", str(tree.results), "--reports", str(tree.reports)]
    given += ["--out", str(out), *(text.format(base=tree.results.parents[1]) for text in options)]
    if tree.store is not None:
        given += ["--mlflow", f"sqlite:///{tree.store}"]
    code = main(given)
    return code, json.loads(out.read_text())


def ids(record: dict[str, Any]) -> set[str]:
    """Checks that found something, badges aside."""
    return {f["id"] for f in record["findings"] if f["severity"] != "badge"}


def state(base: Path) -> dict[str, tuple[str, int]]:
    """Content and modification time of every file below a folder."""
    return {
        str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(base.rglob("*"))
        if path.is_file()
    }
