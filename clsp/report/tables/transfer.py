"""The transfer table: logistic regression on frozen features of every downstream dataset."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report.cells import Cell, Table, aggregate, make_cell
from clsp.report.published import PublishedNumbers

TITLE = "Transfer by L2-regularised logistic regression, accuracy in percent"
METRICS = {"top1": "top-1", "mean_per_class": "mean per class"}


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table shows: ablations have tables of their own."""
    return frame[(frame["protocol"] == "transfer") & (frame["variation"] == "")]


def _average(seeds: pd.DataFrame, tasks: list[str]) -> Cell:
    """Mean over datasets, seed by seed; a seed counts only when every dataset is there."""
    means, runs = [], []
    for run, of_run in seeds.groupby("run", sort=False):
        if (of_run["status"] == "done").all():
            means.append(float(of_run["value"].mean()))
            runs.append(str(run))
    return make_cell(
        seeds.iloc[0],
        column="average",
        values=means,
        expected=seeds["run"].nunique(),
        runs=" ".join(runs),
        tasks=" ".join(tasks),
    )


def _ranks(group: pd.DataFrame) -> "pd.Series[float]":
    """Mean rank of each label over the datasets; labels that miss a dataset are not ranked."""
    done = group[group["status"] == "done"]
    means = done.pivot_table(index="label", columns="task", values="value", aggfunc="mean")
    complete = means.reindex(columns=group["task"].unique()).dropna()
    return complete.rank(ascending=False, method="average").mean(axis=1)


def _row(seeds: pd.DataFrame, ranks: "pd.Series[float]") -> list[Cell]:
    tasks = list(seeds["task"].unique())
    cells = [aggregate(seeds[seeds["task"] == task], task) for task in tasks]
    average = _average(seeds, tasks)
    label = str(seeds["label"].iloc[0])
    rank = make_cell(
        seeds.iloc[0],
        column="mean rank",
        values=[float(ranks[label])] if label in ranks.index else [],
        expected=1,
        runs=" ".join(seeds.loc[seeds["status"] == "done", "run"].unique()),
        tasks=" ".join(tasks),
        unit="rank",
    )
    return [*cells, average, rank]


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """One row per (dataset, encoder, label); no published transfer value is known."""
    cells = []
    for _, group in frame.groupby(["dataset", "encoder"], sort=False):
        ranks = _ranks(group)
        for _, seeds in group.groupby("label", sort=False):
            cells += _row(seeds, ranks)
    per_metric: dict[str, list[str]] = {}
    for cell in cells:
        if cell.metric and cell.column not in per_metric.setdefault(cell.metric, []):
            per_metric[cell.metric].append(cell.column)
    notes = [f"Metric {METRICS[m]}: {', '.join(tasks)}." for m, tasks in per_metric.items()]
    notes.append(
        "The regulariser is chosen on validation images, then the classifier is refit on "
        "training and validation images. Average: over datasets, then over seeds. Mean rank: 1 is "
        "best, over datasets, among the rows of one dataset and encoder."
    )
    notes.append("The paper's transfer table was not readable for us, so none is printed beside.")
    return Table(TITLE, cells, notes=notes)
