"""Tables refuse to mix recipes unasked; what their rows do not share is said below them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_tree import PARAMS, tiny_params

from clsp.config.schema import Params
from clsp.report.cells import cells_csv, read_cells
from clsp.report.collect import build_frame, frame_csv
from clsp.report.comparison import comparison_notes
from clsp.report.published import PublishedNumbers
from clsp.report.table import build_table, notes_of, read_frame, table_latex
from clsp.runtime.errors import ConfigError, DataError

UNPUBLISHED = PublishedNumbers({}, {})
MAIN = PARAMS["runs"]["main"]


def params_with(method: dict[str, Any], **changes: Any) -> Params:
    recipes = {**PARAMS["recipes"]}
    recipes["other"] = {**recipes["short"], "family": "another"}
    methods = {**PARAMS["methods"], "second": method}
    runs = {"main": {**MAIN, "method": ["simclr", "second"]}}
    return tiny_params(**{"recipes": recipes, "methods": methods, "runs": runs, **changes})


def frame_of(params: Params, root: Path) -> pd.DataFrame:
    return read_frame(frame_csv(build_frame(params, root)))


SECOND = {**PARAMS["methods"]["simclr"], "method": "simclr", "label": "Second", "recipe": "other"}
MIXED = {"recipes": "mixed", "labels": "refused"}


@pytest.mark.parametrize("name", ["main", "transfer"])
def test_mixed_families_are_named_with_their_rows(name: str, tmp_path: Path) -> None:
    params = params_with(SECOND, comparison=MIXED)
    table = build_table(params, name, frame_of(params, tmp_path), UNPUBLISHED)
    (note,) = [note for note in notes_of(table) if "families" in note]
    assert "mixed on digits, so" in note
    assert "(tiny: SimCLR, CLSP-SimCLR; another: Second, CLSP-Second)" in note


def test_another_encoder_does_not_hide_a_mixture(tmp_path: Path) -> None:
    """The second method runs on an encoder of the same values and another name."""
    encoders = {**PARAMS["encoders"], "tiny2": PARAMS["encoders"]["tiny"]}
    runs = {"main": MAIN, "second": {**MAIN, "method": ["second"], "encoder": ["tiny2"]}}
    params = params_with(SECOND, encoders=encoders, runs=runs, comparison=MIXED)
    frame = frame_of(params, tmp_path)
    table = build_table(params, "main", frame, UNPUBLISHED)
    (note,) = table.comparison
    assert "(tiny: SimCLR, CLSP-SimCLR; another: Second, CLSP-Second)" in note
    with pytest.raises(ConfigError, match="dataset digits follow recipes of the families tiny, "):
        build_table(tiny_params(), "main", frame, UNPUBLISHED)


def test_the_note_stands_in_every_line_of_the_csv(tmp_path: Path) -> None:
    params = params_with(SECOND, comparison=MIXED)
    table = build_table(params, "main", frame_of(params, tmp_path), UNPUBLISHED)
    lines = cells_csv(table, False).splitlines()[1:]
    assert len(lines) == len(table.cells)
    assert all(line.endswith(f',,"{table.comparison[0]}"') for line in lines)
    assert read_cells(cells_csv(table, False), "main.csv") == table.cells


def test_an_ablation_names_the_families_of_its_lines_and_levels() -> None:
    """A line is called by what its runs have in common, though none of them has that label."""
    line = {**MAIN, "positives": ["synthetic"], "alignment_weight": [0.5, 0.1]}
    runs = {"line": line, "level": {**MAIN, "method": ["second"]}}
    params = params_with(SECOND, runs=runs, comparison=MIXED)
    shown = [("digits", "tiny", label) for label in ("CLSP-SimCLR", "Second")]
    (note,) = comparison_notes(params, shown)
    assert "(tiny: CLSP-SimCLR; another: Second)" in note


def test_a_frame_that_mixes_families_is_refused(tmp_path: Path) -> None:
    frame = frame_of(params_with(SECOND, comparison=MIXED), tmp_path)
    message = r"on dataset digits follow .* families tiny, another; .*recipes: mixed"
    with pytest.raises(ConfigError, match=message):
        build_table(tiny_params(), "main", frame, UNPUBLISHED)


def test_nothing_is_said_where_nothing_is_mixed(tmp_path: Path) -> None:
    params = tiny_params(comparison={"recipes": "mixed", "labels": "marked"})
    table = build_table(params, "main", frame_of(params, tmp_path), UNPUBLISHED)
    assert table.comparison == []
    assert not [note for note in notes_of(table) if "famil" in note or "labels" in note]


def test_rows_that_use_labels_are_marked_and_explained(tmp_path: Path) -> None:
    upper = {"method": "supervised", "label": "Upper", "recipe": "short", "forward": "joint"}
    marked = {"recipes": "single", "labels": "marked"}
    params = params_with({**upper, "alignment_weight": 1.0}, comparison=marked)
    frame = frame_of(params, tmp_path)
    used = frame.groupby("label", sort=False)["uses_labels"].unique().map(list).to_dict()
    assert used == {
        "SimCLR": ["no"],
        "CLSP-SimCLR": ["no"],
        "Upper [labels]": ["yes"],
        "CLSP-Upper [labels]": ["yes"],
    }
    for name in ("main", "transfer"):
        table = build_table(params, name, frame, UNPUBLISHED)
        (note,) = [note for note in table.comparison if "labels of the training images" in note]
        assert "[labels]" in note and note in notes_of(table)
        assert r"\item [" not in table_latex(table, False)  # LaTeX would take it for an option


@pytest.mark.parametrize("column", ["variation", "recipe", "uses_labels"])
def test_a_frame_that_does_not_say_is_refused(column: str, tmp_path: Path) -> None:
    frame = frame_of(tiny_params(), tmp_path).drop(columns=column)
    with pytest.raises(DataError, match=f"the columns {column} are missing"):
        read_frame(frame.to_csv(index=False))


@pytest.mark.parametrize("name", ["main", "transfer"])
def test_a_mode_that_is_not_exact_is_said_below_every_table(name: str, tmp_path: Path) -> None:
    exact, fast = tiny_params(), tiny_params(execution="fast")
    (note,) = build_table(fast, name, frame_of(fast, tmp_path), UNPUBLISHED).comparison
    assert "not exact (bf16 arithmetic, compiled kernels, a fused optimizer, kernels that" in note
    assert build_table(exact, name, frame_of(exact, tmp_path), UNPUBLISHED).comparison == []
