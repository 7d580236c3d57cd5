"""What the tables over downstream datasets share: one column per dataset, average and mean rank."""

import math

import pandas as pd

from clsp.config.catalog import dataset_info
from clsp.config.floors import LABELS
from clsp.config.schema import Params
from clsp.report.cells import Cell, aggregate, image_error, make_cell

METRICS = {
    "top1": "top-1",
    "mean_per_class": "mean per class",
    "map11": "11-point mean average precision",
}
UNFINISHED = "‡"
VALIDATION = {
    "ssl_transfer": "drawn as the code ssl-transfer draws them",
    "stratified": "the same share of every class, drawn at random",
}


def methods_only(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of runs; floors have no method."""
    return frame[frame["method"] != ""]


def select(frame: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Rows of one protocol, of ordinary runs and floors: ablations have tables of their own."""
    return frame[(frame["protocol"] == protocol) & (frame["variation"] == "")]


def _average(seeds: pd.DataFrame, tasks: list[str]) -> Cell:
    """Mean over datasets, seed by seed; a seed counts only when every dataset is there."""
    means, runs = [], []
    for run, of_run in seeds.groupby("run", sort=False):
        if (of_run["status"] == "done").all():
            means.append(float(of_run["value"].mean()))
            runs.append(str(run))
    counted = seeds[seeds["run"].isin(runs)]
    errors = [image_error(counted[counted["task"] == task]) for task in tasks]
    known = [error for error in errors if error is not None]
    return make_cell(
        seeds.iloc[0],
        column="average",
        values=means,
        expected=seeds["run"].nunique(),
        runs=" ".join(runs),
        tasks=" ".join(tasks),
        error=math.hypot(*known) / len(tasks) if len(known) == len(tasks) else None,
    )


def _ranks(group: pd.DataFrame) -> "pd.Series[float]":
    """Mean rank of each method over the datasets; one that misses a dataset is not ranked."""
    done = methods_only(group[group["status"] == "done"])
    means = done.pivot_table(index="label", columns="task", values="value", aggfunc="mean")
    complete = means.reindex(columns=group["task"].unique()).dropna()
    return complete.round(9).rank(ascending=False, method="average").mean(axis=1)


def _row(seeds: pd.DataFrame, ranks: "pd.Series[float]", marks: dict[str, str]) -> list[Cell]:
    tasks = list(seeds["task"].unique())
    cells = [aggregate(seeds[seeds["task"] == task], task, marks[task]) for task in tasks]
    first = seeds.iloc[0]
    ranked = first["label"] in ranks.index
    rank = make_cell(
        first,
        column="mean rank",
        values=[float(ranks[first["label"]])] if ranked else [],
        expected=0 if first["method"] == "" else 1,
        runs=" ".join(seeds.loc[seeds["status"] == "done", "run"].unique()) if ranked else "",
        tasks=" ".join(tasks),
        unit="rank",
    )
    return [*cells, _average(seeds, tasks), rank]


def build_cells(frame: pd.DataFrame) -> list[Cell]:
    """One row per (dataset, encoder, label); columns with an unfinished fit carry a mark."""
    unfinished = set(frame.loc[frame["converged"] == "no", "task"])
    marks = {task: UNFINISHED if task in unfinished else "" for task in frame["task"].unique()}
    cells = []
    for _, group in frame.groupby(["dataset", "encoder"], sort=False):
        ranks = _ranks(group)
        for _, seeds in group.groupby("label", sort=False):
            cells += _row(seeds, ranks, marks)
    return cells


def metric_notes(cells: list[Cell]) -> list[str]:
    """How each dataset is judged."""
    tasks: dict[str, dict[str, None]] = {}
    for cell in cells:
        if cell.metric:
            tasks.setdefault(cell.metric, {})[cell.column] = None
    return [f"Metric {METRICS.get(m, m)}: {', '.join(named)}." for m, named in tasks.items()]


def dataset_note(params: Params) -> str:
    """Which datasets a table uses, with the size of their images, and whose choice that is."""
    judged = params.evaluation.transfer
    shown = []
    for name in judged.datasets if judged else ():
        spec = params.datasets[name]
        shown.append(f"{name} ({dataset_info(spec.kind).title}, {spec.size} px)")
    note = (
        f"Datasets and the side of their images: {'; '.join(shown)}. They are our choice: which "
        "datasets the paper used could not be confirmed."
    )
    trained = {params.datasets[n].kind for grid in params.runs.values() for n in grid.dataset}
    known = [n for n in judged.datasets if params.datasets[n].kind in trained] if judged else []
    if known:
        note += (
            f" Encoders of some rows were pretrained on images of {', '.join(known)} (without "
            "labels, unless they are marked); average and rank include these columns."
        )
    return note


def validation_note(rule: str, share: float) -> str:
    """Which images something is chosen on."""
    return (
        "the official validation images or, where there are none, "
        f"{100 * share:.12g} % of the training images, {VALIDATION.get(rule, rule)} ({rule})"
    )


def rank_note(frame: pd.DataFrame) -> str:
    """What the last two columns are."""
    note = (
        "Average: over datasets, then over seeds. Mean rank: 1 is best, over datasets, among the "
        "methods of one dataset and encoder"
    )
    floors = list(frame.loc[frame["method"] == "", "label"].unique())
    if not floors:
        return f"{note}."
    note = f"{note}; {' and '.join(floors)} are floors to compare with and are not ranked."
    if LABELS["pixels"] in floors:
        note += f" {LABELS['pixels']}: images above 32 pixels are reduced to 32 by averaging."
    return note


def convergence_notes(frame: pd.DataFrame) -> list[str]:
    """Which fits stopped before they converged, final ones and others; nothing if all did."""
    fits = frame[frame["converged"] != ""]
    searched = fits[fits["converged"] == "grid"]
    notes = []
    if not searched.empty:
        tasks = ", ".join(searched["task"].unique())
        notes.append(
            f"In {len(searched)} of {len(fits)} numbers ({tasks}) the final fit converged, but not "
            "all of those among which its regulariser was chosen."
        )
    stopped = fits[fits["converged"] == "no"]
    if stopped.empty:
        return notes
    named = [
        f"{label} on {task} ({len(rows)})"
        for (label, task), rows in stopped.groupby(["label", "task"], sort=False)
    ]
    return [
        *notes,
        f"{UNFINISHED} {len(stopped)} of {len(fits)} final fits did not converge within the "
        f"iterations allowed; their numbers are shown as they are: {', '.join(named)}.",
    ]
