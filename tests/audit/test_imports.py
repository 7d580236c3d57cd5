"""A tree with imported denoiser and encoders: clean it passes, and its tables say what they are."""

import json
from pathlib import Path

import pytest
from auditing import audit, ids
from faults import FAULTS, Tree
from results_tree import IMPORTED
from tree_imports import ENCODER, MARKED, SLUG, UNET

from clsp.report.escape import csv_value

LABELS = {"SimCLR (theirs)", "SupCon (theirs) [labels]"}


def test_a_clean_tree_with_imports_passes(imported_tree: Tree, tmp_path: Path) -> None:
    code, record = audit(imported_tree, tmp_path / "audit.json", **IMPORTED)
    assert (code, ids(record), record["verdict"]) == (0, set(), "verified")
    cells = {(c["table"], c["label"], c["column"]): c for c in record["cells"]}
    assert {label for _, label, _ in cells} >= LABELS
    for label in LABELS:
        for place in (("main", "linear"), ("main", "kNN, k = 3"), ("transfer", "target-mini")):
            cell = cells[(place[0], label, place[1])]
            assert (cell["verdict"], cell["n"], cell["expected"]) == ("verified", 1, 1)
        assert 1 <= float(cells[("transfer", label, "mean rank")]["printed"]) <= 4


def test_frame_and_tables_say_what_is_imported(imported_tree: Tree) -> None:
    import csv

    frame = list(csv.DictReader((imported_tree.reports / "frame.csv").open()))
    mine = [row for row in frame if row["run"] == SLUG]
    assert {(r["method"], r["positives"], r["recipe"], r["seed"]) for r in mine} == {
        ("imported", "", "", "")
    }
    assert all(r["checkpoint"].startswith("encoder.pt sha256:") for r in mine)
    assert {r["uses_labels"] for r in frame if r["run"] == MARKED} == {"yes"}
    assert {r["checkpoint"] for r in frame if r["method"] == "simclr"} == {""}
    for name in ("main", "transfer"):
        notes = json.loads((imported_tree.reports / f"tables/{name}.manifest.json").read_text())
        text = " ".join(notes["predicate"]["facts"]["notes"])
        assert "Imported, trained elsewhere by a recipe that no record here shows" in text
        assert "SimCLR (theirs): encoder.pt sha256:" in text
        assert 'whose label ends in "[labels]"' in text
        with (imported_tree.reports / f"tables/{name}.csv").open() as stream:
            assert all("encoder.pt sha256:" in csv_value(r["note"]) for r in csv.DictReader(stream))
    page = (imported_tree.reports / "report.html").read_text()
    assert "Imported: theirs" in page and "Imported: digits" in page and UNET in page


def test_a_file_that_changed_since_is_found(
    imported_tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    (here / "foreign").mkdir(parents=True)
    monkeypatch.chdir(here)
    (here / ENCODER).write_text("bytes of foreign/encoder.pt")
    code, record = audit(imported_tree, tmp_path / "audit.json", **IMPORTED)
    assert (code, ids(record)) == (0, set())
    (here / ENCODER).write_text("others")
    code, record = audit(imported_tree, tmp_path / "audit.json", **IMPORTED)
    assert (code, ids(record)) == (1, {"A44"})
    (finding,) = [f for f in record["findings"] if f["id"] == "A44"]
    assert finding["file"] == ENCODER
    assert {number.split("/")[0] for number in finding["numbers"]} == {SLUG}
    labels = {c["label"] for c in record["cells"] if c["verdict"] == "invalid"}
    assert "SimCLR (theirs)" in labels


def test_an_edited_import_spares_other_rows(imported_tree: Tree, tmp_path: Path) -> None:
    FAULTS["imported_encoder_edited"].inject(imported_tree)
    record = audit(imported_tree, tmp_path / "audit.json", **IMPORTED)[1]
    spoiled = {
        c["label"]
        for c in record["cells"]
        if c["verdict"] == "invalid" and c["column"] != "mean rank"
    }
    assert spoiled == {"SimCLR (theirs)"}


def test_an_edited_denoiser_reaches_the_runs_on_its_bank(
    imported_tree: Tree, tmp_path: Path
) -> None:
    FAULTS["imported_denoiser_edited_with_its_manifest"].inject(imported_tree)
    record = audit(imported_tree, tmp_path / "audit.json", **IMPORTED)[1]
    spoiled = {
        c["label"]
        for c in record["cells"]
        if c["verdict"] == "invalid" and c["column"] != "mean rank"
    }
    assert spoiled == {"CLSP-SimCLR"}
