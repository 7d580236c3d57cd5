"""What the ablation tables and figures share: runs that differ in one value, in ascending order."""

from dataclasses import dataclass, field

import pandas as pd

from clsp.config.grid import Run, expand_runs
from clsp.config.schema import Params
from clsp.config.variation import VARIED
from clsp.report.cells import Cell, Table, aggregate


@dataclass(frozen=True)
class Line:
    """Runs that differ in one value and in their seeds.

    Attributes:
        dataset: Name of the dataset.
        encoder: Name of the encoder.
        method: Name of the method.
        label: What the runs have in common.
        runs: One run per seed by value, ascending.
    """

    dataset: str
    encoder: str
    method: str
    label: str
    runs: dict[float, list[Run]] = field(default_factory=dict)


def find_lines(params: Params, varied: str) -> list[Line]:
    """Every line along a value that some grid varies; its ordinary run is one of its points."""
    lines: dict[tuple[str, ...], Line] = {}
    moved = set()
    for run in expand_runs(params).values():
        if varied not in run.values:
            continue
        names = [str(run.axes[axis]) for axis in ("dataset", "encoder", "method")]
        key = (*names, str(run.axes["positives"]), run.label_beside(varied))
        line = lines.setdefault(key, Line(*names, key[-1]))
        line.runs.setdefault(run.values[varied], []).append(run)
        if varied in run.variation:
            moved.add(key)
    return [
        Line(line.dataset, line.encoder, line.method, line.label, dict(sorted(line.runs.items())))
        for key, line in lines.items()
        if key in moved
    ]


def columns(params: Params) -> dict[str, str]:
    """Protocols of an ablation and the titles of their columns."""
    return {"linear": "linear", "knn": f"kNN, k = {params.evaluation.knn.k}"}


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """The numbers that ablations compare: no k that was chosen on the test set."""
    return frame[frame["protocol"].isin(["linear", "knn"]) & (frame["variant"] == "")]


def cells_of(params: Params, frame: pd.DataFrame, runs: list[Run], label: str) -> list[Cell]:
    """One cell per protocol over the seeds of a point, printed under a label."""
    rows = frame[frame["run"].isin([run.slug for run in runs])].assign(label=label)
    return [
        aggregate(rows[rows["protocol"] == protocol], title)
        for protocol, title in columns(params).items()
    ]


def build_table(params: Params, frame: pd.DataFrame, varied: str, title: str) -> Table:
    """One row per value of every line; a table without rows says why there are none."""
    lines = find_lines(params, varied)
    cells = [
        cell
        for line in lines
        for runs in line.runs.values()
        for cell in cells_of(params, frame, runs, runs[0].label_along(varied))
    ]
    if not lines:
        return Table(title, [], notes=[nothing(varied)])
    symbol = VARIED[varied].symbol
    return Table(title, cells, notes=[f"{symbol} stands for {varied} in params.yaml."])


def nothing(varied: str) -> str:
    """Why there is nothing to show."""
    return f"Nothing to show: no grid in params.yaml varies {varied}."
