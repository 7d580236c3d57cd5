"""Faults of claims, verdicts, intervals and marks, and rows that end above the authors' curve."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from injecting import Tree, edit_statement, fault, keep_time

from clsp.report.limits import LIMITS
from clsp.runtime.canonical import canonical_json
from clsp.runtime.source import ROOT

EXPECTED = ("--expectations", "{base}/expectations")
BAND = 0.6  # points, of the stand-in for the authors' curves


def _forge_verdict(tree: Tree, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a claim's record in verdicts.json; its manifest agrees."""
    path = tree.reports / "verdicts.json"
    document = json.loads(path.read_text())
    change(next(record for record in document["verdicts"] if record["id"] == name))
    path.write_text(canonical_json(document) + "\n")
    edit_statement(tree.reports / "claims.manifest.json", lambda _: None)


@fault("A22", "A24", "A50")  # the page was drawn from the verdict as it was
def reduced_claim_reproduced(tree: Tree) -> None:
    """The demonstration claims to have reproduced something."""
    _forge_verdict(tree, "C4", lambda record: record.update(verdict="reproduced", because=""))


@fault("A22", "A24", "A50")
def difference_of_claim_edited(tree: Tree) -> None:
    _forge_verdict(tree, "C4", lambda record: record.update(difference=4.2))


@fault("A22", "A24", "A50")
def bootstrap_of_claim_narrowed(tree: Tree) -> None:
    _forge_verdict(tree, "C4", lambda record: record.update(bootstrap=[-0.1, 0.1]))


@fault("A22", "A24", "A50")
def image_noise_of_claim_hidden(tree: Tree) -> None:
    _forge_verdict(tree, "C4", lambda record: record.update(image_error=0.0))


@fault("A22", "A24", "A50")
def seeds_of_claim_picked(tree: Tree) -> None:
    """One seed is left out of the verdict, which still is well-formed."""

    def pick(record: dict[str, Any]) -> None:
        for key in ("seeds", "left_runs", "right_runs"):
            record[key] = record[key][1:]
        record["n"] -= 1

    _forge_verdict(tree, "C4", pick)


@fault("A22", "A24", "A50")
def margin_of_claim_lowered(tree: Tree) -> None:
    _forge_verdict(tree, "C4", lambda record: record.update(margin=-100.0))


@fault("A02", "A50")
def claims_table_edited(tree: Tree) -> None:
    path = tree.reports / "claims.md"
    keep_time(path, path.read_bytes().replace(b"not run", b"reproduced", 1))


@fault("A50", "A22")
def claims_written_after_a_run(tree: Tree) -> None:
    """A run recorded another claims file than the one that judges it."""

    def forge(predicate: dict[str, Any]) -> None:
        predicate["internalParameters"]["claims_sha256"] = "1" * 64

    edit_statement(tree.run("runs", "manifest.json"), forge)


@fault("A50", "A22")
def claims_not_recorded(tree: Tree) -> None:
    edit_statement(
        tree.run("runs", "manifest.json"),
        lambda predicate: predicate["internalParameters"].pop("claims_sha256"),
    )


def _edit_page(tree: Tree, old: str, new: str) -> None:
    """Change the report; its manifest agrees."""
    path = tree.reports / "report.html"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    edit_statement(tree.reports / "report.manifest.json", lambda _: None)


@fault("A22")
def claims_of_page_edited(tree: Tree) -> None:
    """The page shows a better verdict than the one that was reached."""
    badge = '<span class="badge {}"><span aria-hidden="true">{}</span> {}</span>'
    worse, better = ("unrun", "○", "not run"), ("reproduced", "✓", "reproduced")
    _edit_page(tree, badge.format(*worse), badge.format(*better))


@fault("A22")
def evidence_of_page_edited(tree: Tree) -> None:
    """The commit behind a cell is another one on the page."""
    _edit_page(tree, f'<code class="h">{"1" * 40}</code>', f'<code class="h">{"2" * 40}</code>')


@fault("A22")
def limits_of_page_left_out(tree: Tree) -> None:
    _edit_page(tree, f"<p><b>{LIMITS}</b></p>", "")


def _edit_cells(tree: Tree, table: str, change: Callable[[dict[str, str]], None]) -> None:
    """Change lines of a table's csv; its manifest agrees."""
    path = tree.reports / f"tables/{table}.csv"
    with open(path, encoding="utf-8", newline="") as stream:
        reader = csv.DictReader(stream)
        rows, names = list(reader), reader.fieldnames or []
    for row in rows:
        change(row)
    with open(path, "w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    edit_statement(tree.reports / f"tables/{table}.manifest.json", lambda _: None)


@fault("A22", "A24", "A26")
def interval_of_cell_narrowed(tree: Tree) -> None:
    def narrow(row: dict[str, str]) -> None:
        if row["column"] == "linear" and row["low"]:
            row["low"] = str(float(row["mean"]) - 0.01)

    _edit_cells(tree, "main", narrow)


@fault("A22", "A24", "A26")
def image_noise_of_cell_hidden(tree: Tree) -> None:
    def hide(row: dict[str, str]) -> None:
        if row["column"] == "linear":
            row["image_error"] = "0.0"

    _edit_cells(tree, "main", hide)


@fault("A22", "A24", "A26")
def best_value_marked_elsewhere(tree: Tree) -> None:
    other = {"best": "", "tied": "best", "": "best"}
    _edit_cells(tree, "main", lambda row: row.update(standing=other[row["standing"]]))


@fault("A22", "A24", "A26")
def rank_of_cell_edited(tree: Tree) -> None:
    def swap(row: dict[str, str]) -> None:
        if row["unit"] == "rank":
            row["mean"] = str(3 - float(row["mean"]))

    _edit_cells(tree, "transfer", swap)


def write_curves(tree: Tree, folder: Path, ahead: float = 0.0, reason: str = "") -> None:
    """Expectations in which the tree's recipe is the authors', who ended so many points below it.

    Args:
        tree: Whose means the curves end at.
        folder: Where to write official_curves.json and explanations.yaml.
        ahead: Points by which our runs are above their curves.
        reason: Explanation of that, if one is given.
    """
    with open(tree.reports / "tables/main.csv", encoding="utf-8", newline="") as stream:
        cells = [row for row in csv.DictReader(stream) if row["column"] == "linear"]
    common = {
        "dataset": "digits", "architecture": "resnet18", "stem": "small", "width": 8,
        "method": "simclr", "epochs": 2, "batch_size": 4, "learning_rate": 0.1, "seed": 0,
        "losses": {"loss": [[0, 9.0], [2, 3.0]]},
    }  # fmt: skip
    runs, explained = [], []
    for cell in cells:
        source = "bank" if cell["label"].startswith("CLSP") else "none"
        mean = float(cell["mean"])
        points = [[1, 10.0], [2, mean - ahead]]
        runs.append({**common, "run": cell["label"], "positives": source, "accuracy": points})
        explained.append(
            {"dataset": "digits", "architecture": "resnet18", "label": cell["label"],
             "found": round(mean, 2), "by": "a reader", "date": "2025-01-31", "reason": reason}
        )  # fmt: skip
    document = {
        "schema_version": 1, "source": "nobody", "notes": [], "bands": {"digits": BAND},
        "widening": [[0, 1.0]], "band_source": "made up", "runs": runs,
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    claims = ROOT / "reports/spec/claims.yaml"
    (folder / claims.name).write_bytes(claims.read_bytes())
    (folder / "official_curves.json").write_text(json.dumps(document))
    told = {"explanations": explained if reason else []}
    (folder / "explanations.yaml").write_text(json.dumps(told))


def expectations_of(tree: Tree) -> Path:
    """Where EXPECTED tells the audit to look."""
    return tree.results.parents[1] / "expectations"


@fault("A22", "A24", "A27", options=EXPECTED)
def rows_above_the_authors_curve(tree: Tree) -> None:
    """As leakage, label-conditioned candidates or selection on test images would look."""
    write_curves(tree, expectations_of(tree), ahead=2 * BAND)
