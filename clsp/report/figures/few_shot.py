"""Accuracy with few labels on every downstream dataset: by images per class, and by share."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from clsp.config.schema import Params
from clsp.config.tasks import multilabel_tasks
from clsp.report import style
from clsp.report.cells import aggregate
from clsp.report.downstream import METRICS
from clsp.report.figure import Drawing, empty_drawing
from clsp.report.records import Records

TITLE = "Transfer with few labels"
ACROSS = 4  # panels beside each other
KINDS = {"shots": "images per class", "fraction": "labelled share, %"}
FLOORS = (("#3a3a3a", "x"), ("#8c8c8c", "+"))  # colour and marker
COLUMNS = ("dataset", "encoder", "label", "task", "kind", "point", "metric", "mean", "std", "n")


def _point(variant: str) -> tuple[str, float]:
    """What is counted and how much: ("shots", 5.0) for "shots=5"."""
    kind, _, value = variant.partition("=")
    return kind, float(value)


def _points(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per point of a curve: mean and spread over seeds."""
    keys = ["dataset", "encoder", "label", "task", "variant"]
    rows = []
    for (dataset, encoder, label, task, variant), seeds in frame.groupby(keys, sort=False):
        cell = aggregate(seeds, variant)
        if cell.mean is None:
            continue
        kind, point = _point(variant)
        row = (dataset, encoder, label, task, kind, point, cell.metric, cell.mean, cell.std, cell.n)
        rows.append({**dict(zip(COLUMNS, row, strict=True)), "floor": _is_floor(seeds)})
    return pd.DataFrame(rows)


def _is_floor(seeds: pd.DataFrame) -> bool:
    """Whether the rows are a floor's, which has no method."""
    return bool((seeds["method"] == "").all())


def _looks(points: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """How the line of each label is drawn: floors grey and dashed."""
    floors = list(points.loc[points["floor"], "label"].unique())
    methods = [label for label in points["label"].unique() if label not in floors]
    palette = style.colours(len(methods))
    looks: dict[str, dict[str, Any]] = {}
    for number, label in enumerate(methods):
        dashes = style.DASHES[number // len(style.MARKERS) % len(style.DASHES)]
        marker = style.MARKERS[number % len(style.MARKERS)]
        looks[label] = {"color": palette[number], "marker": marker}
        if dashes:
            looks[label]["dashes"] = dashes
    for number, label in enumerate(floors):
        dashes = style.DASHES[1 + number % (len(style.DASHES) - 1)]
        colour, marker = FLOORS[number % len(FLOORS)]
        looks[label] = {"color": colour, "dashes": dashes, "marker": marker}
    return looks


def _draw_panel(axes: Axes, panel: pd.DataFrame, looks: dict[str, dict[str, Any]]) -> None:
    scale = 100 if panel["kind"].iloc[0] == "fraction" else 1
    ticks = sorted(scale * panel["point"].unique())
    labels = list(panel["label"].unique())
    for place, label in enumerate(labels):
        line, look = panel[panel["label"] == label].sort_values("point"), looks[str(label)]
        x, spread = scale * line["point"], line["std"].astype(float).fillna(0)
        if len(ticks) == 1:  # no line to follow: side by side, with bars
            x = x * 1.05 ** (place - (len(labels) - 1) / 2)
            axes.errorbar(x, line["mean"], spread, color=look["color"], linewidth=1.2)
        axes.plot(x, line["mean"], markersize=4, linewidth=1.5, label=label, **look)
        low, high = line["mean"] - spread, line["mean"] + spread
        axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    if len(ticks) == 1:
        axes.margins(x=0.15)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())


def _draw_block(
    block: list[list[Axes]], points: pd.DataFrame, tasks: list[str], where: str, looks: Any
) -> None:
    """Up to ACROSS datasets side by side, one row of panels per kind of point."""
    kinds = [kind for kind in KINDS if kind in set(points["kind"])]
    for kind, line in zip(kinds, block, strict=True):
        for axes in line[len(tasks) :]:
            axes.set_visible(False)
        for place, (task, axes) in enumerate(zip(tasks, line, strict=False)):
            panel = points[(points["task"] == task) & (points["kind"] == kind)]
            if panel.empty:
                axes.set_visible(False)
                continue
            _draw_panel(axes, panel, looks)
            metric = METRICS.get(panel["metric"].iloc[0], "")
            axes.set_title(f"{where}{task}\n{metric}" if kind == kinds[0] else "")
            axes.set_xlabel(KINDS[kind])
            axes.set_ylabel("accuracy, %" if place == 0 else "")


def _draw(points: pd.DataFrame) -> Figure:
    looks, blocks = _looks(points), []
    places = list(points.groupby(["dataset", "encoder"], sort=False))
    for key, group in places:
        tasks = list(group["task"].unique())
        where = f"{' '.join(key)}:\n" if len(places) > 1 else ""
        for start in range(0, len(tasks), ACROSS):
            blocks.append((group, tasks[start : start + ACROSS], where))
    deep = points["kind"].nunique()
    size = (style.WIDTH, 0.6 + 2.1 * deep * len(blocks))
    figure = Figure(figsize=size, layout="constrained")
    across = min(ACROSS, max(len(tasks) for _, tasks, _ in blocks))
    grid = figure.subplots(deep * len(blocks), across, squeeze=False)
    for number, (group, tasks, where) in enumerate(blocks):
        _draw_block(list(grid[number * deep : (number + 1) * deep]), group, tasks, where, looks)
    found: dict[str, Any] = {}
    for axes in grid.flat:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    shown = [label for label in looks if label in found]
    where = {"loc": "outside lower center", "ncols": min(len(shown), 4), "frameon": False}
    figure.legend([found[label] for label in shown], shown, **where)
    return figure


def _caption(params: Params, points: pd.DataFrame) -> str:
    judged = params.evaluation.transfer
    few_shot = judged and judged.few_shot
    draws, strength = (few_shot.draws, few_shot.log10_lambda) if few_shot else (0, 0)
    caption = (
        f"Logistic regression on few labelled images of each class, with the regulariser "
        f"10^{strength:g} fixed in advance and L2-normalised features; mean over {draws} draws of "
        "the images, then over seeds, with a band of one standard deviation of the seeds. A "
        "share takes at least one image of each class, in small datasets more than it says."
    )
    floors = list(points.loc[points["floor"], "label"].unique())
    if floors:
        caption += f" Dashed: floors ({', '.join(floors)})."
    if several := multilabel_tasks(params):
        caption += (
            f" Not shown: {', '.join(several)}, whose images show several classes, so that so many "
            "images of each class are not defined."
        )
    return caption


def _alt(points: pd.DataFrame) -> str:
    """The last point of the first kind, for each label averaged over datasets."""
    first = points[points["kind"] == points["kind"].iloc[0]]
    kind, most = KINDS[first["kind"].iloc[0]], first["point"].max()
    means = first[first["point"] == most].groupby("label", sort=False)["mean"].mean()
    ends = "; ".join(f"{label} {value:.2f}" for label, value in means.items())
    return f"Line charts of accuracy by {kind}. At {most:g}, averaged over datasets: {ends}."


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """One column of panels per dataset, one row per kind of point, one line per label."""
    if frame.empty:
        return empty_drawing("No few-shot result is there yet.")
    chosen = frame[(frame["protocol"] == "few_shot") & (frame["variation"] == "")]
    points = _points(chosen)
    if points.empty:
        return empty_drawing("No few-shot result is there yet.")
    shown = points.astype(object).where(points.notna(), None)
    rows = shown[list(COLUMNS)].to_dict("records")
    return Drawing(_draw(points), COLUMNS, rows, _caption(params, points), _alt(points))
