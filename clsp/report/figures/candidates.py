"""Synthetic candidates beside the anchors they were drawn for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from clsp.config.measured import bank_uses_labels
from clsp.config.plan import bank_job, prepare_job
from clsp.config.schema import Params
from clsp.data.bank import open_bank
from clsp.data.catalog import UNLABELLED
from clsp.data.prepared import open_prepared
from clsp.report import style
from clsp.report.collect import ordinary_runs
from clsp.report.figure import Drawing, empty_drawing
from clsp.report.records import Records

TITLE = "Anchors and their synthetic candidates"
ANCHORS = 6  # rows per bank
CANDIDATES = 8
COLUMNS = ("bank", "dataset", "anchor", "class", "candidate", "mean_absolute_difference")


@dataclass(frozen=True)
class Strip:
    """One anchor with its candidates, uint8 (H, W, 3) and (K, H, W, 3)."""

    bank: str
    dataset: str
    anchor: int
    label: str
    image: np.ndarray
    candidates: np.ndarray


def chosen_rows(labels: np.ndarray) -> list[int]:
    """The first anchor of each class, evenly spread over the classes; unlabelled ones have none."""
    classes, first = np.unique(labels, return_index=True)
    first = first[classes != UNLABELLED]
    picks = np.linspace(0, len(first) - 1, min(ANCHORS, len(first))).round().astype(int)
    return [int(first[pick]) for pick in picks]


def _strips(params: Params, records: Records, name: str) -> list[Strip]:
    job = bank_job(params, name)
    data = prepare_job(params, params.banks[name].dataset)
    made = records.current(job.stage, job.name, job.spec)
    source = records.current(data.stage, data.name, data.spec)
    if made is None or source is None:
        return []
    bank, prepared = open_bank(made), open_prepared(source)
    train = prepared.split("train")
    return [
        Strip(
            name,
            data.name,
            row,
            prepared.classes[train.labels[row]],
            np.array(train.images[row]),
            np.array(bank.images[row, :CANDIDATES]),
        )
        for row in chosen_rows(train.labels)
        if row < len(bank.images)
    ]


def _draw(strips: list[Strip]) -> Figure:
    across = 1 + max(len(strip.candidates) for strip in strips)
    side = min(1.05, style.WIDTH / (across + 0.6))
    figure = Figure(figsize=(side * (across + 0.6), side * len(strips) + 0.4), layout="constrained")
    grid = figure.subplots(
        len(strips), across, squeeze=False, width_ratios=[1.15] + [1] * (across - 1)
    )
    for strip, line in zip(strips, grid, strict=True):
        for axes in line:
            axes.set_axis_off()
        shown = [strip.image, *strip.candidates]
        for axes, image in zip(line, shown, strict=False):
            axes.imshow(image, interpolation="nearest")
        line[0].set_title(f"{strip.label} #{strip.anchor}", fontsize=8, loc="left", pad=2)
        height = strip.image.shape[0]
        line[0].plot(  # a frame that sets the real image apart without relying on colour
            [-0.5, height - 0.5, height - 0.5, -0.5, -0.5],
            [-0.5, -0.5, height - 0.5, height - 0.5, -0.5],
            color="black",
            linewidth=2.5,
            clip_on=False,
        )
    return figure


def _rows(strips: list[Strip]) -> list[dict[str, Any]]:
    rows = []
    for strip in strips:
        real = strip.image.astype(float)
        for number, candidate in enumerate(strip.candidates):
            gap = float(np.abs(candidate - real).mean())
            rows.append(
                {
                    "bank": strip.bank,
                    "dataset": strip.dataset,
                    "anchor": strip.anchor,
                    "class": strip.label,
                    "candidate": number,
                    "mean_absolute_difference": round(gap, 4),
                }
            )
    return rows


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """A row per anchor: the real image, framed, then its candidates."""
    used = {run.spec.bank for run in ordinary_runs(params)}
    banks = [name for name in params.banks if name in used]
    strips = [strip for name in banks for strip in _strips(params, records, name)]
    if not strips:
        return empty_drawing("No bank of synthetic positives is there yet.")
    shown = list(dict.fromkeys(strip.bank for strip in strips))
    labelled = [name for name in shown if bank_uses_labels(params, name)]
    told = (
        f"; drawn with labels: {', '.join(labelled)}" if labelled else "; none is drawn with labels"
    )
    caption = (
        f"Bank {', '.join(shown)}: in each row the real image (the anchor, framed; its class and "
        "row are printed above it) and, to its right, the candidates that were drawn for it. "
        f"The class names are for the reader{told}."
    )
    classes = ", ".join(dict.fromkeys(strip.label for strip in strips))
    alt = f"A grid of images: {len(strips)} anchors of the classes {classes}, each followed by "
    alt += f"{len(strips[0].candidates)} synthetic candidates of similar look."
    return Drawing(_draw(strips), COLUMNS, _rows(strips), caption, alt)
