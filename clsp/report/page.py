"""Stage render-report: the HTML report, one self-contained file without scripts."""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml

from clsp import __version__
from clsp.config.load import read_yaml
from clsp.config.schema import Params
from clsp.report.cells import DEMONSTRATION, Cell, read_cells
from clsp.report.claims_view import BADGES, MEANINGS, build_claims
from clsp.report.comparison import execution_note
from clsp.report.custody import build_groups
from clsp.report.evidence import Book, Evidence, build_book, build_evidence
from clsp.report.leakage import build_leakage
from clsp.report.limits import LIMITS, MEANING
from clsp.report.measured import build_measured, describe_measured
from clsp.report.records import Records
from clsp.report.reference import build_reference
from clsp.report.sources import (
    build_banks,
    build_cards,
    build_denoisers,
    build_environments,
    build_imports,
    build_pairs,
)
from clsp.report.table import source_note
from clsp.runtime.canonical import sha256_json
from clsp.runtime.errors import ConfigError
from clsp.runtime.files import write_atomic
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import File, Files, Input, Inputs, Outcome, Output


@dataclass(frozen=True)
class Parts:
    """Everything that a page is made from, beside the parameters and the manifests.

    Attributes:
        frame: Made by collect-results.
        claims: Made by judge-claims.
        tables: Made by render-table, in the order they are printed.
        figures: Made by render-figure, in the order they are printed.
        expectations: official_curves.json and explanations.yaml of reports/spec, by name.
        deviations: reports/spec/deviations.yaml.
        template: clsp/report/report.html.jinja.
    """

    frame: Artefact
    claims: Artefact
    tables: list[Artefact]
    figures: list[Artefact]
    expectations: dict[str, Path]
    deviations: Path
    template: Path


@dataclass(frozen=True)
class TableView:
    """A table as the template prints it."""

    name: str
    title: str
    names: list[str]  # titles of the columns that name a row
    columns: list[tuple[str, str]]  # (title, mark)
    compared: list[str]
    rows: list[Evidence]
    notes: list[str]  # without the sources of published numbers
    sources: list[str]  # of published numbers

    def source_of(self, cell: Cell) -> int:
        """Number, from 1, of the source of a cell's published value."""
        return self.sources.index(source_note(cell)) + 1


@dataclass(frozen=True)
class FigureView:
    """A figure as the template prints it."""

    name: str
    title: str
    uri: str
    alt: str
    caption: str


def _table_view(artefact: Artefact, book: Book) -> TableView:
    facts = artefact.predicate["facts"]
    name = facts["table"]
    path = artefact.path(f"{name}.csv")
    cells = read_cells(path.read_text(encoding="utf-8"), str(path))
    sources = [source_note(cell) for cell in cells if cell.published is not None]
    return TableView(
        name,
        facts["title"],
        facts["names"],
        list(dict.fromkeys((cell.column, cell.mark) for cell in cells)),
        facts["compared"],
        build_evidence(name, cells, book),
        [note for note in facts["notes"] if note not in sources],
        list(dict.fromkeys(sources)),
    )


def _figure_view(artefact: Artefact) -> FigureView:
    facts = artefact.predicate["facts"]
    picture = artefact.path(f"{facts['figure']}.png").read_bytes()
    uri = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    return FigureView(facts["figure"], facts["title"], uri, facts["alt"], facts["caption"])


def _missing(frame: Artefact) -> tuple[int, int]:
    counters = frame.predicate["counters"]
    return counters["missing"], counters["rows"]


def read_deviations(path: Path) -> list[dict[str, str]]:
    """The deviations of deviations.yaml.

    Raises:
        ConfigError: If an entry lacks a field or an id is given twice.
    """
    data = read_yaml(path)
    entries = data.get("deviations", []) if isinstance(data, dict) else []
    for entry in entries:
        if absent := sorted({"id", "title", "authors", "ours", "why"} - set(entry)):
            raise ConfigError(f"{path}: an entry lacks {', '.join(absent)}: {entry}")
    identifiers = [entry["id"] for entry in entries]
    if twice := sorted({i for i in identifiers if identifiers.count(i) > 1}):
        raise ConfigError(f"{path}: given twice: {', '.join(twice)}")
    return entries


def _number(value: Any, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    return environment


def _content(params: Params, root: Path, parts: Parts) -> dict[str, Any]:
    """Everything that the results say, by the name under which the template knows it."""
    records = Records(root)
    groups, measured = build_groups(params, records), build_measured(params, records)
    book = build_book(params, groups, measured)
    tables = [_table_view(artefact, book) for artefact in parts.tables]
    rows = {table.name: table.rows for table in tables}
    missing, numbers = _missing(parts.frame)
    return {
        "missing": missing,
        "numbers": numbers,
        "claims": build_claims(params, records, parts.claims, book, rows),
        "reference": build_reference(params, book.numbers, parts.expectations),
        "tables": tables,
        "figures": [_figure_view(artefact) for artefact in parts.figures],
        "leakage": build_leakage(params, records),
        "measured": measured,
        "quality": describe_measured(params, records),
        "groups": groups,
        "cards": build_cards(params, records),
        "denoisers": build_denoisers(params, records),
        "banks": build_banks(params, records),
        "pairs": build_pairs(params, records),
        "imports": build_imports(params, records),
        "environments": build_environments(params, records),
        "anchors": book.anchors,
    }


def render_page(params: Params, root: Path, parts: Parts) -> str:
    """The whole page: a function of its arguments and the files they name."""
    template = _environment().from_string(parts.template.read_text(encoding="utf-8"))
    page = template.render(
        params=params,
        version=__version__,
        demonstration=DEMONSTRATION if params.demonstration else "",
        execution=execution_note(params),
        params_sha256=sha256_json(params.canonical()),
        settings=yaml.safe_dump(params.canonical(), sort_keys=False, width=88, allow_unicode=True),
        deviations=read_deviations(parts.deviations),
        badges=BADGES,
        meanings=MEANINGS,
        limits=LIMITS,
        meaning=MEANING,
        **_content(params, root, parts),
    )
    return page.rstrip() + "\n"


def render_report(
    spec: Params,
    root: Path,
    frame: Input,
    claims: Input,
    tables: Inputs,
    figures: Inputs,
    expectations: Files,
    deviations: File,
    template: File,
    page: Output,
) -> Outcome:
    """Render the report.

    Args:
        spec: The validated parameters.
        root: Folder with the results of one profile; manifests and dataset cards are read.
        frame: Made by collect-results.
        claims: Made by judge-claims.
        tables: Made by render-table, in the order they are printed.
        figures: Made by render-figure, in the order they are printed.
        expectations: official_curves.json and explanations.yaml of reports/spec.
        deviations: reports/spec/deviations.yaml.
        template: clsp/report/report.html.jinja.
        page: The report.
    """
    named = {path.name: path for path in expectations}
    parts = Parts(frame, claims, tables, figures, named, deviations, template)
    write_atomic(page, render_page(spec, root, parts))
    missing, rows = _missing(frame)
    return Outcome(counters={"numbers": rows, "missing": missing})
