"""Quality figures of banks against one value: what the figures over w, k and steps share."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clsp.config.measured import bank_label, line_of, measured_banks
from clsp.config.quality import PROTOCOL
from clsp.config.schema import Params
from clsp.config.variation import VARIED, bases, number, value_of
from clsp.report import style
from clsp.report.figure import Drawing, empty_drawing
from clsp.report.quality import TITLES, label_notes, network_note, variant_of

CANDIDATES = "candidates"
COLUMNS = ("bank", "dataset", "network", "line", "option", "value", "k", "metric", "number")
PANELS = {  # title -> metrics of one panel, in the order of dashes
    "distance to the training images": ("fid", "frechet_distance"),
    "likeness, cosine": ("own_cosine", "random_cosine"),
    "diversity, 1 − cosine": ("diversity_cosine",),
    "nearest training image is the own anchor, %": ("nearest_own_feature", "nearest_own_pixel"),
    "near copies of training images": (
        "near_copies_feature",
        "near_copies_pixel",
        "copies_of_others_feature",
        "copies_of_others_pixel",
    ),
    "label agreement, %": ("label_agreement", "anchor_accuracy"),
}


@dataclass(frozen=True)
class Point:
    """One bank at one place of a line: which candidates of it count, and the value there."""

    line: str  # the bank that the line goes through
    bank: str
    value: float
    k: int


def _points(params: Params, option: str) -> list[Point]:
    """Points of every line through a measured bank; lines of one point are left out."""
    found, largest = [], max(params.quality.candidates)
    measured = measured_banks(params)
    for base in bases(params):
        if option == CANDIDATES:
            line = [Point(base, base, k, k) for k in sorted(params.quality.candidates)]
        else:
            named = line_of(params, base, option, measured)
            values = {name: value_of(params.banks[name], option) for name in named}
            line = [Point(base, n, v, largest) for n, v in values.items() if v is not None]
            line.sort(key=lambda point: point.value)
        found += line if len(line) > 1 else []
    return found


def _rows(params: Params, frame: pd.DataFrame, option: str) -> Iterator[dict[str, Any]]:
    numbers = frame[(frame["protocol"] == PROTOCOL) & (frame["status"] == "done")]
    known = numbers.set_index(["run", "variant", "metric"])["value"].to_dict()
    for point in _points(params, option):
        for metric in (name for names in PANELS.values() for name in names):
            value = known.get((point.bank, variant_of(point.k), metric))
            if value is not None:
                yield {
                    "bank": point.bank,
                    "dataset": params.banks[point.bank].dataset,
                    "network": params.quality.network,
                    "line": point.line,
                    "option": option,
                    "value": point.value,
                    "k": point.k,
                    "metric": metric,
                    "number": float(value),
                }


def _draw_panel(axes: Axes, shown: pd.DataFrame, metrics: tuple[str, ...]) -> None:
    """Lines of one panel: colour and marker for each bank, dashes for each metric.

    With one bank, all three are the metric's.
    """
    lines = list(shown["line"].unique())
    several = len(lines) > 1
    palette = style.colours(max(len(lines), len(metrics)))
    values = sorted(shown["value"].unique())
    metrics = tuple(name for name in metrics if (shown["metric"] == name).any())
    for (line, metric), points in shown.groupby(["line", "metric"], sort=False):
        place = metrics.index(str(metric))
        title = TITLES[str(metric)]
        axes.plot(
            [values.index(value) for value in points["value"]],
            points["number"],
            color=palette[lines.index(line)] if several else palette[place % len(palette)],
            dashes=style.DASHES[place] or (1, 0),
            marker=style.MARKERS[lines.index(line) % len(style.MARKERS) if several else place],
            markersize=5 if several else 8 - 1.5 * place,  # equal lines stay visible
            linewidth=1.6,
            label=f"{line}: {title}" if several else title,
        )
    axes.set_xticks(range(len(values)), [number(value) for value in values])
    axes.margins(y=0.15)
    if len(shown["metric"].unique()) > 1 or several:
        axes.legend(frameon=False, fontsize=7)


def _symbol(option: str) -> str:
    return f"{VARIED[option].symbol} ({option})" if option in VARIED else option


def _draw(frame: pd.DataFrame, option: str) -> Figure:
    panels = {t: names for t, names in PANELS.items() if frame["metric"].isin(names).any()}
    across = 3
    down = -(-len(panels) // across)
    figure = Figure(figsize=(style.WIDTH * 1.15, 0.3 + 2.7 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    for axes in grid.flat:
        axes.set_visible(False)
    for axes, (title, metrics) in zip(grid.flat, panels.items(), strict=False):
        axes.set_visible(True)
        _draw_panel(axes, frame[frame["metric"].isin(metrics)], metrics)
        known = [name for name in metrics if (frame["metric"] == name).any()]
        axes.set_title(TITLES[known[0]] if title.startswith("distance") else title)
        axes.set_xlabel(_symbol(option))
    return figure


def _told(frame: pd.DataFrame) -> str:
    """The ends of every line of the distance, for readers who do not see it."""
    distances = frame[frame["metric"].isin(PANELS["distance to the training images"])]
    parts = []
    for line, points in distances.groupby("line", sort=False):
        first, last = points.iloc[0], points.iloc[-1]
        parts.append(
            f"{line}: {TITLES[first['metric']]} {first['number']:.4g} at {number(first['value'])}, "
            f"{last['number']:.4g} at {number(last['value'])}"
        )
    return "; ".join(parts) or "no distance"


def draw_quality(params: Params, frame: pd.DataFrame, option: str) -> Drawing:
    """One panel per kind of number, one line per bank that is varied."""
    if params.quality is None:
        return empty_drawing("Nothing to show: params.yaml measures no bank.")
    if not _points(params, option):
        return empty_drawing(f"Nothing to show: quality in params.yaml does not vary {option}.")
    rows = list(_rows(params, frame, option))
    if not rows:
        return empty_drawing("No bank has been measured yet.")
    shown = pd.DataFrame(rows)
    lines = [bank_label(params, line) for line in shown["line"].unique()]
    counted = "" if option == CANDIDATES else f", first {max(params.quality.candidates)} candidates"
    caption = (
        f"Quality of banks against {_symbol(option)}, everything else as in {'; '.join(lines)}: "
        f"{params.quality.anchors} anchors{counted}. Values are evenly spaced along the axis. "
        + " ".join([network_note(params), *label_notes(params)])
    )
    alt = (
        f"Line charts of the quality of banks by {option}, seen by {params.quality.network}. "
        f"{_told(shown)}."
    )
    return Drawing(_draw(shown, option), COLUMNS, rows, caption, alt)
