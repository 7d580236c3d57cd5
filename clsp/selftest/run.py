"""`python -m clsp audit --self-test`: inject every fault of the matrix, and look at what is found.

A small tree of results is made with numpy, without training. It has to pass; then each fault
damages a copy of it, and the audit has to find exactly what is expected. The process that computes
samples again is replaced by one that knows the tree as it was, so that neither torch nor a GPU is
needed.

The tree and its faults are those of the suite's own tests, tests/support of the checkout: a fault
that is added there is part of the self-test as soon as the matrix names it.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from clsp.audit import run as audit
from clsp.runtime import tracking
from clsp.runtime.canonical import canonical_json
from clsp.runtime.errors import DataError
from clsp.runtime.source import ROOT

SUPPORT = ROOT / "tests/support"


def _support() -> SimpleNamespace:
    """The modules that make and damage the tree.

    Raises:
        DataError: If they are not here.
    """
    if not (SUPPORT / "results_tree.py").is_file():
        raise DataError(f"--self-test: {SUPPORT}: not here; run it in a checkout of the suite")
    if str(SUPPORT) not in sys.path:
        sys.path.insert(0, str(SUPPORT))
    names = ("faults", "results_tree", "replaying", "matrix", "copying")
    return SimpleNamespace(**{name: importlib.import_module(name) for name in names})


def _audit(tree: Any, params: Any, options: tuple[str, ...], out: Path) -> tuple[int, dict]:
    """Exit code and record of an audit; what it prints is kept back."""
    spec = canonical_json(params.canonical())
    given = ["--spec", spec, "--results", str(tree.results), "--reports", str(tree.reports)]
    given += ["--out", str(out), *(text.format(base=tree.results.parents[1]) for text in options)]
    given += ["--mlflow", f"sqlite:///{tree.store}"] if tree.store else []
    silent = io.StringIO()
    with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
        code = audit.main(given)
    return code, json.loads(out.read_text(encoding="utf-8"))


def _found(record: dict[str, Any], severity: str) -> set[str]:
    badge = severity == "badge"
    return {f["id"] for f in record["findings"] if (f["severity"] == "badge") == badge}


@contextlib.contextmanager
def _replaced(name: str, value: Any) -> Any:
    before = getattr(audit, name)
    setattr(audit, name, value)
    try:
        yield
    finally:
        setattr(audit, name, before)


class _Trial:
    """Makes each kind of tree once, and tries faults on copies."""

    def __init__(self, support: SimpleNamespace, folder: Path) -> None:
        self.support, self.folder = support, folder
        self.originals: dict[str, Path] = {}

    def original(self, kind: str) -> Path:
        """The clean tree of a kind."""
        if kind not in self.originals:
            base = self.folder / f"original-{kind or 'plain'}"
            base.mkdir()
            self.originals[kind] = self.support.copying.build(
                base, self.params(kind), mirrored=kind == ""
            )
        return self.originals[kind]

    def params(self, kind: str) -> Any:
        """What a kind of tree is asked for."""
        changes = self.support.copying.CHANGES[kind]
        return self.support.results_tree.tiny_params(**changes)

    def run(self, name: str, kind: str, inject: Callable[[Any], None], options: tuple) -> tuple:
        """Copy, damage, audit; returns exit code and record."""
        with tempfile.TemporaryDirectory(dir=self.folder) as target:
            tree = self.support.copying.copy_tree(self.original(kind), Path(target))
            stand_in = self.support.replaying.StandIn(tree) if "L3" in options else None
            inject(tree)
            with _replaced("Subprocess", lambda: stand_in):
                return _audit(tree, self.params(kind), options, Path(target) / "audit.json")


def _row(name: str, expected: str, found: str, well: bool) -> str:
    return f"{name:46} {expected:24} {found:24} {'ok' if well else 'NOT FOUND AS EXPECTED'}\n"


def _try_all(trial: _Trial, names: list[str]) -> tuple[int, int]:
    """Print a line per clean tree and fault; returns how many are well, and how many there are."""
    faults, well, kinds = trial.support.faults.FAULTS, 0, []
    for name in names:
        kinds += [faults[name].within] if faults[name].within not in kinds else []
    for kind in kinds:
        code, record = trial.run("clean", kind, lambda _: None, ())
        good = code == 0 and record["verdict"] == "verified"
        well += good
        sys.stdout.write(_row(f"(clean tree) {kind}", "pass", record["verdict"], good))
    for name in names:
        fault = faults[name]
        code, record = trial.run(name, fault.within, fault.inject, fault.options)
        blocking, notes = _found(record, "finding"), _found(record, "badge")
        good = code == fault.code and blocking == fault.checks and fault.notes <= notes
        well += good
        told = " ".join([*sorted(blocking), *sorted(f"({n})" for n in notes & fault.notes)])
        wanted = " ".join([*sorted(fault.checks), *sorted(f"({n})" for n in fault.notes)])
        sys.stdout.write(_row(name, wanted, told, good))
        sys.stdout.flush()
    return well, len(kinds) + len(names)


def main() -> int:
    """Run the self-test; returns 0 only if every fault is found and clean trees pass."""
    started, support, here = time.monotonic(), _support(), Path.cwd()
    logging.disable(logging.INFO)
    os.environ.pop(tracking.URI, None)
    sys.stdout.write(_row("fault", "expected", "found", True).replace(" ok", " well"))
    with tempfile.TemporaryDirectory(prefix="clsp-self-test-") as folder:
        os.chdir(folder)  # locks and notes of jobs lie in the working folder
        try:
            trial = _Trial(support, Path(folder))
            well, total = _try_all(trial, support.matrix.injected())
        finally:
            os.chdir(here)
            logging.disable(logging.NOTSET)
    for line in support.matrix.elsewhere():
        sys.stdout.write(f"{line}\n")
    seconds = time.monotonic() - started
    sys.stdout.write(f"self-test: {well} of {total} as expected, in {seconds:.0f} s\n")
    return 0 if well == total else 1
