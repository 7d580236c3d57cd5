"""What a table is made of: one cell per row and column, with all that is known about its number."""

from dataclasses import dataclass, field, fields
from typing import Any

import pandas as pd

from clsp.report.escape import read_csv, write_csv
from clsp.report.published import Published
from clsp.report.statistics import DIGITS, binomial_error, mean_and_std, t_interval

DASH = "—"
MINUS = "−"
UNSEEDED = {"rank": 2, "share": 2, "number": 4, "count": 0}  # digits of units without seeds
NAMES = ("Dataset", "Encoder", "Method")
BEST, TIED = "best", "tied"  # how a value stands among those beside it
READING = (
    "Mean ± standard deviation over seeds (number of seeds) [two-sided 95 % t-interval of the "
    "mean; none for one seed]; — (0 of 3): no run is there."
)
DEMONSTRATION = "Demonstration run on stand-in data: these numbers are not results."


@dataclass(frozen=True)
class Cell:
    """One number of a table.

    Attributes:
        dataset: Dataset the encoders of the row were pretrained on.
        encoder: Name of the encoder in params.yaml.
        label: Method as printed.
        column: Title of the column.
        mark: Footnote mark of the column, or nothing.
        unit: "percent" and "rank" of encoders; of banks "share" (percent), "count" and "number".
        protocol: Protocol of the numbers behind it; with `variant` and `tasks` it finds them.
        metric: "top1", "mean_per_class" or "map11"; empty if no run is there.
        mean: Mean over seeds, None if none is there.
        std: Sample standard deviation over seeds (n - 1), None below two.
        n: Seeds that are there.
        expected: Seeds that params.yaml asks for; 0 where the row has no such number.
        published: The published number, percent.
        difference: Ours minus the published one, points.
        published_mismatch: What the published number does not share: protocol, epochs, stem.
        runs: Slugs of the runs behind it, separated by spaces.
        low: Lower end of the two-sided 95 % t-interval of the mean, None below two seeds.
        high: Its upper end.
        standing: BEST, TIED (not significantly below the best) or nothing; clsp/report/standing.py.
        image_error: Binomial standard error from the finite test set, points; None where the metric
            is no share of images. In no interval: seeds share the images.
    """

    dataset: str
    encoder: str
    label: str
    column: str
    mark: str
    unit: str
    protocol: str
    variant: str
    tasks: str
    metric: str
    mean: float | None
    std: float | None
    n: int
    expected: int
    published: float | None
    difference: float | None
    published_protocol: str
    published_epochs: int | None
    published_source: str
    published_note: str
    published_mismatch: str
    runs: str
    low: float | None
    high: float | None
    standing: str
    image_error: float | None

    @property
    def row(self) -> tuple[str, str, str]:
        """What names the row."""
        return (self.dataset, self.encoder, self.label)

    @property
    def identifier(self) -> str:
        """Name of the cell inside its table."""
        return f"{self.dataset}.{self.encoder}.{self.label}/{self.column}"

    @property
    def text(self) -> str:
        """The cell as people read it: mean ± std (n), or a dash with the count that is missing."""
        if self.expected == 0:
            return DASH if self.published is None else f"{DASH} (0 of 0)"
        if self.mean is None:
            return f"{DASH} ({self.n} of {self.expected})"
        if self.unit in UNSEEDED:
            return f"{self.mean:.{UNSEEDED[self.unit]}f}"
        spread = f" ± {self.std:.2f}" if self.std is not None else ""
        count = f"{self.n}" if self.n == self.expected else f"{self.n} of {self.expected}"
        return f"{self.mean:.2f}{spread} ({count})"

    @property
    def interval_text(self) -> str:
        """The interval of the mean, or nothing."""
        if self.low is None or self.high is None or self.unit in UNSEEDED:
            return ""
        return f"[{self.low:.2f}, {self.high:.2f}]"

    @property
    def published_text(self) -> str:
        """The published value, what it does not share with ours, and the difference."""
        if self.published is None:
            return "none"
        value = f"{self.published:.2f}"
        if self.published_mismatch:
            value = f"{value} [{self.published_mismatch}]"
        if self.difference is None:
            return f"{value} ({DASH})"
        sign = MINUS if self.difference < 0 else "+"
        return f"{value} ({sign}{abs(self.difference):.2f})"


FIELDS = tuple(f.name for f in fields(Cell))
MARKS = ("demonstration", "note")  # the last columns of every csv, so that no extract loses them
COLUMNS = (*FIELDS, *MARKS)
_FLOATS = ("mean", "std", "published", "difference", "low", "high", "image_error")


@dataclass(frozen=True)
class Table:
    """A finished table.

    Attributes:
        title: One line.
        cells: All cells, row by row; every row has the same columns.
        compared: Titles of the columns that get a published column beside them.
        notes: Footnotes, in the order of their marks.
        comparison: What the rows do not share.
        names: Titles of the three columns that name a row: Cell.dataset, encoder and label.
        reading: How a cell is read.
    """

    title: str
    cells: list[Cell]
    compared: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)
    comparison: list[str] = field(default_factory=list)
    names: tuple[str, str, str] = NAMES
    reading: str = READING

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(title, mark) of every column, in order."""
        return list(dict.fromkeys((cell.column, cell.mark) for cell in self.cells))

    @property
    def rows(self) -> dict[tuple[str, str, str], dict[str, Cell]]:
        """Cells by row and column title."""
        rows: dict[tuple[str, str, str], dict[str, Cell]] = {}
        for cell in self.cells:
            rows.setdefault(cell.row, {})[cell.column] = cell
        return rows


def image_error(done: pd.DataFrame) -> float | None:
    """Standard error of a mean over seeds from the finite test set that all of them share, points.

    Args:
        done: Rows of the frame, one per seed, of one task.

    Returns:
        None for metrics that are no share of images, or where seeds saw different numbers of them.
    """
    counts = {int(total) for total in done["total"]} if set(done["metric"]) == {"top1"} else set()
    if len(counts) != 1:
        return None
    return binomial_error(float(done["value"].astype(float).mean()), counts.pop())


def aggregate(
    seeds: pd.DataFrame,
    column: str,
    mark: str = "",
    published: Published | None = None,
) -> Cell:
    """Mean, standard deviation and count over the seeds of one number.

    Args:
        seeds: Rows of the frame, one per seed, all of one label, task, protocol and variant.
        column: Title of the column.
        mark: Footnote mark.
        published: The number printed beside it.

    Returns:
        The cell; its statistics cover the rows whose status is "done".
    """
    first = seeds.iloc[0]
    done = seeds[seeds["status"] == "done"]
    values = done["value"].astype(float).tolist()
    return make_cell(
        first,
        column=column,
        mark=mark,
        tasks=str(first["task"]),
        metric=str(done["metric"].iloc[0]) if len(done) else "",
        values=values,
        expected=len(seeds),
        runs=" ".join(done["run"]),
        published=published,
        error=image_error(done),
    )


def _rounded(value: float | None) -> float | None:
    """Ten digits: machines agree on them, though not on the last bit of a square root."""
    return None if value is None else round(value, DIGITS)


def make_cell(
    first: Any,
    *,
    column: str,
    values: list[float],
    expected: int,
    runs: str,
    tasks: str,
    metric: str = "",
    mark: str = "",
    unit: str = "percent",
    published: Published | None = None,
    error: float | None = None,
) -> Cell:
    """A cell from the values behind it; `first` is any row of the frame that it covers."""
    mean, std = mean_and_std(values)
    low, high = (t_interval(values) if unit not in UNSEEDED else None) or (None, None)
    gap = None if mean is None or published is None else mean - published.value
    return Cell(
        dataset=str(first["dataset"]),
        encoder=str(first["encoder"]),
        label=str(first["label"]),
        column=column,
        mark=mark,
        unit=unit,
        protocol=str(first["protocol"]),
        variant=str(first["variant"]),
        tasks=tasks,
        metric=metric,
        mean=_rounded(mean),
        std=_rounded(std),
        n=len(values),
        expected=expected,
        published=published and published.value,
        difference=_rounded(gap),
        published_protocol=published.protocol if published else "",
        published_epochs=published and published.epochs,
        published_source=published.source if published else "",
        published_note=published.note if published else "",
        published_mismatch="; ".join(published.mismatches) if published else "",
        runs=runs,
        low=_rounded(low),
        high=_rounded(high),
        standing="",
        image_error=_rounded(error),
    )


def marks(demonstration: bool, comparison: list[str]) -> dict[str, str]:
    """The columns MARKS of every line: whether it is a demonstration, and what is not alike."""
    return {
        "demonstration": DEMONSTRATION if demonstration else "",
        "note": " ".join(comparison),
    }


def cells_csv(table: Table, demonstration: bool) -> str:
    """Cells as csv: one line per row and column, numbers to ten digits."""
    mark = marks(demonstration, table.comparison)
    lines = [{name: getattr(cell, name) for name in FIELDS} | mark for cell in table.cells]
    return write_csv(COLUMNS, lines)


def read_cells(text: str, where: str) -> list[Cell]:
    """The cells of a csv that `cells_csv` wrote.

    Raises:
        DataError: If the csv has other columns.
        ValueError: If a number is none.
    """
    cells = []
    for row in read_csv(text, COLUMNS, where):
        values: dict[str, Any] = {name: row[name] for name in FIELDS}
        for name in _FLOATS:
            values[name] = float(row[name]) if row[name] else None
        for name in ("n", "expected"):
            values[name] = int(row[name])
        epochs = row["published_epochs"]
        values["published_epochs"] = int(epochs) if epochs else None
        cells.append(Cell(**values))
    return cells
