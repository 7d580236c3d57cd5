"""Figures of claims, ranks, compute and convergence: what they show, and when they have nothing."""

import csv
from pathlib import Path

import pytest
from faults_claims import write_curves
from injecting import Tree
from results_tree import TreeBuilder, tiny_params

from clsp.report.figure import draw_figure
from clsp.report.figures import candidates, convergence
from clsp.report.records import Records
from clsp.report.statistics import DIGITS
from clsp.report.table import read_frame
from clsp.runtime.canonical import read_json

FIGURES = ("claims", "transfer_ranks", "compute", "convergence")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> TreeBuilder:
    params = tiny_params(figures=list(FIGURES))
    return TreeBuilder(tmp_path_factory.mktemp("figures"), params).everything()


def rows_of(built: TreeBuilder, figure: str) -> list[dict[str, str]]:
    path = built.reports / f"figures/{figure}.csv"
    with open(path, encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def told(built: TreeBuilder, figure: str) -> dict[str, str]:
    manifest = built.reports / f"figures/{figure}.manifest.json"
    return read_json(manifest)["predicate"]["facts"]


def test_the_forest_plot_shows_what_the_verdicts_say(built: TreeBuilder) -> None:
    (row,) = rows_of(built, "claims")
    verdicts = read_json(built.reports / "verdicts.json")["verdicts"]
    (record,) = [r for r in verdicts if r.get("difference") is not None]
    assert (row["claim"], row["verdict"]) == ("C4", "not run")
    assert float(row["difference"]) == record["difference"]
    assert float(row["lower"]) == record["lower"] and row["demonstration"]
    assert "C4 CLSP-SimCLR minus SimCLR on digits" in told(built, "claims")["alt"]


def test_ranks_are_those_of_the_table(built: TreeBuilder) -> None:
    ranks = {row["label"]: float(row["mean_rank"]) for row in rows_of(built, "transfer_ranks")}
    with open(built.reports / "tables/transfer.csv", encoding="utf-8", newline="") as stream:
        cells = [row for row in csv.DictReader(stream) if row["unit"] == "rank"]
    assert ranks == {row["label"]: float(row["mean"]) for row in cells if row["mean"]}


def test_compute_counts_every_view(built: TreeBuilder) -> None:
    seen = {row["label"]: float(row["images_millions"]) for row in rows_of(built, "compute")}
    assert seen == {"SimCLR": 6 * 4 * 2 / 1e6, "CLSP-SimCLR": 6 * 4 * 3 / 1e6}


def test_without_the_authors_recipe_there_is_no_reference(built: TreeBuilder) -> None:
    assert "no run of params.yaml follows" in told(built, "convergence")["caption"]


def test_our_ends_stand_over_the_authors_curves(built: TreeBuilder, tmp_path: Path) -> None:
    why = "their probe ran for half of the epochs that ours has"
    write_curves(Tree(built.results, built.reports, None), tmp_path, 1.0, why)
    frame = read_frame((built.reports / "frame.csv").read_text())
    files = {n: tmp_path / n for n in ("official_curves.json", "explanations.yaml")}
    drawing = convergence.draw(built.params, Records(built.results), frame, files)
    mine = [row for row in drawing.rows if row["whose"] == "ours"]
    ends = {row["label"]: row["mean"] for row in mine if row["quantity"] == "accuracy"}
    theirs = [r for r in drawing.rows if r["whose"] == "authors" and r["quantity"] == "accuracy"]
    assert {r["label"]: pytest.approx(r["mean"] + 1) for r in theirs if r["epoch"] == 2} == ends
    assert all(r["high"] - r["low"] == pytest.approx(1.2) for r in theirs)
    losses = [row for row in mine if row["quantity"] == "loss"]
    assert {row["epoch"] for row in losses} == {1, 2} and all(row["n"] == 3 for row in losses)
    assert why in drawing.caption and "ends at" in drawing.alt


@pytest.mark.parametrize("figure", ["curves", "transfer_ranks"])
def test_numbers_have_as_many_digits_as_machines_share(built: TreeBuilder, figure: str) -> None:
    text = (built.reports / "frame.csv").read_text()
    _, numbers, _ = draw_figure(built.params, figure, Records(built.results), text, {})
    values = [v for row in csv.DictReader(numbers.splitlines()) for v in row.values() if "." in v]
    known = [float(v) for v in values if v.replace(".", "").lstrip("-").isdigit()]
    assert known and all(value == round(value, DIGITS) for value in known)


def test_the_caption_of_candidates_says_which_bank_was_drawn_with_labels(
    built: TreeBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = read_frame((built.reports / "frame.csv").read_text())
    drawn = candidates.draw(built.params, Records(built.results), frame)
    assert drawn.caption.endswith("for the reader; none is drawn with labels.")
    monkeypatch.setattr(candidates, "bank_uses_labels", lambda params, name: True)
    drawn = candidates.draw(built.params, Records(built.results), frame)
    assert drawn.caption.endswith("for the reader; drawn with labels: digits.mix.")
