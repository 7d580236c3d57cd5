"""The quality table: what was measured of every bank, with the network that looked at it."""

import pandas as pd

from clsp.config.quality import PROTOCOL, metrics_of
from clsp.config.schema import Params
from clsp.report.cells import Cell, Table, make_cell
from clsp.report.published import PublishedNumbers
from clsp.report.quality import TITLES, UNITS, quality_notes, variant_of

TITLE = "Quality of the banks of synthetic positives"
NAMES = ("Dataset", "Network", "Bank")
READING = "One value per bank; — (0 of 1): it has not been measured."


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table shows: those of banks."""
    return frame[(frame["protocol"] == PROTOCOL) & (frame["variation"] == "")]


def _cell(rows: pd.DataFrame, metric: str) -> Cell:
    (_, row), *_ = rows[rows["task"] == metric].iterrows()
    title, done = TITLES[metric], row["status"] == "done"
    return make_cell(
        row,
        column=title,
        values=[float(row["value"])] if done else [],
        expected=1,
        runs=str(row["run"]) if done else "",
        tasks=metric,
        metric=metric if done else "",
        unit=next((unit for word, unit in UNITS.items() if word in title), "number"),
    )


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """One row per bank, at the largest number of candidates; no published value is known."""
    quality = params.quality
    if quality is None:
        return Table(TITLE, [], notes=["Nothing to show: params.yaml measures no bank."])
    k = max(quality.candidates)
    shown = frame[frame["variant"] == variant_of(k)]
    cells = [
        _cell(rows, metric)
        for _, rows in shown.groupby("run", sort=False)
        for metric in metrics_of(quality, k)
    ]
    candidates = "the first candidate" if k == 1 else f"the first {k} candidates"
    notes = [f"Of {quality.anchors} anchors, {candidates} of each.", *quality_notes(params, shown)]
    return Table(TITLE, cells, notes=notes, names=NAMES, reading=READING)
