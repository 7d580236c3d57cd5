"""Forest plot of the claims: differences with their intervals, margins and published arithmetic."""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from clsp.config.claims import read_claims
from clsp.config.schema import Params
from clsp.report import style
from clsp.report.claims import judge_claims
from clsp.report.contest import Contest
from clsp.report.figure import Drawing, empty_drawing
from clsp.report.records import Records
from clsp.report.verdict import NOT_REPRODUCED, REPRODUCED, WITHIN, Record
from clsp.report.verdicts import claims_lock
from clsp.runtime.canonical import sha256_file

TITLE = "Claims: differences, their intervals and margins"
READS_EXPECTATIONS = True
LOOKS = {  # by what the numbers alone would say: colour and marker
    REPRODUCED: ("#0173b2", "o"),
    WITHIN: ("#5a5a5a", "s"),
    NOT_REPRODUCED: ("#b04a00", "X"),
}
COLUMNS = (
    "claim", "dataset", "encoder", "left", "right", "difference", "low", "high", "lower", "margin",
    "n", "verdict", "indicative", "published", "protocol_mismatch",
)  # fmt: skip


def _rows(records: list[Record]) -> list[dict[str, Any]]:
    rows = []
    for record in records:
        if record.get("difference") is None:
            continue
        published = (record["published"] or [{}])[0]
        row = {name: record.get(name) for name in COLUMNS} | {"claim": record["id"]}
        row["published"] = published.get("value")
        mismatch = published.get("protocol_mismatch")
        row["protocol_mismatch"] = "" if mismatch is None else "yes" if mismatch else "no"
        rows.append(row)
    return rows


def _draw_row(axes: Axes, place: int, row: dict[str, Any]) -> None:
    colour, marker = LOOKS[row["indicative"]]
    axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2, zorder=2)
    axes.plot(row["lower"], place, marker="|", color=colour, markersize=11, markeredgewidth=2)
    axes.plot(row["difference"], place, marker=marker, color=colour, markersize=8, zorder=3)
    axes.plot(
        [row["margin"]] * 2, [place - 0.38, place + 0.38], color="black", dashes=(2, 1), lw=1.5
    )
    if row["published"] is not None:
        filled = row["protocol_mismatch"] == "no"
        face = style.GREY if filled else "white"
        axes.plot(
            row["published"], place + 0.28, marker="D", markerfacecolor=face,
            markeredgecolor=style.GREY, markersize=5, linestyle="none", zorder=4,
        )  # fmt: skip


def _legend() -> list[Line2D]:
    def mark(marker: str, colour: str, label: str, **more: Any) -> Line2D:
        return Line2D([], [], marker=marker, color=colour, linestyle="none", label=label, **more)

    found = [mark(m, c, f"{word} by its numbers") for word, (c, m) in LOOKS.items()]
    margin = Line2D([], [], color="black", dashes=(2, 1), label="margin")
    hollow = {"markerfacecolor": "white", "markersize": 5}
    return [
        *found,
        mark("|", style.GREY, "one-sided 95 % bound", markersize=11, markeredgewidth=2),
        margin,
        mark("D", style.GREY, "published", markersize=5),
        mark("D", style.GREY, "published, protocols differ", **hollow),
    ]


def _draw(rows: list[dict[str, Any]]) -> Figure:
    figure = Figure(figsize=(style.WIDTH, 1.5 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    labels = []
    for place, row in enumerate(rows):
        _draw_row(axes, place, row)
        where = f"{row['dataset']} {row['encoder']}"
        labels.append(f"{row['claim']}  {row['left']} − {row['right']}\n{where}, n = {row['n']}")
    axes.axvline(0, color=style.GREY, linewidth=0.8)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("difference in points")
    axes.grid(axis="y", visible=False)
    figure.legend(handles=_legend(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def draw(
    params: Params, records: Records, frame: pd.DataFrame, expectations: dict[str, Path]
) -> Drawing:
    """One line per difference that at least two seeds are there for."""
    file = expectations["claims.yaml"]
    lock = claims_lock(params, records, sha256_file(file))
    rows = _rows(judge_claims(Contest(params, frame), read_claims(file), lock))
    if not rows:
        return empty_drawing("No difference that some claim is about has two seeds yet.")
    caption = (
        "Mean difference over seeds with its two-sided 95 % t-interval; the short stroke is the "
        "one-sided bound that has to reach the margin. Shapes say what the numbers alone would "
        "say; the verdicts are in the table of claims. Diamonds: the same arithmetic on public "
        "numbers, hollow where the two sides were not measured by one protocol."
    )
    told = [
        f"{row['claim']} {row['left']} minus {row['right']} on {row['dataset']}: "
        f"{row['difference']:.2f} ({row['low']:.2f} to {row['high']:.2f}), margin {row['margin']:g}"
        for row in rows
    ]
    return Drawing(_draw(rows), COLUMNS, rows, caption, f"Forest plot. {'; '.join(told)}.")
