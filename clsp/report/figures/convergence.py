"""Our runs over the authors' curves: accuracy with its tolerance band, and the training loss."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clsp.config.convergence import Curve, Curves, curve_of, read_curves, read_explanations
from clsp.config.grid import Run
from clsp.config.schema import Params
from clsp.report import style
from clsp.report.cells import aggregate
from clsp.report.collect import current_artefacts, ordinary_runs
from clsp.report.figure import Drawing, empty_drawing
from clsp.report.records import Records
from clsp.runtime.history import read_history

TITLE = "Our runs over the authors' curves"
READS_EXPECTATIONS = True
COLUMNS = (
    "dataset", "encoder", "method", "label", "whose", "quantity", "epoch", "mean", "low", "high",
    "n",
)  # fmt: skip
AUTHORS, OURS = "authors", "ours"


def _rows_of_authors(curves: Curves, curve: Curve, about: dict[str, Any]) -> list[dict[str, Any]]:
    """The authors' points, accuracies with the band around them."""
    rows = []
    for epoch, value in curve.accuracy:
        tau = curves.tau(curve.dataset, epoch)
        band = {"low": round(value - tau, 6), "high": round(value + tau, 6)}
        rows.append({"quantity": "accuracy", "epoch": epoch, "mean": value, **band})
    for epoch, value in curve.losses.get("loss", ()):
        rows.append({"quantity": "loss", "epoch": epoch, "mean": value, "low": None, "high": None})
    return [{**about, "whose": AUTHORS, "n": 1, **row} for row in rows]


def _losses(runs: list[Run], records: Records) -> pd.DataFrame:
    """The loss of every epoch of every run that is there: columns epoch and loss."""
    parts = []
    for run in runs:
        artefact = current_artefacts(run, records).get("pretrain-encoder")
        if artefact is not None:
            history = pd.DataFrame(read_history(artefact.path("history.jsonl")))
            means = history.groupby("epoch")["loss"].mean().reset_index()
            parts.append(means.assign(epoch=means["epoch"] + 1))
    return pd.concat(parts) if parts else pd.DataFrame({"epoch": [], "loss": []})


def _rows_of_ours(
    runs: list[Run], records: Records, frame: pd.DataFrame, about: dict[str, Any]
) -> list[dict[str, Any]]:
    """Our accuracy at the last epoch with its interval, and our loss with its spread."""
    rows = []
    mine = frame[frame["run"].isin([run.slug for run in runs])]
    mine = mine[(mine["protocol"] == "linear") & (mine["variant"] == "")]
    if (mine["status"] == "done").any():
        cell, last = aggregate(mine, "linear"), runs[0].spec.recipe.epochs
        ends = {"low": cell.low, "high": cell.high, "n": cell.n}
        rows.append({"quantity": "accuracy", "epoch": last, "mean": cell.mean, **ends})
    for epoch, of in _losses(runs, records).groupby("epoch"):
        mean, spread = float(of["loss"].mean()), float(of["loss"].std()) if len(of) > 1 else 0.0
        ends = {"low": mean - spread, "high": mean + spread, "n": len(of)}
        rows.append({"quantity": "loss", "epoch": int(epoch), "mean": mean, **ends})
    return [{**about, "whose": OURS, **row} for row in rows]


def _rows(
    params: Params, records: Records, frame: pd.DataFrame, curves: Curves
) -> list[dict[str, Any]]:
    named: dict[tuple[str, str, str, str], list[Run]] = {}
    for run in ordinary_runs(params):
        if not run.label_users:
            axes = [str(run.axes[axis]) for axis in ("dataset", "encoder", "method")]
            named.setdefault((*axes, run.label), []).append(run)
    rows = []
    for key, runs in named.items():
        if curve := curve_of(curves, params, runs[0].spec):
            about = dict(zip(COLUMNS[:4], key, strict=True))
            ours = _rows_of_ours(runs, records, frame, about)
            rows += [*_rows_of_authors(curves, curve, about), *ours]
    return rows


def _draw_panel(axes: Axes, panel: pd.DataFrame, labels: list[str], quantity: str) -> None:
    palette = style.colours(len(labels))
    for number, label in enumerate(labels):
        colour, marker = palette[number], style.MARKERS[number % len(style.MARKERS)]
        dashes = style.DASHES[number % len(style.DASHES)] or (1, 0)
        look = {"color": colour, "dashes": dashes, "linewidth": 1.4}
        of = panel[(panel["label"] == label) & (panel["quantity"] == quantity)]
        theirs, ours = of[of["whose"] == AUTHORS], of[of["whose"] == OURS]
        axes.plot(theirs["epoch"], theirs["mean"], label=f"{label}, authors", **look)
        if quantity == "accuracy":
            low, high = theirs["low"].astype(float), theirs["high"].astype(float)
            axes.fill_between(theirs["epoch"], low, high, color=colour, alpha=0.13, linewidth=0)
            for row in ours.to_dict("records"):
                ends = [row["low"], row["high"]]
                bars = None if None in ends else [[row["mean"] - ends[0]], [ends[1] - row["mean"]]]
                axes.errorbar(
                    row["epoch"], row["mean"], yerr=bars, marker=marker, color=colour,
                    markeredgecolor="black", markersize=7, capsize=4, linestyle="none",
                    label=f"{label}, ours", zorder=5,
                )  # fmt: skip
        else:
            axes.plot(
                ours["epoch"], ours["mean"], color=colour, marker=marker, linewidth=0.9,
                markersize=4, markevery=max(1, len(ours) // 6), markeredgecolor="black",
            )  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_ylabel("linear probe, %" if quantity == "accuracy" else "total loss")


def _draw(frame: pd.DataFrame) -> Figure:
    groups = list(frame.groupby(["dataset", "encoder", "method"], sort=False))
    size = (style.WIDTH, 0.3 + 3.7 * len(groups))
    figure = Figure(figsize=size, layout="constrained")
    for part, ((dataset, encoder, method), group) in zip(
        figure.subfigures(len(groups), 1, squeeze=False).flat, groups, strict=True
    ):
        left, right = part.subplots(1, 2)
        labels = list(group["label"].unique())
        _draw_panel(left, group, labels, "accuracy")
        _draw_panel(right, group, labels, "loss")
        left.set_title(f"{dataset} {encoder} {method}: accuracy")
        right.set_title("loss")
        handles, names = left.get_legend_handles_labels()
        where = {"loc": "outside lower center", "ncols": len(labels), "frameon": False}
        part.legend(handles, names, fontsize=8, **where)  # marks may be anywhere in the panels
    return figure


def _explained(path: Path) -> str:
    told = [
        f"{one.label} on {one.dataset}, {one.found:.2f}: {one.reason} ({one.by}, {one.date})"
        for one in read_explanations(path).explanations
    ]
    return f" Explanations of values above a band: {'; '.join(told)}." if told else ""


def draw(
    params: Params, records: Records, frame: pd.DataFrame, expectations: dict[str, Path]
) -> Drawing:
    """One row of panels per dataset, encoder and method; only for recipes that are the authors'."""
    curves = read_curves(expectations["official_curves.json"])
    rows = [] if frame.empty else _rows(params, records, frame, curves)
    if not rows:
        why = "Nothing to show: no run of params.yaml follows a recipe of the authors' own curves."
        return empty_drawing(why)
    caption = (
        "Lines: the authors' runs, one seed each, with the tolerance band around their accuracy "
        f"({curves.band_source}). Marks: ours, mean over seeds; accuracy at the last epoch "
        "with its two-sided 95 % t-interval, loss over epochs. Check A27 compares the ends: below "
        "the band is noted, above it blocks until it is explained."
        + _explained(expectations["explanations.yaml"])
    )
    ends = [row for row in rows if row["whose"] == OURS and row["quantity"] == "accuracy"]
    known = {
        (row["dataset"], row["encoder"], row["label"]): row["mean"]
        for row in rows
        if row["whose"] == AUTHORS and row["quantity"] == "accuracy"
    }
    told = [
        f"{r['label']} on {r['dataset']} with {r['encoder']} ends at {r['mean']:.2f}, the authors' "
        f"at {known[r['dataset'], r['encoder'], r['label']]:.2f}"
        for r in ends
    ]
    shown = pd.DataFrame(rows)
    alt = (
        f"Line charts of accuracy and loss by epoch. {'; '.join(told) or 'None of ours is there'}."
    )
    return Drawing(_draw(shown), COLUMNS, rows, caption, alt)
