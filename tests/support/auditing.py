"""The audit of a results tree, as its command runs it."""

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
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


@contextlib.contextmanager
def read_only(*folders: Path) -> Iterator[None]:
    """Take the right to write from folders and everything below them."""
    every = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    modes = {path: path.stat().st_mode for path in every}
    for path in every:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
