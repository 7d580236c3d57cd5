"""Means, deviations and counts of table cells follow from the recomputed numbers behind them."""

from collections.abc import Iterator

from clsp.audit.checks.a19_recompute import recompute
from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.recompute import mean_and_spread
from clsp.audit.suite import Suite
from clsp.report.cells import Cell, read_cells
from clsp.runtime.errors import ClspError

ID = "A26"
SEVERITY = BLOCKING
TOLERANCE = 1e-5  # percent; the csv holds six digits


def numbers_of(cell: Cell) -> list[list[Number]]:
    """The numbers behind a cell, run by run."""
    return [
        [Number(run, task, cell.protocol, cell.variant) for task in cell.tasks.split()]
        for run in cell.runs.split()
    ]


def _truth(suite: Suite) -> dict[Number, float]:
    """Every number that can be recomputed."""
    values = {}
    for run, probe in suite.probes:
        for number, record in suite.results_of(run, probe):
            try:
                values[number] = recompute(probe, record).value
            except (OSError, ValueError, KeyError, TypeError, EOFError):
                continue  # A19 reports it
    return values


def _problem(suite: Suite, cell: Cell, truth: dict[Number, float]) -> tuple[str, str] | None:
    if not cell.tasks.split():
        return "the tasks of the cell", "none"
    wanted = [n for n in suite.numbers if n[1:3] == (cell.tasks.split()[0], cell.protocol)]
    seeds = {n.run for n in wanted} & suite.runs_of_row(cell.row)
    if cell.expected != len(seeds):
        return f"{len(seeds)} seeds expected", f"{cell.expected}"
    groups = numbers_of(cell)
    if cell.n != len(groups):
        return f"n = {len(groups)}", f"n = {cell.n}"
    if any(number not in truth for group in groups for number in group):
        return "numbers that can be recomputed", "some cannot"
    if not groups:
        return None if cell.mean is None else ("no value", f"mean {cell.mean}")
    mean, spread = mean_and_spread([sum(truth[n] for n in g) / len(g) for g in groups])
    for name, expected in (("mean", mean), ("std", spread)):
        found = getattr(cell, name)
        if (found is None) != (expected is None):
            return f"{name} {expected}", f"{name} {found}"
        if expected is not None and abs(found - expected) > TOLERANCE:
            return f"{name} {expected:.6f}", f"{name} {found}"
    return None


def _cells(suite: Suite) -> Iterator[tuple[str, str, Cell]]:
    for table in suite.shown.tables:
        path = suite.reports / "tables" / f"{table}.csv"
        try:
            cells = read_cells(path.read_text(encoding="utf-8"), str(path))
        except (OSError, ValueError, TypeError, ClspError):
            continue  # A01 and A22 report it
        for cell in cells:
            if cell.unit == "percent":  # ranks compare rows; A22 draws them again
                yield table, str(path), cell


def check(suite: Suite) -> list[Finding]:
    """Compute every cell's statistics again, by another code than the report's."""
    truth = _truth(suite)
    return [
        Finding(
            ID,
            BLOCKING,
            path,
            *problem,
            "the cell is not what its runs give",
            f"{table}:{cell.identifier}",
            cells=frozenset({f"{table}:{cell.identifier}"}),
        )
        for table, path, cell in _cells(suite)
        if (problem := _problem(suite, cell, truth))
    ]
