"""Behind every cell of every table: the value of each seed, its predictions, and its chain."""

from collections.abc import Iterable
from dataclasses import dataclass

from clsp.config.plan import datasets_needed
from clsp.config.schema import Params
from clsp.report.cells import UNSEEDED, Cell
from clsp.report.chain import Digest
from clsp.report.collect import Name, runs_by_name
from clsp.report.custody import Custody, Group, Number
from clsp.report.escape import anchor
from clsp.report.quality import bank_rows

DIGITS = 4
NO_NUMBER = "This row has no number in this column: floors are not ranked."
NOT_HERE = "Published only: nothing in this profile is run under this name."
RANKED = "The rank follows from the means over seeds of all rows; beside it is what went in."


@dataclass(frozen=True)
class Value:
    """One seed's share of a cell.

    Attributes:
        text: Its value, or a dash.
        details: What it was counted or averaged from.
        files: Predictions that it is recomputed from.
        missing: What is not there, or nothing.
    """

    text: str
    details: list[str]
    files: list[Digest]
    missing: str


@dataclass(frozen=True)
class Entry:
    """One cell: its place on the page, what is printed in the table, and every seed's value."""

    anchor: str
    cell: Cell
    judged_on: list[tuple[str, str]]  # (dataset, id of its section)
    values: list[Value]
    note: str


@dataclass(frozen=True)
class Evidence:
    """One row of a table: its runs and its cells."""

    anchor: str
    title: str
    about: str  # id of the section about its runs; empty where nothing is run
    runs: list[Custody]
    entries: dict[str, Entry]  # by title of the column


@dataclass(frozen=True)
class Book:
    """All custody, findable by the name of a row."""

    runs: dict[Name, list[Custody]]
    anchors: dict[Name, str]
    datasets: dict[str, str]  # id of a dataset's section by its name

    @property
    def numbers(self) -> dict[tuple[str, str, str, str], float]:
        """Every number that is there, by slug, task, protocol and variant."""
        return {
            (custody.slug, *key): number.value
            for runs in self.runs.values()
            for custody in runs
            for key, number in custody.numbers.items()
            if number.value is not None
        }


def build_book(params: Params, groups: list[Group], measured: dict[str, Custody]) -> Book:
    """What stands behind every row that some table may have.

    An ablation may print an ordinary run under its value too, so that a run may have several rows.
    """
    known = {custody.slug: custody for group in groups for custody in group.runs}
    homes = {custody.slug: group.anchor for group in groups for custody in group.runs}
    runs, anchors = {}, {}
    for name, judged in runs_by_name(params).items():
        runs[name] = [known[each.slug] for each in judged]
        anchors[name] = homes[judged[0].slug]
    for name, bank in bank_rows(params).items():
        runs[name], anchors[name] = [measured[bank]], measured[bank].anchor
    datasets = {name: anchor("dataset", name) for name in datasets_needed(params)}
    return Book(runs, anchors, datasets)


def _shown(value: float) -> str:
    return f"{value:.{DIGITS}f}"


def _counted(number: Number) -> str:
    return "" if number.total is None else f"{number.correct} of {number.total}"


def _files(numbers: Iterable[Number]) -> list[Digest]:
    return list(dict.fromkeys((number.file, number.sha256) for number in numbers))


def _value(cell: Cell, custody: Custody) -> Value:
    """What one run or bank contributes to a cell."""
    tasks = cell.tasks.split() or [""]
    found = [custody.numbers.get((task, cell.protocol, cell.variant)) for task in tasks]
    there = [number for number in found if number is not None and number.value is not None]
    if len(there) < len(tasks):
        why = ", ".join(custody.missing) or "a number in what was recorded"
        return Value("—", [], [], f"not there: {why}")
    values = [number.value for number in there if number.value is not None]
    if len(there) == 1:
        return Value(_shown(values[0]), list(filter(None, [_counted(there[0])])), _files(there), "")
    details = [f"{task} {_shown(value)}" for task, value in zip(tasks, values, strict=True)]
    mean = "" if cell.unit == "rank" else _shown(sum(values) / len(values))
    return Value(mean, details, _files(there), "")


def _note(cell: Cell, runs: list[Custody]) -> str:
    if not runs:
        return NOT_HERE
    if cell.expected == 0:
        return NO_NUMBER
    if cell.unit == "rank":
        return RANKED
    gone = [custody.title for custody in runs if custody.missing]
    if cell.unit not in UNSEEDED and cell.n < cell.expected and gone:
        return f"{cell.n} of {cell.expected} are there; not complete: {', '.join(gone)}."
    return ""


def build_evidence(table: str, cells: list[Cell], book: Book) -> list[Evidence]:
    """The evidence of every row of a table, in its order.

    Args:
        table: Its name, which begins all ids.
        cells: Its cells.
        book: Everything that stands behind rows.
    """
    rows: dict[Name, list[Cell]] = {}
    for cell in cells:
        rows.setdefault(cell.row, []).append(cell)
    found = []
    for number, (name, of_row) in enumerate(rows.items(), start=1):
        runs, home = book.runs.get(name, []), f"cells-{table}-{number}"
        dataset, encoder, label = name
        entries = {}
        for place, cell in enumerate(of_row, start=1):
            tasks = [task for task in cell.tasks.split() if task in book.datasets]
            judged_on = [(task, book.datasets[task]) for task in tasks]
            values = [_value(cell, custody) for custody in runs] if cell.expected else []
            entries[cell.column] = Entry(
                f"{home}-{place}", cell, judged_on, values, _note(cell, runs)
            )
        title = f"{label} on {dataset}, {encoder}"
        found.append(Evidence(home, title, book.anchors.get(name, ""), runs, entries))
    return found
