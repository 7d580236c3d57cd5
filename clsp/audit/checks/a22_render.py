"""Frame, metrics, tables and the page are what follows from the manifests, byte by byte."""

import re
from dataclasses import replace
from pathlib import Path

import jinja2
import yaml

from clsp.audit.figures import redrawn
from clsp.audit.finding import BLOCKING, INCOMPLETE, Finding, Number
from clsp.audit.place import own_copy
from clsp.audit.suite import Suite
from clsp.report.cells import Cell, Table, read_cells
from clsp.report.collect import build_metrics
from clsp.report.page import Parts, render_page
from clsp.report.reference import CURVES, EXPLANATIONS
from clsp.report.table import latex_rows, markdown_rows, render
from clsp.runtime.canonical import canonical_json
from clsp.runtime.errors import ClspError
from clsp.runtime.manifest import Artefact

ID = "A22"
SEVERITY = BLOCKING
LEVEL = "L2"
READ = (CURVES, EXPLANATIONS)  # expectations that the page is drawn from
MALFORMED = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    jinja2.TemplateError,
    yaml.YAMLError,
    ClspError,
)


def _first_difference(found: str, expected: str) -> tuple[str, str]:
    """The first line in which two texts differ: expected, found."""
    theirs, ours = found.split("\n"), expected.split("\n")
    for number, (a, b) in enumerate(zip(theirs, ours, strict=False), start=1):
        if a != b:
            start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), 0)
            cut = slice(max(0, start - 30), start + 50)
            return f"line {number}: {b[cut]}", f"line {number}: {a[cut]}"
    return f"{len(ours)} lines", f"{len(theirs)} lines"


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _tracked(suite: Suite, artefact: Artefact, flag: str) -> Path:
    """The auditor's copy of a tracked file that an artefact was made from: never a forger's."""
    for dependency in artefact.predicate["resolvedDependencies"]:
        if dependency["name"] == flag:
            return own_copy(flag, suite.expectations) or Path(dependency["uri"])
    raise KeyError(f"{artefact.manifest} names no {flag}")


def _told(path: Path, expected: str, found: str, message: str, **scope: frozenset) -> Finding:
    return Finding(ID, BLOCKING, str(path), expected, found, message, **scope)


def _frame(suite: Suite) -> list[Finding]:
    findings = []
    metrics = canonical_json(build_metrics(suite.frame)) + "\n"
    for name, expected in (("frame.csv", suite.frame_text), ("metrics.json", metrics)):
        path = suite.reports / name
        try:
            found = _text(path)
        except (OSError, ValueError) as error:
            findings.append(_told(path, "a readable file", str(error), "cannot be compared"))
            continue
        if found != expected:
            numbers = _changed_numbers(suite, found) if name == "frame.csv" else frozenset()
            findings.append(
                _told(
                    path,
                    *_first_difference(found, expected),
                    "is not what the manifests give",
                    numbers=numbers,
                )
            )
    return findings


def _changed_numbers(suite: Suite, found: str) -> frozenset[Number]:
    """Numbers whose line of the frame differs from what the manifests give."""
    lines = set(found.split("\n"))
    _, *expected = suite.frame_text.split("\n")
    return frozenset(
        Number(row["run"], row["task"], row["protocol"], row["variant"])
        for row, line in zip(suite.frame, expected, strict=False)
        if line not in lines
    )


def _changed_cells(table: str, found: str, expected: list[Cell]) -> frozenset[str]:
    """Cells of a table's csv that differ; all of them if it cannot be read."""
    try:
        held = set(read_cells(found, table))
    except MALFORMED:
        return frozenset({f"{table}:*"})
    changed = {f"{table}:{cell.identifier}" for cell in expected if cell not in held}
    return frozenset(changed or {f"{table}:*"})


def _changed_rows(table: str, built: Table, lines: list[str], found: str) -> frozenset[str]:
    """Cells of the rows that a text lacks; all cells if it differs elsewhere."""
    held = set(found.split("\n"))
    rows = [row for row, line in zip(built.rows, lines, strict=True) if line not in held]
    cells = {f"{table}:{cell.identifier}" for cell in built.cells if cell.row in rows}
    return frozenset(cells or {f"{table}:*"})


def _marked_as(built: Table, found: str) -> Table:
    """The table with marks as they were found, wherever a row beside has changed in more than them.

    Best and tied values depend on every row that competes; what spoiled one is no fault of others.
    """
    try:
        held = {cell.identifier: cell for cell in read_cells(found, "csv")}
    except MALFORMED:
        return built
    alike, changed = set(), set()
    for cell in built.cells:
        theirs = held.get(cell.identifier)
        if theirs is not None and replace(theirs, standing=cell.standing) == cell:
            alike.add(cell.identifier)
        else:
            changed.add((cell.dataset, cell.encoder, cell.column))
    cells = [
        replace(cell, standing=held[cell.identifier].standing)
        if cell.identifier in alike and (cell.dataset, cell.encoder, cell.column) in changed
        else cell
        for cell in built.cells
    ]
    return replace(built, cells=cells)


def _changed(table: str, ending: str, found: str, built: Table) -> frozenset[str]:
    if ending == "csv":
        return _changed_cells(table, found, built.cells)
    lines = markdown_rows(built) if ending == "md" else latex_rows(built)
    return _changed_rows(table, built, lines, found)


def _table(suite: Suite, table: str) -> list[Finding]:
    artefact = suite.report_artefact(f"tables/{table}.manifest.json")
    if artefact is None:
        return []  # A01 reports it
    whole = frozenset({f"{table}:*"})
    try:
        published = _tracked(suite, artefact, "published")
        built, texts = render(suite.shown, table, suite.frame_text, published)
    except MALFORMED as error:
        told = (artefact.manifest, "a table that can be drawn again", str(error))
        return [_told(*told, "cannot be compared", cells=whole)]
    findings, blamed = [], built
    for ending, expected in texts.items():
        path = artefact.folder / f"{table}.{ending}"
        try:
            found = _text(path)
        except (OSError, ValueError) as error:
            found = f"cannot be read: {error}"
        if found != expected:
            blamed = _marked_as(built, found) if ending == "csv" else blamed
            cells = _changed(table, ending, found, blamed)
            told = _first_difference(found, expected)
            message = "the table is not what the manifests give"
            findings.append(_told(path, *told, message, cells=cells))
    return findings


ROW = re.compile(r'<article class="row" ')
SECTION = re.compile(r'<section(?: class="[a-z]+")? aria-labelledby="([^"]*)">')


def _sections(page: str) -> dict[str, str]:
    """The text after every section's beginning, up to the next one's, by the id of its heading."""
    _, *parts = SECTION.split(page)
    return dict(zip(parts[::2], parts[1::2], strict=True))


def _spoiled(suite: Suite, held: dict[str, str], drawn: dict[str, str], table: str) -> list[str]:
    """Cells that the page shows otherwise: of rows whose evidence differs, or of all rows."""
    shown, evidence = f"table-{table}", f"evidence-{table}"
    if held.get(shown) != drawn.get(shown):
        return [f"{table}:*"]
    if held.get(evidence) == drawn.get(evidence):
        return []
    theirs, ours = (ROW.split(part.get(evidence, ""))[1:] for part in (held, drawn))
    cells = read_cells(_text(suite.reports / f"tables/{table}.csv"), table)
    rows = list(dict.fromkeys(cell.row for cell in cells))  # the page follows the csv
    if not len(theirs) == len(ours) == len(rows):
        return [f"{table}:*"]
    differ = {row for row, a, b in zip(rows, theirs, ours, strict=True) if a != b}
    return [f"{table}:{cell.identifier}" for cell in cells if cell.row in differ]


def _parts(suite: Suite, artefact: Artefact) -> Parts | None:
    """What the page is made from, or None if some of it is not there."""
    shown, report = suite.shown, suite.report_artefact
    single = [report("frame.manifest.json"), report("claims.manifest.json")]
    tables = [report(f"tables/{name}.manifest.json") for name in shown.tables]
    figures = [report(f"figures/{name}.manifest.json") for name in shown.figures]
    if None in (*single, *tables, *figures):
        return None
    read = {name: _tracked(suite, artefact, f"expectations/{name}") for name in READ}
    tracked = [_tracked(suite, artefact, flag) for flag in ("deviations", "template")]
    return Parts(*single, tables, figures, read, *tracked)


def _page(suite: Suite) -> list[Finding]:
    artefact = suite.report_artefact("report.manifest.json")
    if artefact is None:
        return []
    path, shown = suite.reports / "report.html", suite.shown
    try:
        parts = _parts(suite, artefact)
        expected = render_page(shown, suite.results, parts) if parts else None
        found = _text(path)
    except MALFORMED as error:
        told = (path, "a page that can be drawn again", str(error), "cannot be compared")
        return [_told(*told, cells=frozenset({"*"}))]
    if expected is None:
        message = "the page cannot be drawn again, because a part of it is not there"
        return [Finding(ID, INCOMPLETE, str(path), "all parts of the page", "fewer", message)]
    if found == expected:
        return []
    held, drawn = _sections(found), _sections(expected)
    differ = [name for name, text in drawn.items() if held.get(name) != text]
    told = _first_difference(found, expected)
    message = "the page is not what the manifests give"
    if differ:
        message = f"{message}; sections: {', '.join(differ)}"
    spoiled = [cell for table in shown.tables for cell in _spoiled(suite, held, drawn, table)]
    return [_told(path, *told, message, cells=frozenset(spoiled))]


def check(suite: Suite) -> list[Finding]:
    """Draw everything again in memory and compare."""
    tables = [finding for table in suite.shown.tables for finding in _table(suite, table)]
    return [*_frame(suite), *tables, *redrawn(suite), *_page(suite)]
