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
from clsp.report.collect import Name, runs_by_name
from clsp.report.comparison import execution_note
from clsp.report.custody import (
    build_banks,
    build_cards,
    build_environments,
    build_groups,
    build_imports,
    build_pairs,
    group_anchor,
)
from clsp.report.leakage import build_leakage
from clsp.report.quality import bank_anchor, bank_rows, build_quality
from clsp.report.records import Records
from clsp.runtime.canonical import sha256_json
from clsp.runtime.errors import ConfigError
from clsp.runtime.files import write_atomic
from clsp.runtime.manifest import Artefact
from clsp.runtime.stage import File, Input, Inputs, Outcome, Output

LIMITS = (
    "The audit proves that what is printed here follows from the stored predictions, and that "
    "every file is the one its manifest names. It cannot prove more: somebody who trained on test "
    "images and kept all records consistent would pass. Only drawing candidates and training "
    "steps again, or repeating a run, speaks to that. Unsigned records prove consistency, not "
    "authorship."
)


@dataclass(frozen=True)
class TableView:
    """A table as the template prints it."""

    name: str
    title: str
    names: list[str]  # titles of the columns that name a row
    columns: list[tuple[str, str]]  # (title, mark)
    compared: list[str]
    # Names, anchor (none for a published row that nobody runs here), cells.
    rows: list[tuple[tuple[str, str, str], str, list[Cell]]]
    notes: list[str]


@dataclass(frozen=True)
class FigureView:
    """A figure as the template prints it."""

    name: str
    title: str
    uri: str
    alt: str
    caption: str


def _row_anchors(params: Params) -> dict[Name, str]:
    """Where each row's runs are listed; an ablation may print an ordinary run's value too.

    Rows of banks lead to the bank.
    """
    runs = {
        name: group_anchor(name[0], name[1], runs[0].label)
        for name, runs in runs_by_name(params).items()
    }
    return runs | {name: bank_anchor(bank) for name, bank in bank_rows(params).items()}


def _table_view(artefact: Artefact, anchors: dict[Name, str]) -> TableView:
    facts = artefact.predicate["facts"]
    name = facts["table"]
    path = artefact.path(f"{name}.csv")
    cells = read_cells(path.read_text(encoding="utf-8"), str(path))
    rows: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.row, []).append(cell)
    columns = list(dict.fromkeys((cell.column, cell.mark) for cell in cells))
    return TableView(
        name,
        facts["title"],
        facts["names"],
        columns,
        facts["compared"],
        [(row, anchors.get(row, ""), of_row) for row, of_row in rows.items()],
        facts["notes"],
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


def render_page(
    params: Params,
    root: Path,
    frame: Artefact,
    tables: list[Artefact],
    figures: list[Artefact],
    deviations: Path,
    template: Path,
) -> str:
    """The whole page: a function of its arguments and the files they name."""
    records = Records(root)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["bank_anchor"] = bank_anchor
    missing, rows = _missing(frame)
    anchors = _row_anchors(params)
    page = environment.from_string(template.read_text(encoding="utf-8")).render(
        params=params,
        version=__version__,
        demonstration=DEMONSTRATION if params.demonstration else "",
        execution=execution_note(params),
        params_sha256=sha256_json(params.canonical()),
        settings=yaml.safe_dump(params.canonical(), sort_keys=False, width=88, allow_unicode=True),
        missing=missing,
        numbers=rows,
        tables=[_table_view(artefact, anchors) for artefact in tables],
        figures=[_figure_view(artefact) for artefact in figures],
        groups=build_groups(params, records),
        cards=build_cards(params, records),
        banks=build_banks(params, records),
        quality=build_quality(params, records),
        pairs=build_pairs(params, records),
        imports=build_imports(params, records),
        leakage=build_leakage(params, records),
        environments=build_environments(params, records),
        deviations=read_deviations(deviations),
        limits=LIMITS,
    )
    return page.rstrip() + "\n"


def render_report(
    spec: Params,
    root: Path,
    frame: Input,
    tables: Inputs,
    figures: Inputs,
    deviations: File,
    template: File,
    page: Output,
) -> Outcome:
    """Render the report.

    Args:
        spec: The validated parameters.
        root: Folder with the results of one profile; manifests and dataset cards are read.
        frame: Made by collect-results.
        tables: Made by render-table, in the order they are printed.
        figures: Made by render-figure, in the order they are printed.
        deviations: reports/spec/deviations.yaml.
        template: clsp/report/report.html.jinja.
        page: The report.
    """
    text = render_page(spec, root, frame, tables, figures, deviations, template)
    write_atomic(page, text)
    missing, rows = _missing(frame)
    return Outcome(counters={"numbers": rows, "missing": missing})
