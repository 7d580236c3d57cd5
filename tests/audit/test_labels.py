"""Runs that use labels, directly or through the run that judged their pairs, say so everywhere."""

import csv
import json
from pathlib import Path

import pytest
from auditing import audit, ids
from faults import Tree, edit_statement
from results_tree import JUDGE, LABELLED

from clsp.runtime.manifest import read_manifest

THROUGH = "digits.tiny.simclr.semantic.s0.labels"  # trains on pairs that JUDGE judged
MARKED = ["SupCon [labels]", "SePP-SimCLR [labels]"]
NOTES = [
    'Methods whose label ends in "[labels]" use the labels of the training images in pretraining, '
    "directly or through another run; the others use none.",
    "Recipes of several families are mixed on digits, so that a difference between methods may be "
    "the recipe's (tiny: SimCLR, CLSP-SimCLR, SePP-SimCLR [labels]; another: SupCon [labels]).",
]


def read(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_clean_tree_with_labels_passes(labelled_tree: Tree, tmp_path: Path) -> None:
    code, record = audit(labelled_tree, tmp_path / "audit.json", **LABELLED)
    assert (code, ids(record), record["verdict"]) == (0, set(), "verified")
    assert {*MARKED} <= {cell["label"] for cell in record["cells"]}


def test_labels_that_came_through_the_judge_cannot_be_denied(
    labelled_tree: Tree, tmp_path: Path
) -> None:
    manifest = labelled_tree.run("runs", "manifest.json", THROUGH)
    given = {"method": False, "positives": False, "artefact": False}
    assert json.loads(manifest.read_text())["predicate"]["facts"]["uses_labels"]["artefact"]
    edit_statement(manifest, lambda p: p["facts"].update(uses_labels=given))
    code, record = audit(labelled_tree, tmp_path / "audit.json", **LABELLED)
    assert (code, ids(record)) == (1, {"A41", "A22"})
    (told,) = [f for f in record["findings"] if f["id"] == "A41"]
    assert told["subject"] == THROUGH
    assert "'artefact': True" in told["expected"] and "'artefact': False" in told["found"]


@pytest.mark.parametrize("found", [False, None])
def test_pairs_cannot_deny_the_labels_of_their_judge(
    found: bool | None, labelled_tree: Tree, tmp_path: Path
) -> None:
    manifest = labelled_tree.results / "pairs/digits.near/manifest.json"
    edit_statement(manifest, lambda p: p["facts"].update(label_conditioned=found))
    code, record = audit(labelled_tree, tmp_path / "audit.json", **LABELLED)
    assert (code, ids(record)) == (1, {"A22", "A40"})  # the page says how pairs were made
    (told,) = [f for f in record["findings"] if f["id"] == "A40"]
    assert told["expected"] == "label_conditioned = True of the judging run"


def test_the_frame_and_the_metrics_bear_the_mark(original_labelled: Path) -> None:
    reports = original_labelled / "reports/tiny"
    rows = read(reports / "frame.csv")
    users = {row["label"] for row in rows if row["uses_labels"] == "yes"}
    assert users == {*MARKED}
    assert {row["label"] for row in rows} == {"SimCLR", "CLSP-SimCLR", *MARKED}
    for row in rows:
        assert row["run"].endswith(".labels") == (row["label"] in users)
    metrics = json.loads((reports / "metrics.json").read_text())
    assert {f"digits.tiny.{label}" for label in MARKED} <= metrics["summary"].keys()
    assert {JUDGE, THROUGH} <= metrics["runs"].keys()


@pytest.mark.parametrize("name", ["main", "transfer"])
def test_every_file_of_a_table_bears_mark_and_notes(name: str, original_labelled: Path) -> None:
    tables = original_labelled / "reports/tiny/tables"
    rows = read(tables / f"{name}.csv")
    assert {*MARKED} <= {row["label"] for row in rows}
    assert {row["note"] for row in rows} == {" ".join(NOTES)}
    for ending, label in (("md", r"SupCon \[labels\]"), ("tex", "SupCon [labels]")):
        text = (tables / f"{name}.{ending}").read_text()
        assert label in text and "directly or through another run" in text
        assert "Recipes of several families are mixed on digits" in text


@pytest.mark.parametrize("name", ["curves", "tsne"])
def test_figures_that_name_methods_bear_mark_and_notes(name: str, original_labelled: Path) -> None:
    figures = original_labelled / "reports/tiny/figures"
    rows = read(figures / f"{name}.csv")
    assert {*MARKED} <= {row["label"] for row in rows}
    facts = read_manifest(figures / f"{name}.manifest.json").predicate["facts"]
    assert all(label in facts["alt"] for label in MARKED)
    for note in NOTES:
        listed = note.partition(" (")[0]  # labels come in the order in which they are drawn
        assert listed in facts["caption"] and all(listed in row["note"] for row in rows)


def test_figures_that_compare_nothing_say_nothing(original_labelled: Path) -> None:
    figures = original_labelled / "reports/tiny/figures"
    assert {row["note"] for row in read(figures / "candidates.csv")} == {""}
    caption = read_manifest(figures / "candidates.manifest.json").predicate["facts"]["caption"]
    assert "families" not in caption


def test_the_page_bears_the_mark(original_labelled: Path) -> None:
    page = (original_labelled / "reports/tiny/report.html").read_text()
    assert all(label in page for label in MARKED)
    assert all(run in page for run in (JUDGE, THROUGH))
    assert page.count("directly or through another run") == 4  # two tables, two captions
    assert page.count("Recipes of several families are mixed on digits") == 4
