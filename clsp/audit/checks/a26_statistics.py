"""Means, deviations, intervals, ranks and marks of cells follow from the recomputed numbers.

So do differences from published values and the points of the few-shot curves.
"""

import csv
import math
from collections.abc import Iterator

from clsp.audit import inference
from clsp.audit.checks.a19_recompute import recompute
from clsp.audit.finding import BLOCKING, Finding, Number
from clsp.audit.recompute import mean_and_spread
from clsp.audit.suite import Suite
from clsp.config.labels import MARK
from clsp.report.cells import BEST, TIED, Cell, read_cells
from clsp.report.escape import csv_value
from clsp.runtime.errors import ClspError

ID = "A26"
SEVERITY = BLOCKING
TOLERANCE = 1e-7  # percent; the csv holds ten digits


def numbers_of(cell: Cell) -> list[list[Number]]:
    """The numbers behind a cell, run by run."""
    return [
        [Number(run, task, cell.protocol, cell.variant) for task in cell.tasks.split()]
        for run in cell.runs.split()
    ]


def recomputed(suite: Suite) -> dict[Number, float]:
    """Every number that can be recomputed, percent; done once for all checks."""
    if suite.truth:
        return suite.truth
    values = suite.truth
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
    values = [sum(truth[n] for n in g) / len(g) for g in groups]
    mean, spread = mean_and_spread(values)
    ends = inference.moments(values) if len(values) > 1 else None
    wanted = {
        "mean": mean,
        "std": spread,
        "low": inference.bound(ends, 0.025) if ends else None,
        "high": inference.bound(ends, 0.975) if ends else None,
        "difference": None if cell.published is None else mean - cell.published,
        "image_error": _image_error(suite, groups, truth),
    }
    return _first_gap(cell, wanted)


def _image_error(
    suite: Suite, groups: list[list[Number]], truth: dict[Number, float]
) -> float | None:
    """Binomial standard error of a cell from its finite test sets; None beside shares of images."""
    known, spread = suite.told, []
    for of_task in zip(*groups, strict=True):
        about = {(known[n][1]["metric"], known[n][1]["total"]) for n in of_task}
        metric, total = about.pop()
        if about or metric != "top1":
            return None
        share = sum(truth[n] for n in of_task) / len(of_task) / 100
        spread.append(share * (1 - share) / total)
    return 100 * math.sqrt(sum(spread)) / len(spread)


def _first_gap(cell: Cell, wanted: dict[str, float | None]) -> tuple[str, str] | None:
    for name, expected in wanted.items():
        found = getattr(cell, name)
        if (found is None) != (expected is None):
            return f"{name} {expected}", f"{name} {found}"
        if expected is not None and abs(found - expected) > TOLERANCE * max(1, abs(expected)):
            return f"{name} {expected:.8f}", f"{name} {found}"
    return None


def _by_seed(suite: Suite, cell: Cell, truth: dict[Number, float]) -> dict[str, float]:
    """The values behind a cell by seed; nothing where one is not what its predictions give."""
    found = {}
    for group in numbers_of(cell):
        run = suite.runs.get(group[0].run) if group else None
        told = [suite.told[n][1]["value"] if n in truth else math.inf for n in group]
        if not group or any(
            abs(value - truth.get(n, 0)) > TOLERANCE for n, value in zip(group, told, strict=True)
        ):
            return {}
        found[str(run.spec.seed) if run else ""] = sum(truth[n] for n in group) / len(group)
    return found


def _competes(suite: Suite, cell: Cell) -> bool:
    floors = {floor.label for floor in suite.floors.values()}
    whole = cell.mean is not None and cell.n == cell.expected
    return whole and not cell.label.endswith(MARK) and cell.label not in floors


def _marks(suite: Suite, cells: list[Cell], truth: dict[Number, float]) -> dict[str, str]:
    """How the cells of one table stand, by identifier: recomputed, never read.

    Where a row that competes is spoiled, it alone is reported: the marks of the others are taken
    as they are, because nothing is left to judge them by.
    """
    groups: dict[tuple[str, str, str], dict[str, dict[str, float]]] = {}
    marks = {}
    for cell in cells:
        if cell.unit == "percent" and _competes(suite, cell):
            place = (cell.dataset, cell.encoder, cell.column)
            groups.setdefault(place, {})[cell.identifier] = _by_seed(suite, cell, truth)
            marks[cell.identifier] = ""
    told = {cell.identifier: cell.standing for cell in cells}
    for rows in groups.values():
        if not all(rows.values()):
            marks |= {name: told[name] for name in rows}
            continue
        means = {name: sum(v.values()) / len(v) for name, v in rows.items()}
        top = max(means.values())
        best = [name for name, mean in means.items() if abs(mean - top) < TOLERANCE]
        for name, values in rows.items() if len(rows) > 1 else ():
            if name in best:
                marks[name] = BEST
            elif inference.indistinct(rows[best[0]], values):
                marks[name] = TIED
    return marks


def _ranks(suite: Suite, cells: list[Cell], truth: dict[Number, float]) -> dict[str, float]:
    """Mean ranks by identifier of the cells of one table."""
    groups: dict[tuple[str, str], dict[str, list[float]]] = {}
    for cell in cells:
        if cell.unit != "rank" or cell.expected == 0:
            continue
        runs, means = sorted(suite.runs_of_row(cell.row)), []
        for task in cell.tasks.split():
            numbers = [Number(run, task, cell.protocol, cell.variant) for run in runs]
            known = [truth[number] for number in numbers if number in truth]
            means += [sum(known) / len(known)] if known else []
        if len(means) == len(cell.tasks.split()):
            groups.setdefault((cell.dataset, cell.encoder), {})[cell.identifier] = means
    return {k: v for rows in groups.values() for k, v in inference.mean_ranks(rows).items()}


def _table_problems(
    suite: Suite, cells: list[Cell], truth: dict[Number, float]
) -> Iterator[tuple[Cell, tuple[str, str]]]:
    marks, ranks = _marks(suite, cells, truth), _ranks(suite, cells, truth)
    for cell in cells:
        if cell.unit == "rank":
            problem = _first_gap(cell, {"mean": ranks.get(cell.identifier)})
        elif cell.unit == "percent":
            problem = _problem(suite, cell, truth)
            expected = marks.get(cell.identifier, "")
            if problem is None and cell.standing != expected:
                problem = f"standing {expected or 'none'}", f"standing {cell.standing or 'none'}"
        else:
            continue
        if problem:
            yield cell, problem


def _tables(suite: Suite) -> Iterator[tuple[str, str, list[Cell]]]:
    for table in suite.shown.tables:
        path = suite.reports / "tables" / f"{table}.csv"
        try:
            cells = read_cells(path.read_text(encoding="utf-8"), str(path))
        except (OSError, ValueError, TypeError, ClspError):
            continue  # A01 and A22 report it
        yield table, str(path), cells


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
    truth = dict(recomputed(suite))
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
        for table, path, cells in _tables(suite)
        for cell, problem in _table_problems(suite, cells, truth)
    ]
