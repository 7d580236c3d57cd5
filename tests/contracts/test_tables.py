"""Every registered table renders: with all runs, with some missing, and with none."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from results_tree import (
    ABLATED,
    ABLATIONS,
    ALONG,
    JUDGED,
    MEASURED,
    PARAMS,
    REPO,
    TreeBuilder,
    tiny_params,
)

from clsp.config.schema import TABLES, Params
from clsp.report.cells import DEMONSTRATION, read_cells
from clsp.report.collect import build_frame, frame_csv
from clsp.report.published import PublishedNumbers
from clsp.report.table import build_table, read_frame, render
from clsp.runtime import registry

PUBLISHED = REPO / "reports/spec/published.yaml"
NAMES = registry.names(TABLES)
ORDINARY = [n for n in NAMES if n not in (*ABLATIONS, "quality")]  # one row per label
WIDE = "wide"  # the encoder that is a ResNet-50
ROWS = {"controls": 3, "references": 4, "resnet50": 2}  # of the tables that WIDER has rows for
TRANSFER = PARAMS["evaluation"]["transfer"]
TUNED = {**TRANSFER, "fine_tune": JUDGED["evaluation"]["transfer"]["fine_tune"]}
ASKED = {
    **ABLATED,
    "quality": MEASURED["quality"],
    "evaluation": {**PARAMS["evaluation"], "transfer": TUNED},
}  # for every table but those of ROWS
WIDER = {
    "encoders": {
        **PARAMS["encoders"],
        WIDE: {"architecture": "resnet50", "stem": "small", "width": 8},
    },
    "positives": {
        **PARAMS["positives"],
        "augmentation": {"label": "{method}-aug"},
        "same_class": {"label": "{method}-oracle"},
    },
    "runs": {
        **PARAMS["runs"],
        "further": {**ALONG, "positives": ["augmentation", "same_class"]},
        "large": {**ALONG, "encoder": [WIDE], "positives": ["none", "synthetic"]},
    },
    "comparison": {"recipes": "single", "labels": "marked"},
}


@pytest.fixture(scope="module")
def frame_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a tree with ablations, whose runs the ordinary tables leave out."""
    return _frame_of(tmp_path_factory.mktemp("tree"), tiny_params(**ASKED))


@pytest.fixture(scope="module")
def wider_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a tree with a third augmented view, a reference with labels, and a ResNet-50."""
    return _frame_of(tmp_path_factory.mktemp("wider"), tiny_params(**WIDER))


@pytest.fixture
def asked(name: str, frame_text: str, wider_text: str) -> tuple[dict[str, Any], str]:
    """Parameters and frame of a tree that has rows for the table."""
    return (WIDER, wider_text) if name in ROWS else (ASKED, frame_text)


def _frame_of(folder: Path, params: Params) -> str:
    builder = TreeBuilder(folder, params)
    builder.science()
    return frame_csv(build_frame(params, builder.results))


def without(text: str, runs: list[str]) -> str:
    """The frame as it is when some runs are not there."""
    frame = pd.read_csv(pd.io.common.StringIO(text), dtype=str, keep_default_na=False)
    gone = frame["run"].isin(runs)
    kept = ["run", "label", "dataset", "encoder", "method", "positives", "seed", "task"]
    kept += ["protocol", "variant", "variation", "recipe", "uses_labels"]
    frame.loc[gone, [c for c in frame.columns if c not in kept]] = ""
    frame.loc[gone, "status"] = "missing"
    return frame.to_csv(index=False)


def _runs(text: str, encoder: str = "") -> list[str]:
    """Slugs of all runs, or of those of one encoder."""
    slugs = dict.fromkeys(line.split(",")[0] for line in text.split("\n")[1:-1])
    return [slug for slug in slugs if f".{encoder}" in slug]


@pytest.mark.parametrize("name", NAMES)
def test_interface(name: str) -> None:
    module: ModuleType = registry.load(TABLES, name, "table")
    assert isinstance(module.TITLE, str) and module.TITLE
    assert callable(module.select) and callable(module.build)


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("gone", [0, 1, 3, 6])
def test_renders_with_runs_missing(name: str, gone: int, asked: tuple[dict, str]) -> None:
    changes, text = asked
    encoder = WIDE if name == "resnet50" else "tiny"
    runs = _runs(text, encoder)[:gone]  # the first three are all seeds of SimCLR
    table, texts = render(tiny_params(**changes), name, without(text, runs), PUBLISHED)
    rows = table.rows
    assert len(rows) == ROWS.get(name, 2)
    assert len({tuple(cells) for cells in rows.values()}) == 1  # the same columns in every row
    numbers = [c for c in rows["digits", encoder, "SimCLR"].values() if c.unit == "percent"]
    present = 3 - min(gone, 3)
    assert all((c.n, c.expected) == (present, 3) for c in numbers)
    assert all((c.mean is None) == (present == 0) for c in numbers)
    assert ("— (0 of 3)" in texts["md"].split("- Mean")[0]) == (gone >= 3)
    assert "nan" not in texts["csv"].lower()
    assert read_cells(texts["csv"], name) == table.cells


@pytest.mark.parametrize("name", NAMES)
def test_renders_without_any_run(name: str, asked: tuple[dict, str]) -> None:
    changes, text = asked
    table, texts = render(tiny_params(**changes), name, without(text, _runs(text)), PUBLISHED)
    assert table.cells and all(cell.mean is None for cell in table.cells)
    assert "nan" not in texts["csv"].lower()
    assert read_cells(texts["csv"], name) == table.cells


@pytest.mark.parametrize("name", NAMES)
def test_renders_without_rows(name: str, frame_text: str) -> None:
    """Nothing of what a table shows was asked for: no ordinary run, or no ablation."""
    frame = pd.read_csv(pd.io.common.StringIO(frame_text), dtype=str, keep_default_na=False)
    frame["variation"] = "alignment_weight=7"
    table, texts = render(tiny_params(), name, frame.to_csv(index=False), PUBLISHED)
    assert (table.cells, read_cells(texts["csv"], name)) == ([], [])
    assert table.title in texts["md"] and "\\midrule" in texts["tex"]
    assert all("Nothing to show: " in texts[ending] for ending in ("md", "tex"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["csv", "md", "tex"])
def test_demonstration_mark(name: str, ending: str, asked: tuple[dict, str]) -> None:
    changes, text = asked
    for demonstration in (True, False):
        params = tiny_params(**changes, demonstration=demonstration)
        _, texts = render(params, name, text, PUBLISHED)
        shown = texts[ending].replace("\\", "")
        assert (DEMONSTRATION in shown) == demonstration


@pytest.mark.parametrize("name", NAMES)
def test_deterministic(name: str, asked: tuple[dict, str]) -> None:
    changes, text = asked
    params = tiny_params(**changes)
    first = render(params, name, text, PUBLISHED)[1]
    assert first == render(params, name, text, PUBLISHED)[1]


def test_cells_by_hand(frame_text: str) -> None:
    """Mean and standard deviation against pandas."""
    frame = read_frame(frame_text)
    table = build_table(tiny_params(), "main", frame, PublishedNumbers({}, {}))
    cell = table.rows["digits", "tiny", "CLSP-SimCLR"]["linear"]
    plain = frame[(frame["label"] == "CLSP-SimCLR") & (frame["variant"] == "")]
    mine = plain[plain["protocol"] == "linear"]["value"]
    assert cell.mean == pytest.approx(mine.mean(), abs=1e-6)
    assert cell.std == pytest.approx(mine.std(ddof=1), abs=1e-6)
    assert cell.text == f"{mine.mean():.2f} ± {mine.std(ddof=1):.2f} (3)"
