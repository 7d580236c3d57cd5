"""A verdict per table cell, and one for all (audit.md 3.4, as far as a first level can judge)."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from clsp.audit.checks.a26_statistics import numbers_of
from clsp.audit.finding import BLOCKING, INCOMPLETE, Finding, Number
from clsp.audit.level import L2, L3, reaches
from clsp.audit.replayed import prepared_name
from clsp.audit.suite import Suite
from clsp.report.cells import Cell
from clsp.report.published import PublishedNumbers
from clsp.report.table import build_table, read_frame

VERIFIED, INVALID, NOT_RUN = "verified", "invalid", "not run"
ACCEPTED = "invalid (accepted)"  # the auditor said why; it stays a finding


@dataclass(frozen=True)
class CellVerdict:
    """The verdict on one cell of a table."""

    table: str
    cell: Cell
    verdict: str
    because: list[str]  # ids of the findings that decide it
    level: str | None = None  # that was reached; of verified cells alone

    def record(self, reduced: bool) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "table": self.table,
            "dataset": self.cell.dataset,
            "encoder": self.cell.encoder,
            "label": self.cell.label,
            "column": self.cell.column,
            "printed": self.cell.text,
            "n": self.cell.n,
            "expected": self.cell.expected,
            "verdict": self.verdict,
            "because": self.because,
            "level": self.level,
            "reduced": reduced,
        }


def _touches(finding: Finding, key: str, table: str, numbers: set[Number]) -> bool:
    named = {"*", f"{table}:*", key} & finding.cells
    return finding.everything or bool(named) or bool(finding.numbers & numbers)


def _all_numbers(suite: Suite, cell: Cell) -> set[Number]:
    """Numbers behind a cell, those of runs that are not there included."""
    row = suite.runs_of_row(cell.row)
    tasks = set(cell.tasks.split())
    wanted = {
        n
        for n in suite.numbers
        if n.run in row
        and n.task in tasks
        and (n.protocol, n.variant) == (cell.protocol, cell.variant)
    }
    return wanted | {number for group in numbers_of(cell) for number in group}


def _judge(suite: Suite, table: str, cell: Cell, findings: list[Finding]) -> CellVerdict:
    key, numbers = f"{table}:{cell.identifier}", _all_numbers(suite, cell)
    if cell.unit == "rank":  # depends on every row beside it
        beside = {slug for slug, run in suite.runs.items() if not run.variation}
        beside |= suite.imported.keys()
        numbers = {n for n in suite.numbers if n.protocol == cell.protocol and n.run in beside}
    mine = [f for f in findings if _touches(f, key, table, numbers)]
    blocking = sorted({f.id for f in mine if f.severity == BLOCKING})
    absent = sorted({f.id for f in mine if f.severity == INCOMPLETE})
    if blocking:
        return CellVerdict(table, cell, INVALID, blocking)
    if absent or cell.n < cell.expected:
        return CellVerdict(table, cell, NOT_RUN, absent)
    return CellVerdict(table, cell, VERIFIED, [], _level(suite, numbers))


def _level(suite: Suite, numbers: set[Number]) -> str:
    """The level that was reached: L3 where all behind the cell was sampled and computed again."""
    asked, done = suite.depth.level, suite.depth.done
    if not reaches(asked, L3):
        return asked
    runs = {number.run for number in numbers}
    specs = [run.spec for slug in runs if (run := suite.runs.get(slug))]
    banks = {spec.bank for spec in specs if spec.bank}
    tasks = {number.task for number in numbers} & suite.params.datasets.keys()
    datasets = {prepared_name(name) for name in tasks | {spec.dataset for spec in specs}}
    return L3 if runs | banks | datasets <= done else L2


def judge_cells(suite: Suite, findings: list[Finding]) -> list[CellVerdict]:
    """The verdict on every cell that the tables of params.yaml have, drawn or not."""
    frame, unpublished = read_frame(suite.frame_text), PublishedNumbers({}, {})
    return [
        _judge(suite, table, cell, findings)
        for table in suite.shown.tables
        for cell in build_table(suite.shown, table, frame, unpublished).cells
    ]


def overall(
    cells: list[CellVerdict], findings: list[Finding], accepted: Collection[str] = ()
) -> str:
    """Invalid if anything blocks, else not run if anything is missing, else verified.

    Args:
        cells: Of all tables.
        findings: Of all checks.
        accepted: Checks whose findings the auditor accepts. That makes nothing valid: if nothing
            else blocks, the verdict says so.
    """
    severities = {finding.severity for finding in findings}
    verdicts = {cell.verdict for cell in cells}
    blocking = {finding.id for finding in findings if finding.severity == BLOCKING}
    if blocking and blocking <= set(accepted):
        return ACCEPTED
    if blocking or INVALID in verdicts:
        return INVALID
    if INCOMPLETE in severities or NOT_RUN in verdicts or not cells:
        return NOT_RUN
    return VERIFIED
