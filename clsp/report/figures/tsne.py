"""t-SNE of the encoders' test features, one panel per label, coloured by class."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from safetensors import SafetensorError, safe_open
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from clsp.config.grid import Run
from clsp.config.plan import prepare_job
from clsp.config.schema import Params
from clsp.data.prepared import open_prepared
from clsp.report import style
from clsp.report.collect import current_artefacts, ordinary_runs
from clsp.report.figure import Drawing, empty_drawing
from clsp.report.records import Records
from clsp.runtime.errors import DataError
from clsp.runtime.keys import numpy_stream

TITLE = "t-SNE of test features"
LIMIT = 1500  # images shown; above, a seeded sample. 10,000 take 15 times as long, 40 s a panel
NAMED = 12  # classes up to which names are written into the panels
COLUMNS = ("dataset", "encoder", "label", "run", "row", "class", "x", "y")


@dataclass(frozen=True)
class Map:
    """One encoder's test features in two dimensions."""

    run: Run
    rows: np.ndarray  # (N,) row in the dataset's arrays
    labels: np.ndarray  # (N,)
    points: np.ndarray  # (N, 2)
    classes: list[str]


def embed(features: np.ndarray) -> np.ndarray:
    """Two-dimensional t-SNE of L2-normalised features (N, F): (N, 2), the same on every call.

    On one thread: sums over threads come in another order, and t-SNE makes another map of that.
    """
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(length, 1e-12)
    perplexity = min(30.0, max(2.0, (len(features) - 1) / 3))
    tsne = TSNE(perplexity=perplexity, init="pca", max_iter=500, random_state=0)
    with threadpool_limits(1):
        return tsne.fit_transform(unit)


def _test_features(path: Path, dataset: str) -> np.ndarray:
    """Cached test features, float32 (N, F)."""
    try:
        with safe_open(path, framework="np") as stored:
            return stored.get_tensor(f"{dataset}/test")
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: no readable test features of {dataset} ({error})") from error


def _map(run: Run, params: Params, records: Records) -> Map | None:
    made = current_artefacts(run, records)
    probe, cached = made.get("probe-encoder"), made.get("extract-features")
    data = prepare_job(params, run.judged_on)
    source = records.current(data.stage, data.name, data.spec)
    if probe is None or cached is None or source is None:
        return None
    features = _test_features(cached.path("features.safetensors"), run.judged_on)
    with np.load(probe.path("linear.npz"), allow_pickle=False) as stored:
        labels, rows = stored["labels"], stored["rows"]
    shown = np.arange(len(labels))
    if len(shown) > LIMIT:
        shown = np.sort(numpy_stream(0, "tsne").choice(len(labels), LIMIT, replace=False))
    points = embed(np.asarray(features[shown], dtype=np.float32))
    return Map(run, rows[shown], labels[shown], points, open_prepared(source).classes)


def _first_seeds(params: Params, records: Records) -> list[Map]:
    """For every (dataset, encoder, label) the first seed in params.yaml that is there."""
    maps: dict[tuple[Any, ...], Map] = {}
    for run in ordinary_runs(params):
        key = (run.axes["dataset"], run.axes["encoder"], run.label)
        if key not in maps and (found := _map(run, params, records)) is not None:
            maps[key] = found
    return list(maps.values())


def _draw_panel(axes: Axes, found: Map, title: str) -> None:
    palette = style.colours(len(found.classes))
    for number in np.unique(found.labels):
        mine = found.points[found.labels == number]
        marker = style.MARKERS[number % len(style.MARKERS)]
        axes.scatter(*mine.T, s=9, color=palette[number], marker=marker, alpha=0.75, linewidth=0)
        if len(found.classes) <= NAMED:
            axes.text(
                *np.median(mine, axis=0),
                found.classes[number],
                fontsize=9,
                weight="bold",
                ha="center",
                va="center",
                bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
            )
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])


def _draw(maps: list[Map]) -> Figure:
    across = min(3, len(maps))
    down = -(-len(maps) // across)
    side = style.WIDTH / 3
    figure = Figure(figsize=(side * across, side * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False)
    several = len({(m.run.axes["dataset"], m.run.axes["encoder"]) for m in maps}) > 1
    for axes in grid.flat[len(maps) :]:
        axes.set_visible(False)
    for found, axes in zip(maps, grid.flat, strict=False):
        where = "{dataset} {encoder}: ".format(**found.run.axes) if several else ""
        _draw_panel(axes, found, f"{where}{found.run.label}")
    return figure


def _rows(found: Map) -> list[dict[str, Any]]:
    return [
        {
            "dataset": found.run.axes["dataset"],
            "encoder": found.run.axes["encoder"],
            "label": found.run.label,
            "run": found.run.slug,
            "row": int(row),
            "class": found.classes[label],
            "x": round(float(x), 4),
            "y": round(float(y), 4),
        }
        for row, label, (x, y) in zip(found.rows, found.labels, found.points, strict=True)
    ]


def draw(params: Params, records: Records, frame: pd.DataFrame) -> Drawing:
    """One panel per label, first seed each."""
    maps = _first_seeds(params, records)
    if not maps:
        return empty_drawing("No probe is there yet.")
    seeds = ", ".join(sorted({str(found.run.axes["seed"]) for found in maps}))
    caption = (
        f"Test features of one encoder per method (seed {seeds}), L2-normalised and projected by "
        "t-SNE, one colour and marker per class. Distances between clusters carry no meaning."
    )
    labels = ", ".join(found.run.label for found in maps)
    alt = f"Scatter plots of test features in two dimensions, by class, for {labels}."
    return Drawing(_draw(maps), COLUMNS, [r for m in maps for r in _rows(m)], caption, alt)
