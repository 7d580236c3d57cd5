"""The main table: linear probe and weighted kNN of every label on its own dataset."""

import pandas as pd

from clsp.config.schema import Params
from clsp.report.cells import Cell, Table, aggregate
from clsp.report.published import PublishedNumbers

TITLE = "Linear evaluation and weighted kNN, top-1 accuracy in percent"


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that this table shows: ablations have tables of their own."""
    return frame[frame["protocol"].isin(["linear", "knn"]) & (frame["variation"] == "")]


def _columns(params: Params) -> list[tuple[str, str, str, str, str | None]]:
    """(title, mark, protocol, variant, protocol of the published number) per column."""
    knn = params.evaluation.knn
    columns = [
        ("linear", "", "linear", "", "offline_linear"),
        (f"kNN, k = {knn.k}", "", "knn", "", None),
    ]
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
        number = theirs and published.find(dataset, spec, label, theirs)
        cells.append(aggregate(of_column, title, mark, number or None))
    return cells


def build(params: Params, frame: pd.DataFrame, published: PublishedNumbers) -> Table:
    """One row per (dataset, encoder, label), in the order of params.yaml."""
    cells = []
    for key, seeds in frame.groupby(["dataset", "encoder", "label"], sort=False):
        cells += _row(params, seeds, key, published)
    notes = []
    knn = params.evaluation.knn
    if knn.best_of:
        ks = ", ".join(map(str, knn.best_of))
        notes = [f"† the best of k in {ks} was chosen on the test set, as the authors do (D04)."]
    return Table(TITLE, cells, compared=("linear", "kNN, best k"), notes=notes)
