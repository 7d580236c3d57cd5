"""Best and tied values, intervals, badges of protocols, rows that only others publish, stable bytes."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from results_tree import PARAMS, REPO, TreeBuilder, tiny_params

from clsp.config.load import load_params, read_yaml
from clsp.config.schema import Params
from clsp.report.cells import BEST, TIED, Cell, cells_csv, read_cells
from clsp.report.collect import build_frame, frame_csv
from clsp.report.published import PublishedNumbers
from clsp.report.standing import FEW, RULE, tied
from clsp.report.table import build_table, notes_of, read_frame, render, table_latex, table_markdown

MAIN = PARAMS["runs"]["main"]
UNPUBLISHED = PublishedNumbers({}, {})
PUBLISHED = REPO / "reports/spec/published.yaml"


def filled(params: Params, value: Any) -> pd.DataFrame:
    """The frame of a profile, every number set by value(row), None: missing."""
    frame = read_frame(frame_csv(build_frame(params, Path("/nowhere"))))
    values = [value(row) for row in frame.itertuples()]
    frame["value"] = pd.Series(values, dtype=float)
    frame["status"] = ["missing" if v is None else "done" for v in values]
    frame["metric"], frame["total"] = "top1", "400"
    return frame


def standings(table: Any, column: str = "linear") -> dict[str, str]:
    return {cell.label: cell.standing for cell in table.cells if cell.column == column}


def linear(params: Params, base: list[float], better: list[float]) -> Any:
    def value(row: Any) -> float:
        return (better if row.label.startswith("CLSP") else base)[int(row.seed)]

    return build_table(params, "main", filled(params, value), UNPUBLISHED)


def test_a_value_that_pairing_tells_apart_is_not_tied() -> None:
    params = tiny_params()
    apart = linear(params, [50.0, 60.0, 70.0], [51.0, 61.1, 71.0])  # Welch would not see it
    assert standings(apart) == {"SimCLR": "", "CLSP-SimCLR": BEST}
    near = linear(params, [50.0, 61.0, 70.0], [51.0, 60.0, 71.0])
    assert standings(near) == {"SimCLR": TIED, "CLSP-SimCLR": BEST}
    assert RULE in notes_of(near) and FEW not in notes_of(near)


def test_equal_values_are_both_best() -> None:
    table = linear(tiny_params(), [50.0, 60.0, 70.0], [50.0, 60.0, 70.0])
    assert set(standings(table).values()) == {BEST}


def test_with_two_seeds_only_the_best_is_marked() -> None:
    params = tiny_params(runs={"main": {**MAIN, "seed": [0, 1]}})
    table = linear(params, [50.0, 60.0], [50.1, 60.1])
    assert standings(table) == {"SimCLR": "", "CLSP-SimCLR": BEST}
    assert FEW in notes_of(table)


def test_unfinished_rows_do_not_compete() -> None:
    params = tiny_params()

    def value(row: Any) -> float | None:
        better = row.label.startswith("CLSP")
        return None if better and row.seed == "2" else 90.0 if better else 80.0

    table = build_table(params, "main", filled(params, value), UNPUBLISHED)
    assert set(standings(table).values()) == {""}  # one row alone is not the best of anything
    (cell,) = [c for c in table.cells if c.column == "linear" and c.n == 2]
    assert cell.text == "90.00 ± 0.00 (2 of 3)" and cell.interval_text == "[90.00, 90.00]"


def test_without_common_seeds_it_is_welch_s_test() -> None:
    best = {"0": 90.0, "1": 90.2, "2": 90.1}
    assert tied(best, {"3": 90.0, "4": 90.1, "5": 90.2})
    assert not tied(best, {"3": 80.0, "4": 80.1, "5": 80.2})
    assert not tied(best, {"3": 90.0, "4": 90.1})  # too few to ask


def test_marks_and_intervals_in_every_form() -> None:
    params = tiny_params()
    table = linear(params, [50.0, 61.0, 70.0], [51.0, 60.0, 71.0])
    markdown, latex = table_markdown(table, False), table_latex(table, False)
    assert r"**60.67 ± 10.02 (3) \[35.78, 85.55\]**" in markdown
    assert r"*60.33 ± 10.02 (3) \[35.45, 85.22\]*" in markdown
    assert r"\shortstack[r]{\textbf{60.67 $\pm$ 10.02 (3)}\\{\tiny [35.78, 85.55]}}" in latex
    assert r"\underline{60.33 $\pm$ 10.02 (3)}" in latex
    (cell,) = [c for c in table.cells if c.standing == BEST and c.column == "linear"]
    assert (cell.low, cell.high) == pytest.approx((35.784, 85.549), abs=1e-3)
    assert read_cells(cells_csv(table, False), "main.csv") == table.cells


def test_one_seed_has_no_interval() -> None:
    params = tiny_params(runs={"main": {**MAIN, "seed": [0]}})
    table = linear(params, [50.0], [51.0])
    assert {(c.low, c.high, c.interval_text) for c in table.cells} == {(None, None, "")}


@pytest.fixture(scope="module")
def comparison() -> tuple[Params, pd.DataFrame]:
    path = REPO / "configs/comparison_cifar.yaml"
    params = load_params(read_yaml(path), str(path))
    return params, filled(params, lambda row: 90.0 + 0.1 * int(row.seed or 0))


def cells_of(table: Any, dataset: str) -> dict[tuple[str, str], Cell]:
    return {(c.label, c.column): c for c in table.cells if c.dataset == dataset}


def test_another_protocol_is_badged_in_the_cell_and_explained(comparison: Any) -> None:
    params, frame = comparison
    table = build_table(params, "main", frame, PublishedNumbers.read(PUBLISHED))
    cells = cells_of(table, "cifar10")
    online = cells["NNCLR", "linear"]
    assert online.published_text == "91.88 [online; other stem] (−1.68)"
    assert online.published_mismatch == "online; other stem"
    assert cells["CLSP-SimCLR", "linear"].published_text == "94.45 (−4.25)"
    best_epoch = cells["BYOL", "kNN, k = 200"]
    assert best_epoch.published_text.startswith("91.00 [best epoch; 800 epochs] (")
    legend = next(note for note in notes_of(table) if "measured otherwise" in note)
    assert "[online]: linear layer trained beside" in legend and "[best epoch]" in legend
    assert "published_mismatch" in cells_csv(table, False).splitlines()[0]


def test_published_rows_that_nobody_runs_stand_below(comparison: Any) -> None:
    params, frame = comparison
    table = build_table(params, "main", frame, PublishedNumbers.read(PUBLISHED))
    cell = cells_of(table, "cifar100")["DeepCluster V2", "linear"]
    assert (cell.text, cell.published, cell.runs, cell.standing) == ("— (0 of 0)", 63.61, "", "")
    labels = [row[2] for row in table.rows if row[0] == "cifar100"]
    linear = frame["protocol"] == "linear"
    own = set(frame.loc[(frame["dataset"] == "cifar100") & linear, "label"])
    assert set(labels[: len(own)]) == own and "MoCo V3" in labels[len(own) :]
    bare = build_table(params, "main", frame, UNPUBLISHED)
    assert {row[2] for row in bare.rows} == set(
        frame.loc[linear, "label"]
    )  # the audit judges these


def test_tables_that_are_parts_of_the_main_one(comparison: Any) -> None:
    params, frame = comparison
    published = PublishedNumbers.read(PUBLISHED)
    controls = build_table(params, "controls", frame, published)
    assert {row[2] for row in controls.rows} == {
        "SimCLR", "SimCLR-aug", "CLSP-SimCLR", "MoCo v2+", "MoCo v2+-aug", "CLSP-MoCo v2+",
    }  # fmt: skip
    references = {row[2] for row in build_table(params, "references", frame, published).rows}
    assert {"SupCon [labels]", "CLSP-SimCLR (class-conditional) [labels]"} <= references
    assert {"SimCLR", "CLSP-SimCLR"} <= references and "NNCLR" not in references
    nothing = build_table(params, "resnet50", frame, published)
    assert nothing.cells == [] and "no run of params.yaml is a ResNet-50" in notes_of(nothing)[1]


def test_tables_are_the_same_bytes_in_another_process_and_locale(tmp_path: Path) -> None:
    builder = TreeBuilder(tmp_path, tiny_params()).everything()
    script = (
        "import sys, hashlib; from pathlib import Path;"
        "sys.path.insert(0, sys.argv[1]); from results_tree import tiny_params, REPO;"
        "from clsp.report.table import render; from clsp.report.verdicts import render_verdicts;"
        "from clsp.report.records import Records; root = Path(sys.argv[2]);"
        "text = (root / 'reports/tiny/frame.csv').read_text(encoding='utf-8'); p = tiny_params();"
        "t = render(p, 'main', text, REPO / 'reports/spec/published.yaml')[1];"
        "v = render_verdicts(p, Records(root / 'results/tiny'), text, REPO / 'reports/spec/claims.yaml')[1];"
        "assert 'torch' not in sys.modules;"
        "print(*[hashlib.sha256(x.encode()).hexdigest() for x in [*t.values(), *v.values()]])"
    )
    given = [sys.executable, "-c", script, str(REPO / "tests/support"), str(tmp_path)]
    env = {"PYTHONPATH": str(REPO), "PATH": "", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    done = subprocess.run(given, env=env, capture_output=True, text=True, check=True)
    reports = builder.reports
    paths = [reports / f"tables/main.{e}" for e in ("csv", "md", "tex")]
    paths += [reports / n for n in ("verdicts.json", "verdicts.intoto.json")]
    paths += [reports / f"claims.{e}" for e in ("csv", "md", "tex")]
    assert done.stdout.split() == [hashlib.sha256(p.read_bytes()).hexdigest() for p in paths]
    again = render(builder.params, "main", (reports / "frame.csv").read_text(), PUBLISHED)[1]
    assert again["csv"] == paths[0].read_text()
    numbers = [c.mean for c in read_cells(again["csv"], "main") if c.mean is not None]
    assert all(round(n, 10) == n for n in numbers) and np.isfinite(numbers).all()


def test_what_the_spread_does_not_hold_is_said_below() -> None:
    """One bank for all seeds, and a finite test set whose noise enters no interval."""
    table = linear(tiny_params(), [50.0, 60.0, 70.0], [51.0, 61.0, 71.0])
    (bank,) = [note for note in notes_of(table) if "share one bank" in note]
    assert "(digits.mix)" in bank
    (cell,) = [c for c in table.cells if (c.label, c.column) == ("SimCLR", "linear")]
    assert cell.image_error == pytest.approx(
        100 * (0.6 * 0.4 / 400) ** 0.5
    )  # one test set, not three
    assert (cell.low, cell.high) != (cell.mean - cell.image_error, cell.mean + cell.image_error)
    assert any("standard errors of 2.44 to 2.45 points" in note for note in notes_of(table))
    once = {**MAIN, "seed": [0]}
    alone = linear(tiny_params(runs={"main": once}), [50.0], [51.0])
    assert not any("share one bank" in note for note in notes_of(alone))
    plain = linear(tiny_params(runs={"main": {**MAIN, "positives": ["none"]}}), [50.0] * 3, [])
    assert not any("share one bank" in note for note in notes_of(plain))


def test_a_floor_without_seeds_says_nothing_about_the_seeds_of_others() -> None:
    transfer = {**PARAMS["evaluation"]["transfer"], "floors": ["pixels"]}
    params = tiny_params(evaluation={**PARAMS["evaluation"], "transfer": transfer})
    frame = filled(params, lambda row: 60.0 + int(row.seed or 0))
    table = build_table(params, "transfer", frame, UNPUBLISHED)
    assert RULE in notes_of(table) and FEW not in notes_of(table)
