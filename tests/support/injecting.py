"""Registers faults, and the tools with which they damage a copy of the results tree."""

import io
import json
import os
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clsp.runtime.canonical import canonical_json
from clsp.runtime.manifest import describe_file

RUN = "digits.tiny.simclr.synthetic.s1"


@dataclass(frozen=True)
class Tree:
    """A copy of the tree that a fault may damage."""

    results: Path
    reports: Path
    store: Path | None

    def run(self, kind: str, name: str = "", run: str = RUN) -> Path:
        """A path of a run's artefact."""
        return self.results / kind / run / name


@dataclass(frozen=True)
class Fault:
    """What is done, which checks must find it, how the audit must end, and in which tree."""

    inject: Callable[[Tree], None]
    checks: frozenset[str]
    code: int = 1
    within: str = ""  # which tree: "paired" with mined pairs, "judged" by every protocol


FAULTS: dict[str, Fault] = {}


def fault(
    *checks: str, code: int = 1, within: str = ""
) -> Callable[[Callable[[Tree], None]], Callable]:
    """Register a fault under its function's name."""

    def register(inject: Callable[[Tree], None]) -> Callable[[Tree], None]:
        FAULTS[inject.__name__] = Fault(inject, frozenset(checks), code, within)
        return inject

    return register


def keep_time(path: Path, content: bytes) -> None:
    """Overwrite a file; its modification time stays what it was."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def edit_statement(manifest: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Forge a manifest: change it, then make its list of files agree with the files again."""
    statement = json.loads(manifest.read_text())
    change(statement["predicate"])
    statement["subject"] = [
        describe_file(manifest.parent / subject["name"], subject["name"])
        for subject in statement["subject"]
    ]
    manifest.write_text(canonical_json(statement) + "\n")


def edit_arrays(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    """Change arrays of an npz file."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    change(arrays)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    keep_time(path, stream.getvalue())


def change_store(tree: Tree, query: str, values: tuple[Any, ...] = ()) -> None:
    """Run one statement in the MLflow store."""
    assert tree.store is not None
    database = sqlite3.connect(tree.store)
    database.execute(query, values)
    database.commit()
    database.close()


def edit_mlflow(tree: Tree, key: str, value: float, run: str | None = None) -> None:
    """Overwrite a metric in both places where MLflow keeps it, of one run or of all."""
    for table in ("metrics", "latest_metrics"):
        query = f"update {table} set value = ? where key = ? and run_uuid like ?"
        change_store(tree, query, (value, key, run or "%"))


def flip_bit(path: Path) -> None:
    """Flip the lowest bit of the last byte."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    keep_time(path, bytes(content))
