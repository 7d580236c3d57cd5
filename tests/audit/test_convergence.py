"""Ends of curves are compared with the authors', two-sided, and only for their own recipe."""

from pathlib import Path

import pytest
from auditing import audit, ids
from faults import Tree
from faults_claims import BAND, EXPECTED, expectations_of, write_curves
from results_tree import TreeBuilder, tiny_params


def badges(record: dict) -> list[str]:
    return [f["message"] for f in record["findings"] if f["id"] == "A27"]


@pytest.fixture
def drawn(tree: Tree, monkeypatch: pytest.MonkeyPatch):
    """Draws the report with made-up curves of the authors, ours being so much ahead."""
    base = tree.results.parents[1]
    monkeypatch.chdir(base)

    def draw(ahead: float, why: str = "") -> None:
        write_curves(tree, expectations_of(tree), ahead, why)
        TreeBuilder(base, tiny_params()).report(expectations_of(tree))

    return draw


def test_within_the_band_nothing_is_said(tree: Tree, tmp_path: Path, drawn) -> None:
    for ahead in (0.0, 0.99 * BAND, -0.99 * BAND):
        drawn(ahead)
        code, record = audit(tree, tmp_path / "audit.json", EXPECTED)
        assert (code, ids(record), badges(record)) == (0, set(), [])


def test_below_the_band_is_noted(tree: Tree, tmp_path: Path, drawn) -> None:
    drawn(-2 * BAND)
    code, record = audit(tree, tmp_path / "audit.json", EXPECTED)
    assert (code, ids(record)) == (0, set())
    assert len(badges(record)) == 2 and all("RCP-LOW" in text for text in badges(record))


def test_above_the_band_blocks_the_row_and_its_claims(tree: Tree, tmp_path: Path, drawn) -> None:
    drawn(2 * BAND)
    code, record = audit(tree, tmp_path / "audit.json", EXPECTED)
    assert (code, ids(record)) == (1, {"A27"})
    invalid = {cell["column"] for cell in record["cells"] if cell["verdict"] == "invalid"}
    assert invalid == {"linear"}
    (claim,) = [claim for claim in record["claims"] if claim["id"] == "C4"]
    assert (claim["verdict"], claim["because"]) == ("invalid", "A27")


def test_an_explanation_lifts_the_block_and_is_shown(tree: Tree, tmp_path: Path, drawn) -> None:
    why = "their probe ran for half of the epochs that ours has"
    drawn(2 * BAND, why)
    code, record = audit(tree, tmp_path / "audit.json", EXPECTED)
    assert (code, ids(record)) == (0, set())
    assert all("RCP-HIGH, explained" in text and why in text for text in badges(record))


def test_other_recipes_have_no_reference(tree: Tree, tmp_path: Path) -> None:
    """The real curves are of CIFAR alone."""
    assert badges(audit(tree, tmp_path / "audit.json")[1]) == []
