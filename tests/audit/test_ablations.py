"""Cells of ablation tables are verified like all others, each by the runs of its own value."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import edit_arrays
from results_tree import ABLATED, ABLATIONS, PARAMS, TreeBuilder, tiny_params

from clsp.audit.run import main
from clsp.runtime.canonical import canonical_json


@pytest.fixture(scope="module")
def ablated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("ablated")
    TreeBuilder(base, tiny_params(**ABLATED)).everything()
    yield base


@pytest.fixture
def base(ablated: Path, tmp_path: Path) -> Path:
    for name in ("results", "reports"):
        shutil.copytree(ablated / name, tmp_path / name)
    return tmp_path


def audit(base: Path, **changes: Any) -> tuple[int, dict[str, Any]]:
    spec = canonical_json(tiny_params(**{**ABLATED, **changes}).canonical())
    given = ["--spec", spec, "--out", str(base / "audit.json"), "--without-mlflow"]
    given += ["--results", str(base / "results/tiny"), "--reports", str(base / "reports/tiny")]
    code = main(given)
    return code, json.loads((base / "audit.json").read_text())


def verdicts(record: dict[str, Any], verdict: str) -> set[tuple[str, str, str]]:
    cells = [c for c in record["cells"] if c["verdict"] == verdict]
    return {(c["table"], c["label"], c["column"]) for c in cells}


def test_clean_tree_passes(base: Path) -> None:
    code, record = audit(base)
    assert (code, record["totals"]["findings"]["blocking"]) == (0, 0), record["findings"][:3]
    shown = verdicts(record, "verified")
    assert {table for table, _, _ in shown} == {"main", "transfer", *ABLATIONS}
    assert len(shown) == len(record["cells"])
    assert ("ablation_alignment", "CLSP-SimCLR, λ = 1", "linear") in shown  # the ordinary run


def test_spoiled_run_spoils_the_cells_of_its_value(base: Path) -> None:
    def swap(arrays: dict[str, np.ndarray]) -> None:
        arrays["logits"][:] = arrays["logits"][::-1]

    run = base / "results/tiny/probes/digits.tiny.simclr.synthetic.s1.lambda0.5"
    edit_arrays(run / "linear.npz", swap)
    code, record = audit(base)
    spoiled = {cell[:2] for cell in verdicts(record, "invalid")}
    assert code == 1
    assert spoiled == {("ablation_alignment", "CLSP-SimCLR, λ = 0.5")}


def test_ordinary_run_is_behind_every_table_that_shows_it(base: Path) -> None:
    shutil.rmtree(base / "results/tiny/probes/digits.tiny.simclr.synthetic.s1")
    code, record = audit(base)
    spoiled = {cell[:2] for cell in verdicts(record, "invalid")}
    assert code == 1  # the report claims otherwise
    assert {
        ("main", "CLSP-SimCLR"),
        ("ablation_alignment", "CLSP-SimCLR, λ = 1"),
        ("ablation_candidates", "CLSP-SimCLR, k = 2"),
        ("ablation_interpolation", "CLSP-SimCLR, w = 0.1"),
    } <= spoiled
    assert ("ablation_alignment", "CLSP-SimCLR, λ = 0.5") not in spoiled


def test_bank_of_one_weight_spoils_that_weight_alone(base: Path) -> None:
    path = base / "results/tiny/banks/digits.mix.w0.5/images.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    _, record = audit(base)
    spoiled = {cell[:2] for cell in verdicts(record, "invalid")}
    assert spoiled == {("ablation_interpolation", "CLSP-SimCLR, w = 0.5")}


def test_edited_cell_is_named(base: Path) -> None:
    path = base / "reports/tiny/tables/ablation_candidates.csv"
    lines = path.read_text().split("\n")
    lines[1] = lines[1].replace(lines[1].split(",")[11], "99.9")
    path.write_text("\n".join(lines))
    _, record = audit(base)
    named = [f["subject"] for f in record["findings"] if f["id"] == "A26"]
    assert named == ["ablation_candidates:digits.tiny.CLSP-SimCLR, k = 1/linear"]


def test_mixed_recipes_and_marked_labels_pass_with_their_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the tables must say is part of what the audit draws again."""
    simclr = PARAMS["methods"]["simclr"]
    other = {"label": "Labelled", "recipe": "other", "alignment_weight": 1.0, "forward": "joint"}
    changes = {
        "recipes": {
            **PARAMS["recipes"],
            "other": {**PARAMS["recipes"]["short"], "family": "another"},
        },
        "methods": {"simclr": simclr, "supervised": other},
        "comparison": {"recipes": "mixed", "labels": "marked"},
        "runs": {"main": {**PARAMS["runs"]["main"], "method": ["simclr", "supervised"]}},
    }
    changes |= {"tables": ["main", "transfer"], "figures": []}
    builder = TreeBuilder(tmp_path, tiny_params(**changes))
    monkeypatch.chdir(tmp_path)
    builder.science()
    builder.report()
    code, record = audit(tmp_path, **changes)
    assert code == 0, record["findings"][:3]
    path = builder.reports / "tables/main.md"
    notes = [line for line in path.read_text().split("\n") if line.startswith("- ")]
    assert any("use the labels of the training images" in note for note in notes)
    assert any("tiny: SimCLR, CLSP-SimCLR; another: Labelled" in note for note in notes)
    said = next(note for note in notes if "another:" in note)
    path.write_text(path.read_text().replace(said + "\n", ""))
    code, record = audit(tmp_path, **changes)
    assert code == 1 and {"A22"} <= {f["id"] for f in record["findings"]}
