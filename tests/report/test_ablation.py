"""Ablations: one row per value in ascending order, and the same numbers in the figure."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_tree import ABLATED, ABLATIONS, ALONG, REPO, TreeBuilder, tiny_params

from clsp.config.schema import Params
from clsp.report import style
from clsp.report.collect import build_frame, frame_csv
from clsp.report.escape import anchor
from clsp.report.figure import Drawing
from clsp.report.records import Records
from clsp.report.table import build_table, read_frame, render
from clsp.runtime import registry

PUBLISHED = REPO / "reports/spec/published.yaml"
ROWS = {
    "ablation_alignment": ["CLSP-SimCLR, λ = 0", "CLSP-SimCLR, λ = 0.5", "CLSP-SimCLR, λ = 1"],
    "ablation_candidates": ["CLSP-SimCLR, k = 1", "CLSP-SimCLR, k = 2"],
    "ablation_interpolation": ["CLSP-SimCLR, w = 0.1", "CLSP-SimCLR, w = 0.5"],
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TreeBuilder:
    return TreeBuilder(tmp_path_factory.mktemp("tree"), tiny_params(**ABLATED)).everything()


@pytest.fixture(scope="module")
def frame(built: TreeBuilder) -> pd.DataFrame:
    return read_frame((built.reports / "frame.csv").read_text())


def draw(name: str, params: Params, frame: pd.DataFrame, root: Path) -> Drawing:
    style.apply_style()
    return registry.load("clsp.report.figures", name, "figure").draw(params, Records(root), frame)


@pytest.mark.parametrize("name", ABLATIONS)
def test_one_row_per_value_the_ordinary_run_at_its_place(name: str, built: TreeBuilder) -> None:
    table, texts = render(built.params, name, (built.reports / "frame.csv").read_text(), PUBLISHED)
    assert [row[2] for row in table.rows] == ROWS[name]
    assert table.columns == [("linear", ""), ("kNN, k = 3", "")]
    assert {(cell.n, cell.expected) for cell in table.cells} == {(3, 3)}
    assert "λ" not in texts["tex"]


def test_cells_are_the_runs_of_their_value(built: TreeBuilder, frame: pd.DataFrame) -> None:
    table = build_table(built.params, "ablation_alignment", frame, None)
    for label, name in (("λ = 0.5", "s{}.lambda0.5"), ("λ = 1", "s{}")):
        slugs = [f"digits.tiny.simclr.synthetic.{name.format(seed)}" for seed in range(3)]
        cell = table.rows["digits", "tiny", f"CLSP-SimCLR, {label}"]["linear"]
        headline = (frame["protocol"] == "linear") & (frame["variant"] == "")
        mine = frame[frame["run"].isin(slugs) & headline]["value"]
        assert cell.runs.split() == slugs
        assert cell.mean == pytest.approx(mine.mean(), abs=1e-6)
        assert cell.std == pytest.approx(mine.std(ddof=1), abs=1e-6)


def test_ordinary_tables_and_figures_show_ordinary_runs_only(
    built: TreeBuilder, frame: pd.DataFrame
) -> None:
    for name in ("main", "transfer"):
        table = build_table(built.params, name, frame, _none())
        assert {row[2] for row in table.rows} == {"SimCLR", "CLSP-SimCLR"}
    for name in ("curves", "tsne"):
        drawing = draw(name, built.params, frame, built.results)
        assert {row["label"] for row in drawing.rows} == {"SimCLR", "CLSP-SimCLR"}
    drawing = draw("candidates", built.params, frame, built.results)
    assert {row["bank"] for row in drawing.rows} == {"digits.mix"}


def _none() -> Any:
    from clsp.report.published import PublishedNumbers

    return PublishedNumbers({}, {})


@pytest.mark.parametrize("name", ABLATIONS)
def test_the_figure_holds_the_numbers_of_the_table(
    name: str, built: TreeBuilder, frame: pd.DataFrame
) -> None:
    drawing = draw(name, built.params, frame, built.results)
    table = build_table(built.params, name, frame, None)
    on_line = [row for row in drawing.rows if row["label"] == "CLSP-SimCLR"]
    shown = {(row["column"], row["mean"], row["std"], row["n"]) for row in on_line}
    assert shown == {(cell.column, cell.mean, cell.std, cell.n) for cell in table.cells}
    assert len(on_line) == 2 * len(ROWS[name])
    level = [row for row in drawing.rows if row["label"] == "SimCLR"]
    assert [row["value"] for row in level] == [None, None]
    assert "best at" in drawing.alt


def test_figures_without_a_reference_or_runs(built: TreeBuilder, frame: pd.DataFrame) -> None:
    """A line that is not there yet leaves a gap; without any run the figure says so."""
    runs = {k: v for k, v in ABLATED["runs"].items() if k != "main"}
    alone = tiny_params(**{**ABLATED, "runs": runs})
    kept = frame[frame["positives"] != "none"].copy()
    kept.loc[kept["run"].str.endswith("lambda0"), ["status", "value"]] = ["missing", None]
    drawing = draw("ablation_alignment", alone, kept, built.results)
    assert {row["label"] for row in drawing.rows} == {"CLSP-SimCLR"}
    assert [row["n"] for row in drawing.rows if row["value"] == 0] == [0, 0]
    assert style.to_png(drawing.figure, False).startswith(b"\x89PNG")
    frame = frame.assign(status="missing", value=None)
    drawing = draw("ablation_alignment", built.params, frame, built.results)
    assert drawing.caption == "No run of this ablation is there yet."


@pytest.mark.parametrize("name", ABLATIONS)
def test_nothing_varied_is_said(name: str, built: TreeBuilder, frame: pd.DataFrame) -> None:
    plain = frame[frame["variation"] == ""]
    drawing = draw(name, tiny_params(), plain, built.results)
    assert drawing.caption.startswith("Nothing to show: no grid in params.yaml varies")
    table = build_table(tiny_params(), name, plain, None)
    assert (table.cells, table.notes) == ([], [drawing.caption])


def test_values_varied_together_are_lines_of_their_own(tmp_path: Path) -> None:
    """A product of two axes is one line along the first for each value of the second."""
    both = {"alignment_weight": [1.0, 0.5], "candidates": [2, 1], "seed": [0]}
    runs = {"both": {**ALONG, **both, "positives": ["synthetic"]}}
    params = tiny_params(runs=runs)
    frame = read_frame(frame_csv(build_frame(params, tmp_path)))
    rows = build_table(params, "ablation_alignment", frame, None).rows
    assert [row[2] for row in rows] == [
        "CLSP-SimCLR, λ = 0.5",
        "CLSP-SimCLR, λ = 1",
        "CLSP-SimCLR, λ = 0.5, k = 1",
        "CLSP-SimCLR, λ = 1, k = 1",
    ]


def test_page_links_every_row_to_its_runs(built: TreeBuilder) -> None:
    page = (built.reports / "report.html").read_text()
    section = page.split('<section aria-labelledby="table-ablation_alignment">')[1]
    row = section.split("CLSP-SimCLR, λ = 1</a>")[0].rsplit("<a href=", 1)[1]
    own = anchor("runs", "digits", "tiny", "CLSP-SimCLR")  # the ordinary run's group
    assert row.startswith(f'"#{own}"') and f'id="{own}"' in page
    assert "<b>2</b><span>methods compared</span>" in page
