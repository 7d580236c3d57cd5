"""Every fault sets off exactly the checks it should, names the place, and changes nothing."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
from auditing import audit, ids, state
from copying import CHANGES
from faults import FAULTS, RUN, Tree, flip_bit
from replaying import StandIn
from results_tree import MEASURED, PAIRED, TreeBuilder, tiny_params
from scoping import changed_files, names_the_place, spared_but_spoiled

from clsp.report.cells import read_cells


def test_clean_tree_passes(tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    before = state(tree.results.parents[1])
    out = tmp_path / "elsewhere" / "audit.json"
    code, record = audit(tree, out)
    assert (code, ids(record), record["verdict"]) == (0, set(), "verified")
    assert {cell["verdict"] for cell in record["cells"]} == {"verified"}
    assert all(cell["reduced"] and cell["level"] == "L2" for cell in record["cells"])
    assert record["mlflow"] == "compared"
    out.unlink()
    assert state(tree.results.parents[1]) == before
    assert capsys.readouterr().out.rstrip().endswith("audit: PASS (level L2)")


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_fault(
    name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault = FAULTS[name]
    tree = request.getfixturevalue(f"{fault.within}_tree" if fault.within else "tree")
    stand_in = StandIn(tree) if "L3" in fault.options else None
    monkeypatch.setattr("clsp.audit.run.Subprocess", lambda: stand_in)
    clean = state(tmp_path)
    fault.inject(tree)
    before = state(tmp_path)
    changed = changed_files(clean, before)
    out = tmp_path / "elsewhere" / "audit.json"
    code, record = audit(tree, out, fault.options, **CHANGES[fault.within])
    assert fault.notes <= {f["id"] for f in record["findings"] if f["severity"] == "badge"}
    assert ids(record) == fault.checks, [f["message"] for f in record["findings"]]
    assert code == fault.code
    for finding in record["findings"]:
        assert finding["file"] and finding["expected"] and finding["found"]
    out.unlink()
    assert state(tmp_path) == before
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    serious = [f for f in record["findings"] if f["severity"] != "badge" or f["id"] in fault.notes]
    assert names_the_place(changed, serious, tmp_path), changed
    assert spared_but_spoiled(changed, record["cells"]) == []
    for check in fault.checks:
        assert f" {check} " in told.err


def verdicts(record: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {(c["label"], c["column"]): c["verdict"] for c in record["cells"]}


def test_only_dependent_cells_are_invalid(tree: Tree, tmp_path: Path) -> None:
    FAULTS["metric_file_edited"].inject(tree)
    found = verdicts(audit(tree, tmp_path / "audit.json")[1])
    assert found[("CLSP-SimCLR", "linear")] == "invalid"
    assert found[("SimCLR", "linear")] == "verified"
    assert found[("CLSP-SimCLR", "target-mini")] == "verified"


def test_bank_fault_spares_the_baseline(tree: Tree, tmp_path: Path) -> None:
    FAULTS["bit_flipped_in_bank"].inject(tree)
    found = verdicts(audit(tree, tmp_path / "audit.json")[1])
    spoiled = {
        label for (label, column), v in found.items() if v == "invalid" and "rank" not in column
    }
    assert spoiled == {"CLSP-SimCLR"}


def test_pairs_fault_spares_what_does_not_train_on_them(paired_tree: Tree, tmp_path: Path) -> None:
    FAULTS["features_of_pairs_edited"].inject(paired_tree)
    found = verdicts(audit(paired_tree, tmp_path / "audit.json", **PAIRED)[1])
    spoiled = {
        label for (label, column), v in found.items() if v == "invalid" and "rank" not in column
    }
    assert spoiled == {"SePP-SimCLR"}


def test_a_fault_of_the_judging_run_reaches_all_runs_on_its_pairs(
    paired_tree: Tree, tmp_path: Path
) -> None:
    judge = paired_tree.run("runs", "encoder.safetensors", "digits.tiny.simclr.none.s0")
    flip_bit(judge)
    record = audit(paired_tree, tmp_path / "audit.json", **PAIRED)[1]
    assert ids(record) == {"A02", "A16"}
    found = verdicts(record)
    assert found[("SePP-SimCLR", "linear")] == found[("SimCLR", "linear")] == "invalid"
    assert found[("CLSP-SimCLR", "linear")] == "verified"


def test_a_clean_tree_with_pairs_passes(paired_tree: Tree, tmp_path: Path) -> None:
    code, record = audit(paired_tree, tmp_path / "audit.json", **PAIRED)
    assert (code, ids(record), record["verdict"]) == (0, set(), "verified")
    assert "SePP-SimCLR" in {cell["label"] for cell in record["cells"]}


def test_a_clean_tree_with_a_moving_average_passes(taught_tree: Tree, tmp_path: Path) -> None:
    code, record = audit(taught_tree, tmp_path / "audit.json", **CHANGES["taught"])
    assert (code, ids(record), record["verdict"]) == (0, set(), "verified")


def test_a_clean_tree_with_measured_banks_passes(measured_tree: Tree, tmp_path: Path) -> None:
    code, record = audit(measured_tree, tmp_path / "audit.json", **MEASURED)
    assert (code, ids(record), record["verdict"]) == (0, set(), "verified")
    cells = [cell for cell in record["cells"] if cell["table"] == "quality"]
    assert {cell["label"].split(" ")[0] for cell in cells} == {
        "digits.mix", "digits.mix.w0.5", "digits.mix.steps1"
    }  # fmt: skip


def test_a_fault_of_one_bank_spares_the_others(measured_tree: Tree, tmp_path: Path) -> None:
    FAULTS["distance_of_bank_forged"].inject(measured_tree)
    found = verdicts(audit(measured_tree, tmp_path / "audit.json", **MEASURED)[1])
    spoiled = {key for key, verdict in found.items() if verdict == "invalid"}
    assert {label.split(" ")[0] for label, _ in spoiled} == {"digits.mix"}


def test_transfer_dataset_fault_spares_other_tasks(tree: Tree, tmp_path: Path) -> None:
    FAULTS["labels_swapped_in_dataset"].inject(tree)
    found = verdicts(audit(tree, tmp_path / "audit.json")[1])
    assert found[("SimCLR", "target-mini")] == found[("SimCLR", "average")] == "invalid"
    assert found[("SimCLR", "linear")] == "verified"


def test_edited_table_cell_is_the_only_invalid_one(tree: Tree, tmp_path: Path) -> None:
    path = tree.reports / "tables/main.csv"
    text = path.read_text()
    first = text.split("\n")[1].split(",")[10]
    path.write_text(text.replace(first, "99.9", 1))
    from faults import edit_statement

    edit_statement(tree.reports / "tables/main.manifest.json", lambda _: None)
    record = audit(tree, tmp_path / "audit.json")[1]
    named = [f for f in record["findings"] if f["id"] == "A26"]
    assert [f["subject"] for f in named] == ["main:digits.tiny.SimCLR/linear"]


def test_unfinished_run_is_not_run(tree: Tree, tmp_path: Path) -> None:
    """Nothing is wrong, one run is not there, and the report was made without it: exit code 3."""
    FAULTS["run_missing"].inject(tree)
    builder = TreeBuilder(tmp_path, tiny_params())
    with contextlib.chdir(tmp_path):
        builder.report()
    code, record = audit(tree, tmp_path / "audit.json")
    found = verdicts(record)
    assert (code, ids(record)) == (3, {"A01"})
    assert found[("SimCLR", "linear")] == "verified"
    assert found[("CLSP-SimCLR", "linear")] == "not run"
    missing = [f for f in record["findings"] if f["severity"] == "incomplete"]
    assert {f["subject"].split()[1] for f in missing} == {RUN}


def test_what_spoils_a_row_spoils_no_row_that_it_was_compared_with(
    tree: Tree, tmp_path: Path
) -> None:
    """Marks depend on all rows; the one that is gone is reported, also by what was drawn again."""
    FAULTS["run_missing"].inject(tree)
    found = verdicts(audit(tree, tmp_path / "audit.json")[1])
    cells = read_cells((tree.reports / "tables/main.csv").read_text(), "main")
    assert any(cell.standing for cell in cells if cell.label == "SimCLR")
    assert {found[("SimCLR", cell.column)] for cell in cells} == {"verified"}
    assert {found[("CLSP-SimCLR", cell.column)] for cell in cells} == {"invalid"}


def test_missing_report_is_incomplete(tree: Tree, tmp_path: Path) -> None:
    for path in sorted(tree.reports.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    code, record = audit(tree, tmp_path / "audit.json")
    assert code == 1  # frame.csv cannot be compared
    assert ids(record) == {"A01", "A22"}


def test_changed_parameters_make_every_dependent_stale(tree: Tree, tmp_path: Path) -> None:
    code, record = audit(tree, tmp_path / "audit.json", profile="tiny", shards=3)
    assert code == 0  # shards change no image
    from results_tree import PARAMS

    evaluation = {**PARAMS["evaluation"], "seed": 7}
    code, record = audit(tree, tmp_path / "audit.json", evaluation=evaluation)
    assert code == 1 and "A05" in ids(record)
    stale = {f["subject"] for f in record["findings"] if f["id"] == "A05"}
    assert f"probe-encoder {RUN}" in stale and f"pretrain-encoder {RUN}" not in stale


def test_missing_store_is_said(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "clone").mkdir()
    monkeypatch.chdir(tmp_path / "clone")  # where no mlflow.db is
    bare = Tree(tree.results, tree.reports, None)
    code, record = audit(bare, tmp_path / "audit.json")
    assert record["mlflow"] == "expected, but not all of it is here"
    assert (code, ids(record)) == (3, {"A20"})  # the manifests name MLflow runs nobody can see
