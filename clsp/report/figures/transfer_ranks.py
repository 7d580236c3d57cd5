"""Ranks of the methods in transfer: a mark per downstream dataset, and one for the mean."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clsp.config.schema import Params
from clsp.report import style
from clsp.report.downstream import methods_only, select
from clsp.report.figure import Drawing, empty_drawing
from clsp.report.records import Records

TITLE = "Ranks in transfer"
COLUMNS = ("dataset", "encoder", "label", "task", "mean", "rank", "mean_rank")


def _ranks(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per label and task of every (dataset, encoder): mean over seeds, and its rank."""
    rows = []
    done = methods_only(frame[frame["status"] == "done"])
    for (dataset, encoder), group in done.groupby(["dataset", "encoder"], sort=False):
        tasks = list(group["task"].unique())
        means = group.pivot_table(index="label", columns="task", values="value", aggfunc="mean")
        whole = means.reindex(columns=tasks).dropna()
        ranks = whole.round(9).rank(ascending=False, method="average")
        for label in ranks.mean(axis=1).sort_values(kind="stable").index:
            for task in tasks:
                rows.append(
                    (
                        *(dataset, encoder, label, task),
                        float(whole.loc[label, task]),
                        float(ranks.loc[label, task]),
                        float(ranks.loc[label].mean()),
                    )
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _draw_panel(axes: Axes, group: pd.DataFrame) -> None:
    labels, tasks = list(group["label"].unique()), list(group["task"].unique())
    palette = style.colours(len(tasks))
    for number, task in enumerate(tasks):
        of_task = group[group["task"] == task]
        spread = (number - (len(tasks) - 1) / 2) * 0.7 / max(len(tasks), 1)
        axes.plot(
            of_task["rank"],
            [labels.index(label) + spread for label in of_task["label"]],
            linestyle="none",
            marker=style.MARKERS[number % len(style.MARKERS)],
            markersize=4.5,
            color=palette[number],
            markerfacecolor=palette[number] if number < len(style.MARKERS) else "white",
            label=task,
        )
    means = group.groupby("label", sort=False)["mean_rank"].first()
    places = range(len(labels))
    axes.plot(
        means, places, "|", color="black", markersize=20, markeredgewidth=2.5, label="mean rank"
    )
    for place, value in zip(places, means, strict=True):
        axes.annotate(f"{value:.2f}", (value, place - 0.42), ha="center", va="bottom", fontsize=7.5)
    axes.set_yticks(places, labels)
    axes.set_ylim(len(labels) - 0.4, -0.75)
    axes.set_xlim(0.6, len(labels) + 0.4)
    axes.set_xticks(range(1, len(labels) + 1))
    axes.set_xlabel("rank, 1 is best")
    axes.grid(axis="y", visible=False)


def _draw(ranks: pd.DataFrame) -> Figure:
    groups = list(ranks.groupby(["dataset", "encoder"], sort=False))
    heights = [group["label"].nunique() for _, group in groups]
    size = (style.WIDTH, 0.8 + 0.65 * sum(heights) + 0.8 * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)
    found: dict[str, Any] = {}
    for ((dataset, encoder), group), (axes,) in zip(groups, grid, strict=True):
        _draw_panel(axes, group)
        axes.set_title(f"{dataset} {encoder}")
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    where = {"loc": "outside lower center", "ncols": min(len(found), 5), "frameon": False}
    figure.legend(list(found.values()), list(found), **where)
    return figure


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """One panel per (dataset, encoder), one line per method, best mean rank on top."""
    if frame.empty:
        return empty_drawing("No transfer result is there yet.")
    ranks = _ranks(select(frame, "transfer"))
    if ranks.empty:
        return empty_drawing("No transfer result is there yet.")
    caption = (
        "Rank of every method on every downstream dataset, by its mean over seeds, among the "
        "methods of one dataset and encoder; methods that miss a dataset are left out. Stroke "
        "and number: mean rank. Ranks say nothing about how far apart the accuracies are."
    )
    means = ranks.groupby(["dataset", "label"], sort=False)["mean_rank"].first()
    told = "; ".join(
        f"{label} on {dataset} {value:.2f}" for (dataset, label), value in means.items()
    )
    rows = ranks.to_dict("records")
    return Drawing(_draw(ranks), COLUMNS, rows, caption, f"Mean ranks in transfer: {told}.")
