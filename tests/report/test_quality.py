"""Quality of banks in frame, table, figures and page, from manifests alone."""

import csv
import io

import pandas as pd
import pytest
from results_tree import MEASURED, REPO, TreeBuilder, tiny_params
from tree_quality import FIGURES, LOOKED

from clsp.report import quality_figure, style
from clsp.report.collect import build_frame, build_metrics, frame_csv
from clsp.report.escape import anchor
from clsp.report.figure import Drawing
from clsp.report.figures import interpolation_grid
from clsp.report.quality import sharing_notes
from clsp.report.records import Records
from clsp.report.table import notes_of, read_frame, render
from clsp.runtime import registry
from clsp.runtime.canonical import read_json

PUBLISHED = REPO / "reports/spec/published.yaml"
LABEL = "digits.mix{} (w = {}, ddim, steps = {}, eta = 0.1)"
BANKS = {
    LABEL.format("", 0.1, 2): "digits.mix",
    LABEL.format(".w0.5", 0.5, 2): "digits.mix.w0.5",
    LABEL.format(".steps1", 0.1, 1): "digits.mix.steps1",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TreeBuilder:
    return TreeBuilder(tmp_path_factory.mktemp("tree"), tiny_params(**MEASURED)).everything()


@pytest.fixture(scope="module")
def text(built: TreeBuilder) -> str:
    return (built.reports / "frame.csv").read_text()


def draw(name: str, built: TreeBuilder, text: str, **changes) -> Drawing:
    style.apply_style()
    params = tiny_params(**{**MEASURED, **changes})
    module = registry.load("clsp.report.figures", name, "figure")
    return module.draw(params, Records(built.results), read_frame(text))


def numbers(built: TreeBuilder, bank: str, k: int) -> dict[str, float]:
    (found,) = [
        entry["numbers"]
        for entry in read_json(built.results / f"quality/{bank}/quality.json")["quality"]
        if entry["k"] == k
    ]
    return found


def test_one_row_per_bank_with_its_own_numbers(built: TreeBuilder, text: str) -> None:
    table, texts = render(built.params, "quality", text, PUBLISHED)
    assert set(table.rows) == {("digits", LOOKED, label) for label in BANKS}
    for (_, _, label), cells in table.rows.items():
        truth = numbers(built, BANKS[label], 2)
        assert {cell.tasks: cell.mean for cell in cells.values()} == pytest.approx(truth, abs=1e-6)
    assert "| Dataset | Network | Bank | Frechet distance |" in texts["md"]
    assert "FID |" not in texts["md"]
    notes = " ".join(notes_of(table))
    assert f"backbone of the encoder {LOOKED}" in notes and "not FID" in notes
    assert "16 candidates, 12 training images" in notes
    assert "Labels are read for this analysis alone" in notes
    assert "over seeds" not in notes


def test_a_bank_that_has_not_been_measured_is_a_dash(built: TreeBuilder, text: str) -> None:
    frame = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    gone = frame["run"] == "digits.mix.w0.5"
    frame.loc[gone, ["value", "images", "checkpoint"]] = ""
    frame.loc[gone, "status"] = "missing"
    table, texts = render(built.params, "quality", frame.to_csv(index=False), PUBLISHED)
    (row,) = [cells for name, cells in table.rows.items() if "w0.5" in name[2]]
    assert {cell.text for cell in row.values()} == {"— (0 of 1)"}
    assert "nan" not in texts["csv"].lower()


def test_fid_is_named_only_with_inception(built: TreeBuilder) -> None:
    asked = {k: v for k, v in MEASURED["quality"].items() if k != "encoder"}
    params = tiny_params(**{**MEASURED, "quality": {**asked, "inception": {"path": "i.pth"}}})
    table, texts = render(
        params, "quality", frame_csv(build_frame(params, built.results)), PUBLISHED
    )
    assert {cell.mean for cell in table.cells} == {None}  # what an encoder gave is not taken for it
    assert "inception-v3" in texts["md"] and "| FID |" in texts["md"]
    assert "Frechet" not in texts["md"]


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("quality_interpolation", {("digits.mix", 0.1, 2), ("digits.mix.w0.5", 0.5, 2)}),
        ("quality_candidates", {("digits.mix", 1, 1), ("digits.mix", 2, 2)}),
        ("quality_steps", {("digits.mix", 2, 2), ("digits.mix.steps1", 1, 2)}),
    ],
)
def test_points_of_the_curves(name: str, points: set, built: TreeBuilder, text: str) -> None:
    drawing = draw(name, built, text)
    assert {(row["bank"], row["value"], row["k"]) for row in drawing.rows} == points
    for row in drawing.rows:
        truth = numbers(built, row["bank"], row["k"])
        assert row["number"] == pytest.approx(truth[row["metric"]])
    assert LOOKED in drawing.caption and "Frechet distance" in drawing.alt
    assert len(drawing.figure.axes) >= 6


def test_the_grid_of_images(built: TreeBuilder, text: str) -> None:
    drawing = draw("interpolation_grid", built, text)
    assert {row["interpolation_weight"] for row in drawing.rows} == {0.1, 0.5}
    anchors = {row["anchor"] for row in drawing.rows}
    assert len(drawing.rows) == 2 * len(anchors) * 2  # weights, anchors, candidates
    assert "w = 0.1, 0.5" in drawing.caption and "no label is used" in drawing.caption


def test_what_shared_anchor_noise_changes_is_said() -> None:
    vary = {"share_anchor_noise": [False, True]}
    params = tiny_params(**{**MEASURED, "quality": {**MEASURED["quality"], "vary": vary}})
    shared = "digits.mix.share_anchor_noise_true"
    rows = [("digits.mix", "own_cosine", 0.5), (shared, "own_cosine", 0.25),
            ("digits.mix", "diversity_mse", 0.1), (shared, "diversity_mse", None)]  # fmt: skip
    frame = pd.DataFrame(rows, columns=["run", "metric", "value"])
    assert sharing_notes(params, frame) == [
        f"Shared anchor noise, digits.mix → {shared}: cosine, own anchor 0.5 → 0.25."
    ]
    assert sharing_notes(tiny_params(**MEASURED), frame) == []


def test_lines_of_two_banks_differ_in_more_than_colour(built: TreeBuilder, text: str) -> None:
    rows = draw("quality_candidates", built, text).rows
    twice = pd.DataFrame([*rows, *({**row, "line": "other"} for row in rows)])
    for lines in (pd.DataFrame(rows), twice):
        for axes in quality_figure._draw(lines, "candidates").axes:
            looks = [(line.get_marker(), line.get_linestyle(), str(line._dash_pattern)) for line in
                     axes.get_lines()]  # fmt: skip
            assert len(set(looks)) == len(looks)


def test_the_grid_of_an_unlabelled_dataset(
    built: TreeBuilder, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpolation_grid, "chosen_rows", lambda labels: [])
    rows = draw("interpolation_grid", built, text).rows
    assert len({row["anchor"] for row in rows}) == interpolation_grid.UNLABELLED


@pytest.mark.parametrize("name", FIGURES[:3])
def test_figures_say_why_they_are_empty(name: str, built: TreeBuilder, text: str) -> None:
    assert "measures no bank" in draw(name, built, text, quality=None).caption
    frame = build_frame(built.params, built.results.parent / "nowhere")
    assert "No bank has been measured yet" in draw(name, built, frame_csv(frame)).caption
    plain = {k: v for k, v in MEASURED["quality"].items() if k != "vary"} | {"candidates": [1]}
    assert "does not vary" in draw(name, built, text, quality=plain).caption


def test_metrics_for_dvc_and_the_page(built: TreeBuilder) -> None:
    metrics = build_metrics(build_frame(built.params, built.results))
    truth = numbers(built, "digits.mix", 1)
    assert metrics["banks"]["digits.mix"][LOOKED]["k=1"] == pytest.approx(truth)
    assert "digits.mix" not in metrics["runs"]
    page = (built.reports / "report.html").read_text()
    bank = anchor("bank", "digits.mix.w0.5")
    assert f'href="#{bank}"' in page and f'id="{bank}"' in page
    assert "read for analysis only" in page
    assert "<dt>measured by</dt>" in page
    rows = list(csv.DictReader(io.StringIO((built.reports / "tables/quality.csv").read_text())))
    assert {row["protocol"] for row in rows} == {"quality"}
