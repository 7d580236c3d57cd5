"""Accuracy against what pretraining saw: images encoded, which extra views cost too."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clsp.config.schema import Params
from clsp.report import style
from clsp.report.cells import aggregate
from clsp.report.collect import current_artefacts, ordinary_runs
from clsp.report.figure import Drawing, empty_drawing
from clsp.report.records import Records

TITLE = "Accuracy against compute"
FILLS = ("full", "none", "top", "left")  # with the markers, so many marks stay apart without colour
COLUMNS = (
    "dataset", "encoder", "label", "steps", "views", "images_millions", "mean", "low", "high", "n",
)  # fmt: skip


def _rows(params: Params, records: Records, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """One row per label; its runs take equally many steps, because they have one recipe."""
    linear = frame[(frame["protocol"] == "linear") & (frame["variation"] == "")]
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for run in ordinary_runs(params):
        artefact = current_artefacts(run, records).get("pretrain-encoder")
        key = (str(run.axes["dataset"]), str(run.axes["encoder"]), run.label)
        if artefact is None or key in rows:
            continue
        place = (linear["dataset"] == key[0]) & (linear["encoder"] == key[1])
        seeds = linear[place & (linear["label"] == key[2])]
        if seeds.empty or not (seeds["status"] == "done").any():
            continue
        cell = aggregate(seeds, "linear")
        steps = int(artefact.predicate["counters"]["optimizer_steps"])
        views = 2 + (run.spec.positives != "none")
        seen = steps * run.spec.recipe.batch_size * views / 1e6
        numbers = (*key, steps, views, round(seen, 6), cell.mean, cell.low, cell.high, cell.n)
        rows[key] = dict(zip(COLUMNS, numbers, strict=True))
    return list(rows.values())


def _places(group: pd.DataFrame) -> list[float]:
    """Where marks stand: side by side around the value where several have the same."""
    seen = group["images_millions"].astype(float)
    step = 0.012 * (seen.max() - seen.min() or seen.max())
    held = seen.groupby(seen)
    shift = held.cumcount() - (held.transform("size") - 1) / 2
    return list(seen + step * shift)


def _draw_panel(axes: Axes, group: pd.DataFrame, labels: list[str]) -> None:
    palette = style.colours(len(labels))
    for row, place in zip(group.to_dict("records"), _places(group), strict=True):
        number = labels.index(row["label"])
        bars = None
        if row["low"] is not None:
            bars = [[row["mean"] - row["low"]], [row["high"] - row["mean"]]]
        axes.errorbar(
            place,
            row["mean"],
            yerr=bars,
            marker=style.MARKERS[number % len(style.MARKERS)],
            color=palette[number],
            fillstyle=FILLS[number // len(style.MARKERS) % len(FILLS)],
            markerfacecoloralt="white",
            markersize=7,
            linestyle="none",
            capsize=3,
            label=row["label"],
        )
    axes.set_xlabel("images encoded in pretraining, millions")
    axes.set_ylabel("linear probe, accuracy in %")
    axes.margins(0.15)


def _draw(frame: pd.DataFrame) -> Figure:
    groups = list(frame.groupby(["dataset", "encoder"], sort=False))
    labels = list(frame["label"].unique())
    across = min(2, len(groups))
    down = -(-len(groups) // across)
    legend = -(-len(labels) // 4)
    size = (style.WIDTH, 0.4 + 0.25 * legend + 3.4 * down)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).flat
    found: dict[str, Any] = {}
    for ((dataset, encoder), group), axes in zip(groups, grid, strict=False):
        _draw_panel(axes, group, labels)
        axes.set_title(f"{dataset} {encoder}")
        handles, named = axes.get_legend_handles_labels()
        found |= dict(zip(named, handles, strict=True))
    for axes in list(grid)[len(groups) :]:
        axes.set_visible(False)
    where = {"loc": "outside lower center", "ncols": min(len(labels), 4), "frameon": False}
    figure.legend([found[label] for label in labels], labels, **where)
    return figure


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """One panel per (dataset, encoder), one mark per label."""
    rows = [] if frame.empty else _rows(params, records, frame)
    if not rows:
        return empty_drawing("No judged run is there yet.")
    caption = (
        "Accuracy of the linear probe, mean over seeds with its two-sided 95 % t-interval, against "
        "optimiser steps x batch size x views: two augmented views, and a third with any extra "
        "positive. Not in it: the backward pass, a second encoder that some methods keep, and "
        "drawing the candidates. Marks of equal compute stand side by side."
    )
    told = [f"{r['label']} {r['mean']:.2f} after {r['images_millions']:.3g} million" for r in rows]
    alt = f"Scatter plot of accuracy by images encoded: {'; '.join(told)}."
    shown = pd.DataFrame(rows)
    shown = shown.astype(object).where(shown.notna(), None)
    return Drawing(_draw(shown), COLUMNS, rows, caption, alt)
