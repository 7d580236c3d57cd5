"""The main table: linear probe and weighted kNN of every label, on the dataset it is judged on."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report.cells import Cell, Table, aggregate
from clsp.report.downstream import METRICS
from clsp.report.published import PublishedNumbers

TITLE = "Linear evaluation and weighted kNN, accuracy in percent"


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table shows: ablations have tables of their own."""
    return frame[frame["protocol"].isin(["linear", "knn"]) & (frame["variation"] == "")]


def _columns(params: Params) -> list[tuple[str, str, str, str, str | None]]:
    """(title, mark, protocol, variant, protocol of the published number) per column."""
    knn = params.evaluation.knn
    columns: list[tuple[str, str, str, str, str | None]] = [
        ("linear", "", "linear", "", "offline_linear")
    ]
    if params.evaluation.linear.grid:
        columns.append(("linear, best rate", "‡", "linear", "best_rate", None))
    columns.append((f"kNN, k = {knn.k}", "", "knn", "", None))
    if knn.best_of:
        columns.append(("kNN, best k", "†", "knn", "best_of_k", "knn_best_over_k"))
    return columns


def _row(
    params: Params, seeds: pd.DataFrame, key: tuple[str, str, str], published: PublishedNumbers
) -> list[Cell]:
    dataset, encoder, label = key
    cells = []
    for title, mark, protocol, variant, theirs in _columns(params):
        of_column = seeds[(seeds["protocol"] == protocol) & (seeds["variant"] == variant)]
        if of_column.empty:
            continue
        spec = params.encoders[encoder]
        own = (of_column["task"] == dataset).all()  # published numbers are of the same dataset
        number = theirs and own and published.find(dataset, spec, label, theirs)
        cells.append(aggregate(of_column, title, mark, number or None))
    return cells


def _judging_notes(frame: pd.DataFrame) -> list[str]:
    """Where the metric is not top-1, and where a dataset is judged on another."""
    notes = []
    pairs = frame[["dataset", "task", "metric"]].drop_duplicates()
    for dataset, task, metric in pairs.itertuples(index=False):
        if task != dataset:
            notes.append(f"Encoders pretrained on {dataset} are judged on {task}.")
        if metric and metric != "top1":
            notes.append(f"{task} is judged by the {METRICS[metric]}.")
    return list(dict.fromkeys(notes))


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """One row per (dataset, encoder, label), in the order of params.yaml."""
    cells = []
    for key, seeds in frame.groupby(["dataset", "encoder", "label"], sort=False):
        cells += _row(params, seeds, key, published)
    notes = _judging_notes(frame)
    knn, grid = params.evaluation.knn, params.evaluation.linear.grid
    if grid:
        rates = ", ".join(f"{rate:g}" for rate in grid.learning_rates)
        share = f"{100 * grid.validation_fraction:g} % of the training images"
        notes += [f"‡ the best learning rate of {rates} was chosen on {share} (D35)."]
    if knn.best_of:
        ks = ", ".join(map(str, knn.best_of))
        notes += [f"† the best of k in {ks} was chosen on the test set, as the authors do (D04)."]
    return Table(TITLE, cells, compared=("linear", "kNN, best k"), notes=notes)
