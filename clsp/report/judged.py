"""What the tables of linear probe and weighted kNN share: their columns, rows and notes.

A published row that nobody runs in the profile stands below those of its dataset and encoder, with
a dash and a count of 0 of 0 for ours, so that a table can be read as papers print it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pandas as pd

from clsp.config.grid import Run
from clsp.config.labels import MARK
from clsp.config.schema import Params
from clsp.report.cells import Cell, Table, aggregate, make_cell
from clsp.report.collect import runs_by_name
from clsp.report.downstream import METRICS
from clsp.report.published import PublishedNumbers

Keep = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class Column:
    """One column: its title and mark, our numbers, and the published protocols by preference."""

    title: str
    mark: str
    protocol: str
    variant: str
    theirs: tuple[str, ...]


def columns_of(params: Params) -> list[Column]:
    """The columns of every such table."""
    knn = params.evaluation.knn
    linear = ("offline_linear", "online_linear", "supervised")
    usual = ("knn_k200_max_over_epochs", "knn_k20_max_over_epochs") if knn.k in (20, 200) else ()
    found = [Column("linear", "", "linear", "", linear)]
    if params.evaluation.linear.grid:
        found.append(Column("linear, best rate", "‡", "linear", "best_rate", ()))
    found.append(Column(f"kNN, k = {knn.k}", "", "knn", "", usual))
    if knn.best_of:
        found.append(Column("kNN, best k", "†", "knn", "best_of_k", ("knn_best_over_k",)))
    return found


def select(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows of the frame that such tables show: ablations have tables of their own."""
    return frame[frame["protocol"].isin(["linear", "knn"]) & (frame["variation"] == "")]


def _epochs(params: Params) -> dict[tuple[str, str, str], int]:
    """Pretraining epochs of every row of runs."""
    named = runs_by_name(params).items()
    return {n: r[0].spec.recipe.epochs for n, r in named if isinstance(r[0], Run)}


def _own_rows(
    params: Params, group: pd.DataFrame, published: PublishedNumbers
) -> Iterator[list[Cell]]:
    epochs = _epochs(params)
    for (dataset, encoder, label), seeds in group.groupby(
        ["dataset", "encoder", "label"], sort=False
    ):
        cells = []
        for column in columns_of(params):
            mine = (seeds["protocol"] == column.protocol) & (seeds["variant"] == column.variant)
            if not mine.any():
                continue
            spec = params.encoders[encoder]
            own = (seeds.loc[mine, "task"] == dataset).all()  # published: of the same dataset
            number = (
                published.find(
                    dataset, spec, label, column.theirs, epochs.get((dataset, encoder, label))
                )
                if own
                else None
            )
            cells.append(aggregate(seeds[mine], column.title, column.mark, number))
        yield cells


def _foreign_rows(
    params: Params, dataset: str, encoder: str, known: set[str], published: PublishedNumbers
) -> Iterator[list[Cell]]:
    """Published rows of a dataset and encoder that no run of the profile fills."""
    spec, marked = params.encoders[encoder], params.comparison.labels == "marked"
    for label in published.labels_on(dataset, spec.architecture, marked):
        numbers = [published.find(dataset, spec, label, c.theirs) for c in columns_of(params)]
        if label in known or not any(numbers):
            continue
        row = {"dataset": dataset, "encoder": encoder, "label": label}
        yield [
            make_cell(
                {**row, "protocol": column.protocol, "variant": column.variant},
                column=column.title,
                mark=column.mark,
                values=[],
                expected=0,
                runs="",
                tasks=dataset,
                published=number,
            )
            for column, number in zip(columns_of(params), numbers, strict=True)
        ]


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


def build_table(
    params: Params,
    title: str,
    frame: pd.DataFrame,
    published: PublishedNumbers,
    others: Callable[[str], bool] | None = None,
) -> Table:
    """One row per (dataset, encoder, label), in the order of params.yaml.

    Args:
        params: The validated parameters.
        title: Of the table.
        frame: Rows to show.
        published: Numbers beside ours.
        others: Which published labels that nobody runs here are shown below; None: none.
    """
    if frame.empty:
        return Table(title, [], notes=["Nothing to show: params.yaml asks for no such number."])
    cells: list[Cell] = []
    for (dataset, encoder), group in frame.groupby(["dataset", "encoder"], sort=False):
        for row in _own_rows(params, group, published):
            cells += row
        known = set(group["label"])
        for row in _foreign_rows(params, dataset, encoder, known, published) if others else ():
            cells += row if others and others(row[0].label) else []
    compared = [c.title for c in columns_of(params) if c.theirs]
    usual = f"kNN, k = {params.evaluation.knn.k}"
    if not any(c.published is not None for c in cells if c.column == usual):
        compared = [title for title in compared if title != usual]
    notes = _judging_notes(frame)
    if grid := params.evaluation.linear.grid:
        rates = ", ".join(f"{rate:g}" for rate in grid.learning_rates)
        share = f"{100 * grid.validation_fraction:g} % of the training images"
        notes += [f"‡ the best learning rate of {rates} was chosen on {share} (D35)."]
    if knn := params.evaluation.knn.best_of:
        ks = ", ".join(map(str, knn))
        notes += [f"† the best of k in {ks} was chosen on the test set, as the authors do (D04)."]
    if any(c.expected == 0 for c in cells):
        notes.append("— (0 of 0): a published row that this profile does not run.")
    return Table(title, cells, compared=tuple(compared), notes=notes)


def rows_of_methods(frame: pd.DataFrame, chosen: "pd.Series[bool]") -> "pd.Series[bool]":
    """Which rows share dataset, encoder and method with some row that is chosen."""
    keys = ["dataset", "encoder", "method"]
    wanted = set(frame.loc[chosen, keys].itertuples(index=False, name=None))
    held = [row in wanted for row in frame[keys].itertuples(index=False, name=None)]
    return pd.Series(held, index=frame.index, dtype=bool)


def uses_labels(label: str) -> bool:
    """Whether a printed label says that its method is given labels."""
    return label.endswith(MARK)
