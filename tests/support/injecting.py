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

from clsp.runtime.canonical import canonical_json, sha256_file, sha256_text
from clsp.runtime.ledger import GENESIS, ledger_of
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
    notes: frozenset[str] = frozenset()  # checks whose badges must tell of it
    options: tuple[str, ...] = ()  # flags of the audit that it needs


FAULTS: dict[str, Fault] = {}


def fault(
    *checks: str,
    code: int = 1,
    within: str = "",
    notes: tuple[str, ...] = (),
    options: tuple[str, ...] = (),
) -> Callable[[Callable[[Tree], None]], Callable]:
    """Register a fault under its function's name."""

    def register(inject: Callable[[Tree], None]) -> Callable[[Tree], None]:
        known = Fault(inject, frozenset(checks), code, within, frozenset(notes), options)
        FAULTS[inject.__name__] = known
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
    forge_ledger(manifest)


def edit_ledger(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Forge the ledger: change its lines, then chain them anew."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    head, text = GENESIS, ""
    for line in lines:
        written = canonical_json({**line, "prev_sha256": head})
        head, text = sha256_text(written), f"{text}{written}\n"
    keep_time(path, text.encode())


def forge_ledger(manifest: Path) -> None:
    """Make the ledger tell of a manifest what it says now, as a careful forger would."""
    path = ledger_of(manifest)
    predicate = json.loads(manifest.read_text())["predicate"]
    settings = predicate["externalParameters"]
    about = {
        "spec_sha256": settings["spec_sha256"],
        "code": predicate["internalParameters"]["code"],
    }

    def change(lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line.get("attempt") == predicate["run_uid"]:
                ended = {"manifest_sha256": sha256_file(manifest)}
                line.update(about if line["event"] == "start" else ended)

    edit_ledger(path, change)


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
