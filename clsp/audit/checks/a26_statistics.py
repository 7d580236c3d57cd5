"""Means, deviations and counts of table cells follow from the recomputed numbers behind them.

So do the points of the few-shot curves.
"""

import csv
from collections.abc import Iterator

from clsp.audit.checks.a19_recompute import recompute
from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.recompute import mean_and_spread
from clsp.audit.suite import Suite
from clsp.report.cells import Cell, read_cells
from clsp.report.escape import csv_value
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
    for judged, probe in suite.probes:
        for number, record in suite.results_of(judged, probe):
            try:
                values[number] = recompute(suite, probe, record).value
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


def _curve_problem(
    suite: Suite, point: dict[str, str], truth: dict[Number, float]
) -> tuple[str, str] | None:
    """What is wrong with one point of the few-shot figure; takes its numbers out of `truth`."""
    runs = suite.runs_of_row((point["dataset"], point["encoder"], csv_value(point["label"])))
    variant = f"{point['kind']}={float(point['point']):.12g}"
    numbers = [Number(run, point["task"], "few_shot", variant) for run in sorted(runs)]
    values = [truth.pop(number) for number in numbers if number in truth]
    if not values:
        return "a point that numbers are there for", f"{point['label']} {variant}"
    mean, spread = mean_and_spread(values)
    expected = f"mean {mean:.6f}, std {spread or 0:.6f}, n {len(values)}"
    try:
        told = float(point["mean"]), float(point["std"] or 0), int(point["n"])
        near = all(abs(a - b) <= TOLERANCE for a, b in zip(told, (mean, spread or 0), strict=False))
        good = near and told[2] == len(values) and bool(point["std"]) == (spread is not None)
    except ValueError:
        good = False
    found = "mean {mean}, std {std}, n {n}".format(**point)
    return None if good else (expected, found)


def _curves(suite: Suite, truth: dict[Number, float]) -> Iterator[Finding]:
    """Compare every point of the few-shot figure, and report numbers that it leaves out."""
    if "few_shot" not in suite.shown.figures:
        return
    path, message = suite.reports / "figures/few_shot.csv", "the point is not what its runs give"
    shown = {slug for slug, run in suite.runs.items() if not run.variation} | {*suite.floors}
    left = {n: v for n, v in truth.items() if n.protocol == "few_shot" and n.run in shown}
    if not left:
        return  # the figure says so
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            points = list(csv.DictReader(stream, strict=True))
        problems = [p for point in points if (p := _curve_problem(suite, point, left))]
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        problems = [("a figure's readable numbers", str(error))]
        left = {}
    if left:
        problems.append(("a point for every number", f"none for {' '.join(min(left))}"))
    for problem in problems:
        yield Finding(ID, BLOCKING, str(path), *problem, message)


def check(suite: Suite) -> list[Finding]:
    """Compute every cell's statistics again, by another code than the report's."""
    truth = _truth(suite)
    curves = list(_curves(suite, truth))
    return curves + [
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
