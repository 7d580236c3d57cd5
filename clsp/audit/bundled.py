"""What is different when a bundle is audited: where files lie, and what was left out of it."""

import contextlib
import importlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from clsp.audit.finding import BLOCKING, INCOMPLETE, Finding
from clsp.audit.suite import Suite
from clsp.runtime.errors import ConfigError

OPENED = "clsp.bundle.opened:opened"  # above this package: it packs what the audit reads
# Of the maker's own tools; no check reads them, and an audit of a folder leaves them alone.
UNREAD = ("provenance/snakemake.json", "audit.json")
EXPORTS = "exports"  # below the report's folder: views of it all, as large as what they show


def opened(
    path: Path | None, folder: Path | None, results: Path | None, reports: Path | None
) -> AbstractContextManager[Any]:
    """The bundle that is to be audited, unpacked for as long as that takes; None without one.

    Raises:
        ConfigError: If flags contradict each other.
        DataError: If the bundle is damaged or hostile.
    """
    if path is None:
        if folder is not None:
            raise ConfigError(f"--unpack {folder}: no bundle is given")
        return contextlib.nullcontext()
    if results is not None or reports is not None:
        raise ConfigError(f"{path}: --results and --reports are those of the bundle")
    module, _, name = OPENED.partition(":")
    return getattr(importlib.import_module(module), name)(path, folder)


def absent(suite: Suite) -> Iterator[Finding]:
    """Files that were left out and that no manifest names: nobody looked at them."""
    named = {artefact.folder / name for artefact in suite.artefacts for name in artefact.subjects}
    roots = (suite.results, suite.reports)
    unread = {root / name for root in roots for name in UNREAD}
    for path in sorted(suite.place.left_out.keys() - named - unread):
        told = ("a file of the bundle", "its name and sha256 alone")
        message = "left out of the bundle, so that nobody looked at it"
        yield Finding("A03", INCOMPLETE, str(path), *told, message)


def relaxed(suite: Suite, findings: list[Finding]) -> list[Finding]:
    """Findings, of which those that only say that a left-out file cannot be read are incomplete.

    That a file was left out is reported of itself, so that this turns nothing into a pass.
    """
    if not (left_out := {str(path) for path in suite.place.left_out}):
        return findings
    # A whole path: "results/x/a" says nothing of "results/x/accuracy.json".
    named = re.compile(f"(?:{'|'.join(map(re.escape, sorted(left_out)))})(?![\\w/+-]|\\.\\w)")
    found = []
    for each in findings:
        about = (each.file, each.found, each.message)
        judged = each.severity == BLOCKING and each.id not in ("A02", "A03")
        if judged and any(map(named.search, about)):
            message = f"{each.message}; the bundle was packed without a file that it needs"
            found.append(replace(each, severity=INCOMPLETE, message=message))
        else:
            found.append(each)
    return [*found, *absent(suite)]


def relative(value: Any, root: Path | None) -> Any:
    """Plain JSON types or findings, with paths below the unpacked bundle as the bundle has them."""
    if root is None:
        return value
    if isinstance(value, str):
        # As a path of its own: "/data" is no beginning of "results/demo/data/digits".
        here = rf"(?<![\w.+/-]){re.escape(str(root))}(/|(?![\w.+-]))"
        return re.sub(here, lambda found: "" if found[1] else ".", value)
    if isinstance(value, dict):
        return {key: relative(inner, root) for key, inner in value.items()}
    if isinstance(value, list):
        return [relative(inner, root) for inner in value]
    if isinstance(value, Finding):
        texts = {name: getattr(value, name) for name in ("file", "expected", "found", "message")}
        return replace(value, **relative(texts, root))
    return value
