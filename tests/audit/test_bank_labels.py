"""A bank cannot deny, or claim, that labels went into it."""

from pathlib import Path

import pytest
from auditing import audit, ids
from faults import Tree, edit_statement


@pytest.mark.parametrize("found", [True, None])
def test_a_bank_records_whether_labels_went_into_it(
    found: bool | None, tree: Tree, tmp_path: Path
) -> None:
    manifest = tree.results / "banks/digits.mix/manifest.json"
    edit_statement(manifest, lambda p: p["facts"].update(label_conditioned=found))
    code, record = audit(tree, tmp_path / "audit.json")
    assert code == 1
    (told,) = [f for f in record["findings"] if f["id"] == "A41"]
    assert told["subject"] == "digits.mix"
    assert told["expected"] == "label_conditioned = False"
    assert told["found"] == f"label_conditioned = {found}"
    assert "A41" in ids(record)
