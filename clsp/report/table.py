"""Stage render-table: one table as csv (the numbers), markdown and LaTeX."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pandas as pd

from clsp.config.schema import TABLES, Params
from clsp.report.cells import BEST, DEMONSTRATION, TIED, Cell, Table, cells_csv
from clsp.report.comparison import check_recipes, comparison_notes, imported_notes
from clsp.report.escape import csv_value, latex, latex_table, markdown
from clsp.report.noise import bank_notes, image_notes
from clsp.report.published import PublishedNumbers
from clsp.report.standing import standing_notes, with_standings
from clsp.runtime import registry
from clsp.runtime.errors import DataError
from clsp.runtime.files import write_atomic
from clsp.runtime.stage import File, Input, Outcome, Output


def read_frame(text: str) -> pd.DataFrame:
    """The frame that collect-results wrote: text columns as text, values as numbers.

    Raises:
        DataError: If it is not such a frame.
    """
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    needed = {
        "run",
        "label",
        "dataset",
        "encoder",
        "method",
        "task",
        "protocol",
        "seed",
        "variant",
        "metric",
        "value",
        "total",
        "status",
        "converged",
        "variation",
        "recipe",
        "uses_labels",
        "checkpoint",
    }
    if absent := sorted(needed - set(frame.columns)):
        raise DataError(f"frame.csv: the columns {', '.join(absent)} are missing")
    for column in frame.columns:
        frame[column] = frame[column].map(csv_value)
    frame["value"] = pd.to_numeric(frame["value"])
    return frame


def build_table(
    params: Params, table: str, frame: pd.DataFrame, published: PublishedNumbers
) -> Table:
    """Build a table by its plug-in's name, with what its rows do not share.

    Raises:
        ConfigError: If the frame mixes recipe families and params.yaml does not allow it.
    """
    module: ModuleType = registry.load(TABLES, table, "table")
    check_recipes(params, frame)
    shown = module.select(frame)
    built: Table = module.build(params, shown, published)
    cells = with_standings(built.cells, shown)
    notes = [*comparison_notes(params, built.rows), *imported_notes(shown)]
    noise = [*bank_notes(params, built.rows), *image_notes(cells)]
    marks = [*standing_notes(cells, shown), *noise, *_badge_notes(cells, published)]
    return replace(built, cells=cells, notes=[*built.notes, *marks], comparison=notes)


def _badge_notes(cells: list[Cell], published: PublishedNumbers) -> list[str]:
    """The legend of what stands in square brackets behind published values."""
    met = {cell.published_protocol for cell in cells if cell.published_mismatch}
    if not met:
        return []
    known = published.protocols.items()
    parts = [f"[{p.badge}]: {p.about}" for name, p in known if name in met and p.badge]
    told = " ".join(cell.published_mismatch for cell in cells)
    if "other stem" in told:
        parts.append("[other stem]: the authors' encoder begins with other layers")
    if "epochs" in told:
        parts.append("[200 epochs] and the like: pretrained for another time than ours")
    return [f"Published values measured otherwise than ours: {'; '.join(parts)}."]


def _header(table: Table) -> list[str]:
    titles = [*table.names]
    for column, mark in table.columns:
        titles.append(f"{column}{mark}")
        if column in table.compared:
            titles.append("published (difference)")
    return titles


def _whole(cell: Cell) -> str:
    return f"{cell.text} {cell.interval_text}".rstrip()


def _markdown_cell(cell: Cell) -> str:
    """Best in bold, tied in italics, since markdown underlines nothing."""
    around = {BEST: "**", TIED: "*"}.get(cell.standing, "")
    return f"{around}{markdown(_whole(cell))}{around}"


def _latex_cell(cell: Cell) -> str:
    """Best in bold, tied underlined; the interval in a second line, which keeps columns narrow."""
    around = {BEST: r"\textbf{%s}", TIED: r"\underline{%s}"}.get(cell.standing, "%s")
    text = around % latex(cell.text)
    if not cell.interval_text:
        return text
    return rf"\shortstack[r]{{{text}\\{{\tiny {latex(cell.interval_text)}}}}}"


def _body(
    table: Table, number: Callable[[Cell], str], text: Callable[[str], str]
) -> list[list[str]]:
    body = []
    for row, cells in table.rows.items():
        line = list(map(text, row))
        for column, _ in table.columns:
            line.append(number(cells[column]))
            if column in table.compared:
                line.append(text(cells[column].published_text))
        body.append(line)
    return body


def source_note(cell: Cell) -> str:
    """Where the published value of a cell comes from."""
    note = f" Note: {cell.published_note}." if cell.published_note else ""
    return (
        f"Published {cell.published_protocol} values: {cell.published_source}; "
        f"{cell.published_epochs or 'unknown'} epochs, one seed.{note}"
    )


def notes_of(table: Table) -> list[str]:
    """Everything printed below a table: what the numbers are, footnotes, and sources."""
    notes = [table.reading, *table.notes, *table.comparison]
    sources: dict[str, None] = {}
    for cell in table.cells:
        if cell.published is not None:
            sources[source_note(cell)] = None
    if table.compared and not sources:
        sources["No published value exists for the rows of this table."] = None
    return notes + list(sources)


def markdown_rows(table: Table) -> list[str]:
    """One markdown line per row of the table."""
    rows = _body(table, _markdown_cell, markdown)
    return ["| " + " | ".join(row) + " |" for row in rows]


def latex_rows(table: Table) -> list[str]:
    """One LaTeX line per row of the table."""
    return [" & ".join(row) + r" \\" for row in _body(table, _latex_cell, latex)]


def table_markdown(table: Table, demonstration: bool) -> str:
    """The table as GitHub markdown."""
    head = _header(table)
    lines = [f"## {markdown(table.title)}", ""]
    if demonstration:
        lines += [f"> **{DEMONSTRATION}**", ""]
    lines.append("| " + " | ".join(map(markdown, head)) + " |")
    lines.append("|" + "|".join([" --- "] * 3 + [" ---: "] * (len(head) - 3)) + "|")
    lines += markdown_rows(table)
    lines += ["", *(f"- {markdown(note)}" for note in notes_of(table))]
    return "\n".join(lines) + "\n"


def table_latex(table: Table, demonstration: bool) -> str:
    """The table as a LaTeX table environment for the packages booktabs and threeparttable."""
    head = _header(table)
    caption = f"{table.title}." + (f" {DEMONSTRATION}" if demonstration else "")
    columns = "lll" + "r" * (len(head) - 3)
    return latex_table(caption, "\\centering", columns, head, latex_rows(table), notes_of(table))


def render(
    params: Params, table: str, frame_text: str, published: Path
) -> tuple[Table, dict[str, str]]:
    """The table and its three files as text, by their endings; pure, so the audit can repeat it."""
    built = build_table(params, table, read_frame(frame_text), PublishedNumbers.read(published))
    texts = {
        "csv": cells_csv(built, params.demonstration),
        "md": table_markdown(built, params.demonstration),
        "tex": table_latex(built, params.demonstration),
    }
    return built, texts


def render_table(
    spec: Params,
    table: str,
    frame: Input,
    published: File,
    csv: Output,
    md: Output,
    tex: Output,
) -> Outcome:
    """Render one table.

    Args:
        spec: The validated parameters.
        table: Name of a module in clsp/report/tables.
        frame: Made by collect-results.
        published: reports/spec/published.yaml.
        csv: One line per cell, with the raw numbers, their sources and runs.
        md: The table as markdown.
        tex: The table as LaTeX (booktabs).
    """
    text = frame.path("frame.csv").read_text(encoding="utf-8")
    built, texts = render(spec, table, text, published)
    for path, ending in ((csv, "csv"), (md, "md"), (tex, "tex")):
        write_atomic(path, texts[ending])
    missing = sum(cell.mean is None and cell.expected > 0 for cell in built.cells)
    return Outcome(
        counters={"cells": len(built.cells), "missing": missing},
        facts={
            "table": table,
            "title": built.title,
            "compared": list(built.compared),
            "names": list(built.names),
            "notes": notes_of(built),
        },
    )
