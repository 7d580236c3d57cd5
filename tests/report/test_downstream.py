"""Transfer, fine-tuning and few-shot results in frame, tables, figure and page, with their floors."""

import csv
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_tree import JUDGED, PARAMS, REPO, TreeBuilder, tiny_params

from clsp.config.catalog import dataset_info
from clsp.config.schema import Params
from clsp.report import style
from clsp.report.cells import Table
from clsp.report.collect import (
    all_judged,
    build_frame,
    build_metrics,
    expected_numbers,
    frame_csv,
)
from clsp.report.custody import build_groups
from clsp.report.escape import anchor
from clsp.report.figure import Drawing
from clsp.report.published import PublishedNumbers
from clsp.report.records import Records
from clsp.report.table import build_table, notes_of, read_frame, render
from clsp.runtime import registry

FLOORS = ["Random encoder", "Raw pixels"]
METHODS = ["SimCLR", "CLSP-SimCLR"]
SHOWN = {**JUDGED, "tables": ["main", "transfer", "fine_tune"], "figures": ["few_shot"]}
PUBLISHED = REPO / "reports/spec/published.yaml"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TreeBuilder:
    return TreeBuilder(tmp_path_factory.mktemp("tree"), tiny_params(**SHOWN)).everything()


@pytest.fixture(scope="module")
def frame(built: TreeBuilder) -> pd.DataFrame:
    return read_frame((built.reports / "frame.csv").read_text())


def table_of(params: Params, name: str, frame: pd.DataFrame) -> Table:
    return build_table(params, name, frame, PublishedNumbers({}, {}))


def draw(params: Params, frame: pd.DataFrame) -> Drawing:
    style.apply_style()
    module = registry.load("clsp.report.figures", "few_shot", "figure")
    return module.draw(params, Records(Path("nowhere")), frame)


def with_transfer(**changes: Any) -> Params:
    """The tiny parameters with other entries under evaluation.transfer."""
    judging = {**JUDGED["evaluation"]}
    judging["transfer"] = {**judging["transfer"], **changes}
    return tiny_params(**{**SHOWN, "evaluation": judging})


def test_frame_holds_runs_then_floors(frame: pd.DataFrame) -> None:
    assert list(frame["label"].unique()) == METHODS + FLOORS
    floors = frame[frame["label"].isin(FLOORS)]
    assert set(floors["protocol"]) == {"transfer", "few_shot"}
    assert set(floors["status"]) == {"done"} and set(floors["uses_labels"]) == {"no"}
    assert (floors[["method", "positives", "variation", "recipe", "epoch"]] == "").all(None)
    seeds = {label: set(rows["seed"]) for label, rows in floors.groupby("label")}
    assert seeds == {"Random encoder": {"0", "1"}, "Raw pixels": {"0"}}
    points = frame[frame["protocol"] == "few_shot"]["variant"]
    assert list(points.unique()) == ["shots=1", "shots=2", "fraction=0.5"]
    tuned = frame[frame["protocol"] == "fine_tune"]
    assert list(tuned["label"].unique()) == METHODS and set(tuned["status"]) == {"done"}


@pytest.mark.parametrize("folder", ["runs", "features"])
def test_a_number_counts_only_with_what_it_was_made_from(
    folder: str, built: TreeBuilder, tmp_path: Path
) -> None:
    copied = tmp_path / "results"
    for path in built.results.rglob("*"):
        gone = path.relative_to(built.results).parts[0] == folder
        if path.is_file() and not gone:
            target = copied / path.relative_to(built.results)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)
    rows = build_frame(built.params, copied)
    there = {(row["protocol"], row["method"] == "") for row in rows if row["status"] == "done"}
    own = {("transfer", True), ("few_shot", True)}  # a floor needs no training
    assert there == (own if folder == "runs" else {("fine_tune", False)})


def test_transfer_table_ranks_methods_and_not_floors(
    built: TreeBuilder, frame: pd.DataFrame
) -> None:
    table = table_of(built.params, "transfer", frame)
    assert [row[2] for row in table.rows] == METHODS + FLOORS
    ranks = {row[2]: cells["mean rank"] for row, cells in table.rows.items()}
    assert sum(ranks[label].mean for label in METHODS) == 3  # 1 + 2, or twice 1.5
    assert [ranks[label].text for label in FLOORS] == ["—", "—"]
    random = table.rows["digits", "tiny", "Random encoder"]
    assert (random["average"].n, random["average"].expected) == (2, 2)
    means = [random[task].mean for task in ("target-mini", "multi-mini")]
    assert random["average"].mean == pytest.approx(sum(means) / 2)
    notes = " ".join(notes_of(table))
    assert "Random encoder and Raw pixels are floors to compare with and are not ranked" in notes
    assert f"target-mini ({dataset_info('digits').title}, 4 px); multi-mini" in notes
    assert "datasets the paper used could not be confirmed" in notes
    assert "20 % of the training images, drawn as the code ssl-transfer draws them" in notes
    assert "did not converge" not in notes


def test_fine_tuning_has_a_table_of_its_own(built: TreeBuilder, frame: pd.DataFrame) -> None:
    table = table_of(built.params, "fine_tune", frame)
    assert [row[2] for row in table.rows] == METHODS
    assert {cell.protocol for cell in table.cells} == {"fine_tune"}
    notes = " ".join(notes_of(table))
    assert "floors to compare" not in notes and "the same share of every class" in notes
    assert "trained for 1 epochs. Learning rate (1 values) and weight decay (1)" in notes


@pytest.mark.parametrize("name", ["transfer", "fine_tune"])
def test_tables_without_their_protocol_say_so(name: str) -> None:
    judging = {k: v for k, v in PARAMS["evaluation"].items() if k != "transfer"}
    params = tiny_params(evaluation=judging)
    frame = read_frame(frame_csv(build_frame(params, Path("nowhere"))))
    table = table_of(params, name, frame)
    assert table.cells == [] and table.notes[0].startswith("Nothing to show")


@pytest.mark.parametrize("name", ["transfer", "fine_tune"])
def test_tables_are_the_same_bytes_again(name: str, built: TreeBuilder) -> None:
    text = (built.reports / "frame.csv").read_text()
    _, texts = render(built.params, name, text, PUBLISHED)
    for ending, content in texts.items():
        assert (built.reports / f"tables/{name}.{ending}").read_text() == content


def test_fits_that_did_not_converge_are_marked_and_counted(
    built: TreeBuilder, frame: pd.DataFrame
) -> None:
    changed = frame.copy()
    fitted = (changed["protocol"] == "transfer") & (changed["task"] == "target-mini")
    changed.loc[fitted, "converged"] = "yes"
    changed.loc[fitted & (changed["label"] == "SimCLR"), "converged"] = "no"
    table = table_of(built.params, "transfer", changed)
    assert table.columns[:2] == [("target-mini", "‡"), ("multi-mini", "")]
    (note,) = [note for note in table.notes if note.startswith("‡")]
    assert "2 of 7 final fits did not converge" in note and "SimCLR on target-mini (2)" in note


def test_every_metric_is_named(built: TreeBuilder, frame: pd.DataFrame) -> None:
    notes = table_of(built.params, "transfer", frame).notes
    assert notes[:2] == [
        "Metric mean per class: target-mini.",
        "Metric 11-point mean average precision: multi-mini.",
    ]
    known = build_metrics(frame.to_dict("records"))["runs"]["digits.tiny.pixels"]
    assert list(known["transfer"]) == ["target-mini", "multi-mini"]
    assert list(known["few_shot_shots=1"]) == ["target-mini"]


def test_the_figure_holds_the_numbers_of_the_frame(built: TreeBuilder, frame: pd.DataFrame) -> None:
    with open(built.reports / "figures/few_shot.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 4 * 3  # labels, points
    chosen = frame[(frame["protocol"] == "few_shot") & (frame["label"] == "CLSP-SimCLR")]
    for row in rows:
        if row["label"] == "CLSP-SimCLR":
            values = chosen[chosen["variant"] == f"{row['kind']}={float(row['point']):g}"]["value"]
            assert float(row["mean"]) == pytest.approx(values.mean(), abs=1e-6)
            assert float(row["std"]) == pytest.approx(values.std(ddof=1), abs=1e-6)
            assert row["n"] == "2"


def test_the_figure_tells_floors_apart(built: TreeBuilder, frame: pd.DataFrame) -> None:
    drawing = draw(built.params, frame)
    (top, bottom) = drawing.figure.axes
    assert (top.get_xscale(), top.get_xlabel()) == ("log", "images per class")
    assert (bottom.get_xlabel(), bottom.get_xticks().tolist()) == ("labelled share, %", [50])
    dashed = {line.get_label() for line in top.lines if line.is_dashed()}
    assert {line.get_label() for line in top.lines} == {*METHODS, *FLOORS}
    assert dashed == set(FLOORS)
    assert "Dashed: floors (Random encoder, Raw pixels)" in drawing.caption
    assert "mean over 2 draws" in drawing.caption
    png = style.to_png(drawing.figure, True)
    assert png == (built.reports / "figures/few_shot.png").read_bytes()


def test_many_datasets_make_rows_of_panels(frame: pd.DataFrame, built: TreeBuilder) -> None:
    chosen = frame[frame["protocol"] == "few_shot"]
    many = pd.concat([chosen.assign(task=f"task{number}") for number in range(5)])
    drawing = draw(built.params, many)
    seen = [axes for axes in drawing.figure.axes if axes.get_visible()]
    assert len(drawing.figure.axes) == 4 * 4 and len(seen) == 5 * 2


def test_the_figure_without_results_says_so(built: TreeBuilder, frame: pd.DataFrame) -> None:
    for nothing in (pd.DataFrame(), frame.assign(status="missing", value=None)):
        assert draw(built.params, nothing).caption == "No few-shot result is there yet."


def test_datasets_with_several_classes_per_image_are_left_out_and_named(
    built: TreeBuilder, frame: pd.DataFrame
) -> None:
    for judged in all_judged(built.params).values():
        numbers = expected_numbers(judged)
        assert {task for task, *_ in numbers["probe-few-shot"]} == {"target-mini"}
        assert {task for task, *_ in numbers["probe-transfer"]} == {"target-mini", "multi-mini"}
    caption = draw(built.params, frame).caption
    assert "Not shown: multi-mini, whose images show several classes" in caption
    only = with_transfer(datasets=["multi-mini"])
    assert all("probe-few-shot" not in expected_numbers(j) for j in all_judged(only).values())


def test_page_lists_floors_and_does_not_call_them_runs(built: TreeBuilder) -> None:
    page = (built.reports / "report.html").read_text()
    assert "<b>2</b><span>methods compared</span>" in page
    assert "<b>4</b><span>pretraining runs</span>" in page
    for label in FLOORS:
        home = anchor("runs", "digits", "tiny", label)
        assert f'href="#{home}"' in page and f'id="{home}"' in page
    groups = {group.title: group for group in build_groups(built.params, Records(built.results))}
    random = groups["Random encoder on digits, tiny"]
    assert (random.kind, len(random.runs)) == ("floor", 2)
    assert [step.title for step in random.runs[0].steps] == [
        "features",
        "transfer",
        "few-shot curves",
    ]
    assert not any(custody.missing for group in groups.values() for custody in group.runs)


def test_a_missing_floor_is_counted(built: TreeBuilder) -> None:
    params = with_transfer(floors=["pixels"])
    rows = build_frame(params, Path("nowhere"))
    floors = [row for row in rows if row["method"] == ""]
    assert {row["label"] for row in floors} == {"Raw pixels"}
    assert {(row["status"], row["value"]) for row in floors} == {("missing", None)}
    frame = read_frame(frame_csv(rows))
    table = table_of(params, "transfer", frame)
    cells = table.rows["digits", "tiny", "Raw pixels"]
    assert [cell.text for cell in cells.values()] == [*["— (0 of 1)"] * 3, "—"]
