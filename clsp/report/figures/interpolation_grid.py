"""Anchors and candidates side by side for every interpolation weight, as the paper shows them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from clsp.config.measured import bank_uses_labels, line_of
from clsp.config.plan import bank_job, banks_needed, prepare_job
from clsp.config.schema import Params
from clsp.config.variation import banks_of_runs, bases, number, value_of
from clsp.data.bank import open_bank
from clsp.data.prepared import open_prepared
from clsp.report import style
from clsp.report.figure import Drawing, empty_drawing
from clsp.report.figures.candidates import chosen_rows
from clsp.report.quality import label_notes
from clsp.report.records import Records

TITLE = "Anchors and candidates by interpolation weight"
OPTION = "interpolation_weight"
CANDIDATES = 3  # of every anchor and weight
UNLABELLED = 10  # anchors of a dataset that has no labels
COLUMNS = (
    "bank",
    "dataset",
    "anchor",
    "class",
    "interpolation_weight",
    "candidate",
    "mean_squared_difference",
)


@dataclass(frozen=True)
class Sheet:
    """Anchors (M, H, W, 3) of one dataset and their candidates (M, k, H, W, 3) by weight."""

    base: str
    dataset: str
    rows: list[int]
    classes: list[str]
    anchors: np.ndarray
    candidates: dict[float, tuple[str, np.ndarray]]


def _sheet(params: Params, records: Records, base: str) -> Sheet | None:
    """The banks on the line of one bank that are there; None if there are not two."""
    data = prepare_job(params, params.banks[base].dataset)
    source = records.current(data.stage, data.name, data.spec)
    if source is None:
        return None
    prepared = open_prepared(source)
    train = prepared.split("train")
    # Without any label: anchors spread evenly over the training images.
    spread = np.arange(min(UNLABELLED, len(train.images))) * len(train.images) // UNLABELLED
    rows = chosen_rows(train.labels) or np.unique(spread).tolist()
    found = {}
    for name in line_of(params, base, OPTION, banks_needed(params)):
        job = bank_job(params, name)
        made = records.current(job.stage, job.name, job.spec)
        weight = value_of(params.banks[name], OPTION)
        if made is not None and weight is not None:
            found[weight] = name, np.array(open_bank(made).images[rows, :CANDIDATES])
    if len(found) < 2:
        return None
    labels = [int(train.labels[row]) for row in rows]
    classes = [prepared.classes[label] if label >= 0 else "" for label in labels]
    anchors = np.stack([train.images[row] for row in rows])
    return Sheet(base, data.name, rows, classes, anchors, dict(sorted(found.items())))


def _draw(sheets: list[Sheet]) -> Figure:
    across = max(sum(len(c[0]) for _, c in sheet.candidates.values()) for sheet in sheets) + 1
    weights = max(len(sheet.candidates) for sheet in sheets)
    side = min(0.8, style.WIDTH / (across + 0.3 * weights + 0.6))
    heights = [len(sheet.rows) for sheet in sheets]
    size = (side * (across + 0.3 * weights + 0.6), side * sum(heights) + 0.5 * len(sheets))
    figure = Figure(figsize=size, layout="constrained")
    parts = figure.subfigures(len(sheets), 1, squeeze=False, height_ratios=heights)[:, 0]
    for part, sheet in zip(parts, sheets, strict=True):
        groups = [sheet.anchors[:, None], *(images for _, images in sheet.candidates.values())]
        titles = ["anchor", *(f"w = {number(weight)}" for weight in sheet.candidates)]
        widths = [images.shape[1] for images in groups]
        columns = part.subfigures(1, len(groups), squeeze=False, width_ratios=widths, wspace=0.05)[
            0
        ]
        for column, title, images in zip(columns, titles, groups, strict=True):
            column.suptitle(title, fontsize=9, weight="bold" if title == "anchor" else None)
            grid = column.subplots(*images.shape[:2], squeeze=False)
            for line, candidates in zip(grid, images, strict=True):
                for axes, image in zip(line, candidates, strict=True):
                    axes.imshow(image, interpolation="nearest")
                    axes.set_axis_off()
    return figure


def _rows(sheet: Sheet) -> list[dict[str, Any]]:
    rows = []
    for weight, (bank, images) in sheet.candidates.items():
        gaps = (images / 255.0 - sheet.anchors[:, None] / 255.0) ** 2
        for place, anchor in enumerate(sheet.rows):
            for candidate, gap in enumerate(gaps[place]):
                rows.append(
                    {
                        "bank": bank,
                        "dataset": sheet.dataset,
                        "anchor": anchor,
                        "class": sheet.classes[place],
                        "interpolation_weight": weight,
                        "candidate": candidate,
                        "mean_squared_difference": round(float(gap.mean()), 6),
                    }
                )
    return rows


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """A row per anchor, a group of columns per weight."""
    named = list(dict.fromkeys([*bases(params), *banks_of_runs(params)]))
    sheets = [s for base in named if (s := _sheet(params, records, base)) is not None]
    if not sheets:
        return empty_drawing("Nothing to show: no two banks that differ in w alone are there.")
    told = "; ".join(
        f"bank {sheet.base}: w = {', '.join(map(number, sheet.candidates))}" for sheet in sheets
    )
    marked = any(bank_uses_labels(params, sheet.base) for sheet in sheets)
    seen = (
        "" if marked else " The classes in the numbers beside are for the reader; no label is used."
    )
    caption = (
        f"Each row: an anchor, then the first {CANDIDATES} candidates that were drawn for it with "
        f"each interpolation weight w ({told}). w = 0 takes the anchor's bottleneck alone, w = 1 "
        f"nothing of the anchor.{seen} " + " ".join(label_notes(params) if marked else [])
    ).strip()
    alt = (
        f"A grid of images: {sum(len(s.rows) for s in sheets)} anchors, each followed by "
        f"candidates for {told}."
    )
    rows = [row for sheet in sheets for row in _rows(sheet)]
    return Drawing(_draw(sheets), COLUMNS, rows, caption, alt)
