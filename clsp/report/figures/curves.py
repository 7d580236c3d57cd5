"""Training curves: every loss term over epochs, mean and spread over seeds."""

from collections.abc import Iterator
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from clsp.config.schema import Params
from clsp.report import style
from clsp.report.collect import current_artefacts, ordinary_runs
from clsp.report.figure import Drawing, empty_drawing
from clsp.report.records import Records
from clsp.runtime.history import read_history

TITLE = "Training curves"
BESIDE = ("alignment", "loss", "embedding_std")  # drawn beside the method's own terms
TITLES = {
    "loss": "total loss",
    "info_nce": "InfoNCE",
    "alignment": "alignment with the positive",
    "embedding_std": "embedding spread",
}
COLUMNS = ("dataset", "encoder", "label", "term", "epoch", "mean", "std", "n")


def _epochs(params: Params, records: Records) -> Iterator[dict[str, Any]]:
    """The mean of every term over each epoch of each run."""
    for run in ordinary_runs(params):
        artefact = current_artefacts(run, records).get("pretrain-encoder")
        if artefact is None:
            continue
        history = pd.DataFrame(read_history(artefact.path("history.jsonl")))
        shown = {*artefact.predicate["facts"].get("terms", []), *BESIDE}
        terms = [name for name in history.columns if name in shown]
        means = history.groupby("epoch")[terms].mean()
        for epoch, values in means.iterrows():
            for term, value in values.dropna().items():
                yield {
                    "dataset": run.axes["dataset"],
                    "encoder": run.axes["encoder"],
                    "label": run.label,
                    "term": term,
                    "epoch": int(epoch) + 1,
                    "value": float(value),
                }


def _draw_panel(axes: Axes, panel: pd.DataFrame, labels: list[str]) -> None:
    palette = style.colours(len(labels))
    for label, line in panel.groupby("label", sort=False):
        number = labels.index(str(label))
        axes.plot(
            line["epoch"],
            line["mean"],
            color=palette[number],
            dashes=style.DASHES[number % len(style.DASHES)] or (1, 0),
            marker=style.MARKERS[number % len(style.MARKERS)],
            markevery=max(1, len(line) // 5),
            markersize=4,
            linewidth=1.6,
            label=str(label),
        )
        spread = line["std"].fillna(0)
        low, high = line["mean"] - spread, line["mean"] + spread
        axes.fill_between(line["epoch"], low, high, color=palette[number], alpha=0.15, linewidth=0)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.02)


def _draw(frame: pd.DataFrame) -> Figure:
    groups = list(frame.groupby(["dataset", "encoder"], sort=False))
    terms = sorted(frame["term"].unique(), key=lambda t: (t == "embedding_std", t != "loss", t))
    labels = list(frame["label"].unique())
    across = 2 if len(terms) in (2, 4) else min(len(terms), 3)
    down = -(-len(terms) // across)
    figure = Figure(figsize=(style.WIDTH, 0.6 + 2.6 * down * len(groups)), layout="constrained")
    grid = figure.subplots(down * len(groups), across, squeeze=False)
    for number, (key, group) in enumerate(groups):
        panels = grid[number * down : (number + 1) * down].flat
        for term, axes in zip(terms, panels, strict=False):
            _draw_panel(axes, group[group["term"] == term], labels)
            where = f"{' '.join(key)}: " if len(groups) > 1 else ""
            axes.set_title(f"{where}{TITLES.get(term, term)}")
        for axes in list(panels):
            axes.set_visible(False)
    for axes in grid.flat[len(terms) : down * across]:
        axes.set_visible(False)
    found = {}
    for axes in grid.flat:
        found |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    figure.legend(
        [found[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=min(len(labels), 5),
        frameon=False,
    )
    return figure


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """One panel per loss term and (dataset, encoder), one line per label."""
    epochs = pd.DataFrame(list(_epochs(params, records)))
    if epochs.empty:
        return empty_drawing("No pretraining run is there yet.")
    keys = ["dataset", "encoder", "label", "term", "epoch"]
    values = epochs.groupby(keys, sort=False)["value"]
    shown = values.agg(mean="mean", std="std", n="count").reset_index()
    last = shown[shown["term"] == "loss"].groupby("label", sort=False).last()["mean"]
    ends = "; ".join(f"{label} ends at {value:.2f}" for label, value in last.items())
    caption = (
        "Every term of the loss over pretraining epochs: mean over seeds, with a band of one "
        "standard deviation. Losses of different methods are not comparable with each other."
    )
    rows = shown.astype(object).where(shown.notna(), None).to_dict("records")
    return Drawing(
        _draw(shown), COLUMNS, rows, caption, f"Line charts of loss terms by epoch. {ends}."
    )
