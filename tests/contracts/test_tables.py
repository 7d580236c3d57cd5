"""Every registered table renders: with all runs, with some missing, and with none."""

from types import ModuleType

import pandas as pd
import pytest
from results_tree import (
    ABLATED,
    ABLATIONS,
    JUDGED,
    MEASURED,
    PARAMS,
    REPO,
    TreeBuilder,
    tiny_params,
)

from clsp.config.schema import TABLES
from clsp.report.cells import DEMONSTRATION, read_cells
from clsp.report.collect import build_frame, frame_csv
from clsp.report.published import PublishedNumbers
from clsp.report.table import build_table, read_frame, render
from clsp.runtime import registry

PUBLISHED = REPO / "reports/spec/published.yaml"
NAMES = registry.names(TABLES)
ORDINARY = [n for n in NAMES if n not in (*ABLATIONS, "quality")]  # one row per label
TRANSFER = PARAMS["evaluation"]["transfer"]
TUNED = {**TRANSFER, "fine_tune": JUDGED["evaluation"]["transfer"]["fine_tune"]}
ASKED = {
    **ABLATED,
    "quality": MEASURED["quality"],
    "evaluation": {**PARAMS["evaluation"], "transfer": TUNED},
}  # for every table


@pytest.fixture(scope="module")
def frame_text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Of a tree with ablations, whose runs the ordinary tables leave out."""
    builder = TreeBuilder(tmp_path_factory.mktemp("tree"), tiny_params(**ASKED))
    builder.science()
    return frame_csv(build_frame(builder.params, builder.results))


def without(text: str, runs: list[str]) -> str:
    """The frame as it is when some runs are not there."""
    frame = pd.read_csv(pd.io.common.StringIO(text), dtype=str, keep_default_na=False)
    gone = frame["run"].isin(runs)
    kept = ["run", "label", "dataset", "encoder", "method", "positives", "seed", "task"]
    kept += ["protocol", "variant", "variation", "recipe", "uses_labels"]
    frame.loc[gone, [c for c in frame.columns if c not in kept]] = ""
    frame.loc[gone, "status"] = "missing"
    return frame.to_csv(index=False)


def _runs(text: str) -> list[str]:
    return list(dict.fromkeys(line.split(",")[0] for line in text.split("\n")[1:-1]))


@pytest.mark.parametrize("name", NAMES)
def test_interface(name: str) -> None:
    module: ModuleType = registry.load(TABLES, name, "table")
    assert isinstance(module.TITLE, str) and module.TITLE
    assert callable(module.select) and callable(module.build)


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("gone", [0, 1, 3, 6])
def test_renders_with_runs_missing(name: str, gone: int, frame_text: str) -> None:
    params = tiny_params(**ASKED)
    runs = _runs(frame_text)[:gone]  # the first three are all seeds of SimCLR
    table, texts = render(params, name, without(frame_text, runs), PUBLISHED)
    rows = table.rows
    assert len(rows) == 2
    assert len({tuple(cells) for cells in rows.values()}) == 1  # the same columns in every row
    numbers = [c for c in rows["digits", "tiny", "SimCLR"].values() if c.unit == "percent"]
    present = 3 - min(gone, 3)
    assert all((c.n, c.expected) == (present, 3) for c in numbers)
    assert all((c.mean is None) == (present == 0) for c in numbers)
    assert ("— (0 of 3)" in texts["md"].split("- Mean")[0]) == (gone >= 3)
    assert "nan" not in texts["csv"].lower()
    assert read_cells(texts["csv"], name) == table.cells


@pytest.mark.parametrize("name", NAMES)
def test_renders_without_any_run(name: str, frame_text: str) -> None:
    table, texts = render(
        tiny_params(**ASKED), name, without(frame_text, _runs(frame_text)), PUBLISHED
    )
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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ending", ["csv", "md", "tex"])
def test_demonstration_mark(name: str, ending: str, frame_text: str) -> None:
    for demonstration in (True, False):
        params = tiny_params(**ASKED, demonstration=demonstration)
        _, texts = render(params, name, frame_text, PUBLISHED)
        shown = texts[ending].replace("\\", "")
        assert (DEMONSTRATION in shown) == demonstration


@pytest.mark.parametrize("name", NAMES)
def test_deterministic(name: str, frame_text: str) -> None:
    params = tiny_params(**ASKED)
    first = render(params, name, frame_text, PUBLISHED)[1]
    assert first == render(params, name, frame_text, PUBLISHED)[1]


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
