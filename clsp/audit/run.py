"""`python -m clsp audit`: run every check, judge every cell, write audit.json.

Exit codes: 0 pass, 1 findings, 2 usage or configuration, 3 incomplete, 4 files or environment.
"""

import argparse
import csv
import importlib
import os
import struct
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from clsp.audit import bundled, mirror
from clsp.audit.checks.a03_file_set import irregular
from clsp.audit.claims import audited_claims
from clsp.audit.finding import BADGE, BLOCKING, INCOMPLETE, Finding
from clsp.audit.flags import build_parser
from clsp.audit.level import L3, level_of, reaches, read_nonce
from clsp.audit.place import Place
from clsp.audit.replaying import Depth, Subprocess
from clsp.audit.suite import Suite
from clsp.audit.summary import rerun_hint, summary
from clsp.audit.verdict import (
    ACCEPTED,
    INVALID,
    NOT_RUN,
    VERIFIED,
    CellVerdict,
    judge_cells,
    overall,
)
from clsp.config.given import given_folder, given_params
from clsp.config.schema import Params
from clsp.report.cells import DEMONSTRATION
from clsp.report.limits import LIMITS
from clsp.runtime import registry, tracking
from clsp.runtime.canonical import canonical_json, sha256_json
from clsp.runtime.errors import ClspError, ConfigError
from clsp.runtime.files import write_atomic

CHECKS = "clsp.audit.checks"
EXIT = {VERIFIED: 0, INVALID: 1, ACCEPTED: 1, NOT_RUN: 3}
SELF_TEST = "clsp.selftest.run:main"  # above this package: it makes a tree and damages it
SCHEMA = 1
UNEXPECTED = (  # what reading a forged or damaged file may raise; errors of the code itself too
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    OSError,
    EOFError,
    RuntimeError,
    MemoryError,
    csv.Error,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    ClspError,
)


def load_checks() -> dict[str, ModuleType]:
    """Every check by its id, in order."""
    modules = [importlib.import_module(f"{CHECKS}.{name}") for name in registry.names(CHECKS)]
    return {module.ID: module for module in modules}


def _about(module: ModuleType) -> str:
    return (module.__doc__ or "").strip().splitlines()[0]


def _run_check(module: ModuleType, suite: Suite) -> list[Finding]:
    """Findings of one check. That it cannot cope with what it reads is a finding too."""
    try:
        return module.check(suite)
    except UNEXPECTED as error:
        found = f"{type(error).__name__}: {error}"
        message = "the check could not be done, because a file holds what nobody expected"
        told = (str(suite.results), "files that can be checked", found, message)
        return [Finding(module.ID, BLOCKING, *told, everything=True)]


def run_checks(suite: Suite) -> list[Finding]:
    """Findings of every check that the level asks for, in the order of their ids."""
    if unsafe := irregular(suite):
        return unsafe
    wanted = [m for m in load_checks().values() if reaches(suite.depth.level, level_of(m))]
    return [finding for module in wanted for finding in _run_check(module, suite)]


def _mlflow_state(suite: Suite, findings: list[Finding]) -> str:
    if not suite.compare_mlflow:
        return "left out by the auditor"
    if not suite.tracked:
        return "off: not compared"
    missing = any(f.id == "A20" and f.severity == INCOMPLETE for f in findings)
    return "expected, but not all of it is here" if missing else "compared"


def _ledger_state(suite: Suite) -> dict[str, Any]:
    """Head of the ledger, to be noted as an anchor, and how attempts ended."""
    if suite.ledger is None:
        return {"head": None, "lines": 0, "attempts": {}}
    lines = suite.ledger.lines
    ends = Counter(str(line.get("status")) for line in lines if line.get("event") == "end")
    return {"head": suite.ledger.head, "lines": len(lines), "attempts": dict(sorted(ends.items()))}


def build_record(
    suite: Suite,
    findings: list[Finding],
    cells: list[CellVerdict],
    accepted: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """audit.json: all that was found, without times, so that equal inputs give equal bytes.

    Args:
        suite: That was audited.
        findings: Of all checks.
        cells: Their verdicts.
        accepted: Check -> the auditor's reason for accepting its findings.
    """
    subjects = [subject for artefact in suite.artefacts for subject in artefact.subjects.values()]
    severities = (BLOCKING, INCOMPLETE, BADGE)
    counts = {kind: sum(f.severity == kind for f in findings) for kind in severities}
    verdicts = (VERIFIED, INVALID, NOT_RUN)
    totals = {verdict: sum(c.verdict == verdict for c in cells) for verdict in verdicts}
    return {
        "schema_version": SCHEMA,
        "verdict": overall(cells, findings, accepted),
        "reduced": suite.params.demonstration,
        "mark": DEMONSTRATION if suite.params.demonstration else "",
        "level": suite.depth.level,
        "nonce": suite.depth.nonce,
        "replayed": sorted(suite.depth.done),
        "ledger": _ledger_state(suite),
        "anchor": suite.anchor,
        "accepted": dict(accepted),
        "profile": suite.params.profile,
        "spec_sha256": sha256_json(suite.shown.canonical()),
        "results": str(suite.results),
        "reports": str(suite.reports),
        "mlflow": _mlflow_state(suite, findings),
        "totals": {
            "manifests": len(suite.artefacts),
            "files": len(subjects),
            "bytes": sum(subject.get("size") or 0 for subject in subjects),
            "numbers": len(suite.numbers),
            "cells": totals,
            "findings": counts,
        },
        "checks": [
            {
                "id": module.ID,
                "severity": module.SEVERITY,
                "level": level_of(module),
                "done": reaches(suite.depth.level, level_of(module)),
                "about": _about(module),
                "findings": sum(finding.id == module.ID for finding in findings),
            }
            for module in load_checks().values()
        ],
        "findings": [finding.record() for finding in findings],
        "cells": [cell.record(suite.params.demonstration) for cell in cells],
        "claims": audited_claims(suite, findings),
        "limits": LIMITS,
    }


def _params(arguments: argparse.Namespace, bundle: Any) -> Params:
    """As given, else those of the bundle, else those of this folder."""
    if bundle is not None and arguments.params is None and arguments.spec is None:
        return bundle.params
    return given_params(arguments.params or Path("params.yaml"), arguments.spec)


def _mlflow(arguments: argparse.Namespace, params: Params, bundle: Any = None) -> str | None:
    """The store to compare with: as given, else the bundle's, the environment's or this folder's.

    Jobs leave the environment's alone where params.yaml switches tracking off. The rule passes
    resolved parameters, which leave tracking out, and sets the variable only where it is on.
    """
    if arguments.mlflow:
        return arguments.mlflow
    if bundle is not None:
        return bundle.mlflow
    listened = params.tracking or arguments.spec is not None
    if listened and os.environ.get(tracking.URI):
        return os.environ[tracking.URI]
    default = tracking.default_uri()
    return default if mirror.exists(default) else None


def _accepted(arguments: argparse.Namespace) -> dict[str, str]:
    """Accepted checks with their reasons.

    Raises:
        ConfigError: If a check is unknown or has no reason.
    """
    names, reasons = [name.upper() for name in arguments.accept], arguments.reason
    if len(names) != len(reasons) or not all(reason.strip() for reason in reasons):
        raise ConfigError(f"--accept: {len(names)} checks need as many --reason, not empty")
    if unknown := sorted(set(names) - load_checks().keys()):
        raise ConfigError(f"--accept {unknown[0]}: unknown check; see --list-checks")
    return dict(zip(names, reasons, strict=True))


def _depth(arguments: argparse.Namespace) -> Depth:
    """How deep to go. Below L3 nothing is drawn, so that equal inputs give equal records."""
    if arguments.samples < 1 or arguments.replay_runs < 1:
        raise ConfigError("--samples and --replay-runs: expected at least 1")
    replays = reaches(arguments.level, L3)
    nonce = read_nonce(arguments.nonce) if replays or arguments.nonce else ""
    replayer = Subprocess() if replays else None
    return Depth(arguments.level, nonce, replayer, arguments.samples, arguments.replay_runs)


def _say(lines: list[str], stream: Any) -> None:
    stream.write("".join(f"{line}\n" for line in lines))


def _explain(identifier: str) -> int:
    checks = load_checks()
    if identifier.upper() not in checks:
        raise ConfigError(f"--explain {identifier}: unknown check; known: {', '.join(checks)}")
    module = checks[identifier.upper()]
    _say([f"{module.ID} ({module.SEVERITY}): {(module.__doc__ or '').strip()}"], sys.stdout)
    return 0


def main(argv: list[str]) -> int:
    """Audit one profile; returns the exit code.

    Raises:
        ConfigError: If the parameters or a flag are wrong.
        DataError: If a folder is not there, a bundle is damaged, or audit.json cannot be written.
    """
    arguments = build_parser(__doc__).parse_args(argv)
    if arguments.self_test:
        module, _, name = SELF_TEST.partition(":")
        return getattr(importlib.import_module(module), name)()
    if arguments.list_checks:
        checks = load_checks().values()
        _say([f"{m.ID} {level_of(m)} {m.SEVERITY:9} {_about(m)}" for m in checks], sys.stdout)
        return 0
    if arguments.explain:
        return _explain(arguments.explain)
    accepted, depth = _accepted(arguments), _depth(arguments)
    told = (arguments.bundle, arguments.unpack, arguments.results, arguments.reports)
    with bundled.opened(*told) as bundle:
        return _audit(arguments, bundle, accepted, depth)


def _suite(arguments: argparse.Namespace, bundle: Any, depth: Depth) -> Suite:
    """What is audited: the folders here, or those of an unpacked bundle."""
    params = _params(arguments, bundle)
    if bundle is None:
        results = given_folder(arguments.results, "results", params.profile)
        reports = given_folder(arguments.reports, "reports", params.profile)
    else:
        results, reports = bundle.results, bundle.reports
    return Suite(
        params,
        results,
        reports,
        _mlflow(arguments, params, bundle),
        compare_mlflow=not arguments.without_mlflow,
        depth=depth,
        anchor=arguments.anchor,
        expectations=arguments.expectations,
        place=Place() if bundle is None else bundle.place,
    )


def _audit(arguments: argparse.Namespace, bundle: Any, accepted: dict, depth: Depth) -> int:
    suite = _suite(arguments, bundle, depth)
    root, out = suite.place.root, arguments.out or suite.reports / "audit.json"
    if bundle is not None:
        out = arguments.out or bundle.out
        _say(bundle.notes(suite.expectations), sys.stderr)
    findings = bundled.relaxed(suite, run_checks(suite))
    record = build_record(suite, findings, judge_cells(suite, findings), accepted)
    if bundle is not None:
        record["bundle"] = bundle.record(suite.expectations)
    record = bundled.relative(record, root)
    text = canonical_json(record) + "\n"
    write_atomic(out, text)
    _say([bundled.relative(finding, root).line for finding in findings], sys.stderr)
    shown = [text.rstrip()] if arguments.json else [*rerun_hint(suite), *summary(record)]
    _say(shown, sys.stdout)
    return EXIT[record["verdict"]]
