"""Accuracy against one varied value: what the ablation figures share."""

from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clsp.config.schema import Params
from clsp.config.variation import VARIED, number
from clsp.report import style
from clsp.report.ablation import cells_of, columns, find_lines, nothing, select
from clsp.report.cells import Cell
from clsp.report.collect import ordinary_runs
from clsp.report.figure import Drawing, empty_drawing

COLUMNS = ("dataset", "encoder", "label", "value", "column", "mean", "std", "n")


@dataclass(frozen=True)
class Curve:
    """Cells by column and value; a reference has one value, None, and is drawn as a level line."""

    place: tuple[str, str]  # dataset, encoder
    label: str
    points: dict[str, dict[float | None, Cell]]


def _by_column(points: dict[float | None, list[Cell]]) -> dict[str, dict[float | None, Cell]]:
    turned: dict[str, dict[float | None, Cell]] = {}
    for value, cells in points.items():
        for cell in cells:
            turned.setdefault(cell.column, {})[value] = cell
    return turned


def _curves(params: Params, frame: pd.DataFrame, varied: str) -> list[Curve]:
    """Every line along the value, then the plain method of each where it is run without positives.

    A reference is a point that no value belongs to.
    """
    lines = find_lines(params, varied)
    curves = []
    for line in lines:
        points = {v: cells_of(params, frame, runs, line.label) for v, runs in line.runs.items()}
        curves.append(Curve((line.dataset, line.encoder), line.label, _by_column(points)))
    judged = {(line.dataset, line.encoder, line.method) for line in lines}
    plain: dict[tuple[str, ...], list] = {}
    for run in ordinary_runs(params):
        names = tuple(str(run.axes[axis]) for axis in ("dataset", "encoder", "method"))
        if run.spec.positives == "none" and names in judged:
            plain.setdefault((*names, run.label), []).append(run)
    for (dataset, encoder, _, label), runs in plain.items():
        points = _by_column({None: cells_of(params, frame, runs, label)})
        curves.append(Curve((dataset, encoder), label, points))
    return curves


def _draw_level(axes: Axes, cell: Cell, look: dict[str, Any]) -> None:
    axes.axhline(cell.mean, **{**look, "marker": None})
    spread = cell.std or 0.0
    axes.axhspan(cell.mean - spread, cell.mean + spread, color=look["color"], alpha=0.1, lw=0)


def _draw_panel(axes: Axes, curves: list[Curve], column: str, values: list[float]) -> None:
    """One protocol on one dataset; values are evenly spaced, however far apart they are."""
    palette = style.colours(len(curves))
    for place, curve in enumerate(curves):
        look = {
            "color": palette[place],
            "dashes": style.DASHES[place % len(style.DASHES)] or (1, 0),
            "marker": style.MARKERS[place % len(style.MARKERS)],
            "linewidth": 1.6,
            "label": curve.label,
        }
        shown = {v: cell for v, cell in curve.points[column].items() if cell.mean is not None}
        if None in shown:
            _draw_level(axes, shown[None], look)
        elif shown:
            x = [values.index(value) for value in shown]
            means = [cell.mean for cell in shown.values()]
            axes.plot(x, means, markersize=5, **look)
            spread = [cell.std or 0.0 for cell in shown.values()]
            axes.errorbar(x, means, spread, fmt="none", ecolor=palette[place], capsize=3)
    axes.set_xticks(range(len(values)), [number(value) for value in values])


def _draw(curves: list[Curve], varied: str, titles: list[str]) -> Figure:
    places = list(dict.fromkeys(curve.place for curve in curves))
    size = (style.WIDTH, 0.6 + 3.0 * len(places))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(places), len(titles), squeeze=False)
    legend: dict[str, Any] = {}
    for place, row in zip(places, grid, strict=True):
        mine = [curve for curve in curves if curve.place == place]
        points = [v for curve in mine for of in curve.points.values() for v in of if v is not None]
        for title, axes in zip(titles, row, strict=True):
            _draw_panel(axes, mine, title, sorted(set(points)))
            axes.set_title(f"{' '.join(place)}: {title}" if len(places) > 1 else title)
            axes.set_xlabel(f"{VARIED[varied].symbol} ({varied})")
            axes.set_ylabel("top-1 accuracy, %")
            handles, labels = axes.get_legend_handles_labels()
            legend |= dict(zip(labels, handles, strict=True))
    columns = min(len(legend), 4) or 1
    where = {"loc": "outside lower center", "ncols": columns, "frameon": False}
    figure.legend(list(legend.values()), list(legend), **where)
    return figure


def _rows(curves: list[Curve]) -> list[dict[str, Any]]:
    return [
        {
            "dataset": cell.dataset,
            "encoder": cell.encoder,
            "label": cell.label,
            "value": value,
            "column": column,
            "mean": cell.mean,
            "std": cell.std,
            "n": cell.n,
        }
        for curve in curves
        for column, points in curve.points.items()
        for value, cell in points.items()
    ]


def draw_ablation(params: Params, frame: pd.DataFrame, varied: str) -> Drawing:
    """One row of panels per (dataset, encoder), one panel per protocol, one line per label."""
    if not find_lines(params, varied):
        return empty_drawing(nothing(varied))
    if frame.empty or not (frame["status"] == "done").any():
        return empty_drawing("No run of this ablation is there yet.")
    curves = _curves(params, select(frame), varied)
    caption = (
        f"Accuracy against {varied} ({VARIED[varied].symbol}): mean over seeds, with bars (bands "
        "for lines without a value) of one standard deviation. Values are evenly spaced along the "
        "axis. Level lines: the method without positives."
    )
    titles = list(columns(params).values())
    best = []
    for curve in curves:
        found = {v: c.mean for v, c in curve.points[titles[0]].items() if c.mean is not None}
        if found and None not in found:
            value = max(found, key=lambda v: found[v])
            best.append(f"{curve.label}: best at {number(value)} with {found[value]:.2f}")
    alt = f"Line charts of accuracy by {varied}. {titles[0]}: {'; '.join(best) or 'no value'}."
    return Drawing(_draw(curves, varied, titles), COLUMNS, _rows(curves), caption, alt)
