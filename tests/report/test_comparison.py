"""Tables refuse to mix recipes unasked; what their rows do not share is said below them."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from results_tree import PARAMS, tiny_params

from clsp.config.schema import Params
from clsp.report.collect import build_frame, frame_csv
from clsp.report.published import PublishedNumbers
from clsp.report.table import build_table, notes_of, read_frame, table_latex
from clsp.runtime.errors import ConfigError, DataError

UNPUBLISHED = PublishedNumbers({}, {})


def params_with(method: dict[str, Any], **changes: Any) -> Params:
    recipes = {**PARAMS["recipes"]}
    recipes["other"] = {**recipes["short"], "family": "another"}
    methods = {**PARAMS["methods"], "second": method}
    runs = {"main": {**PARAMS["runs"]["main"], "method": ["simclr", "second"]}}
    return tiny_params(recipes=recipes, methods=methods, runs=runs, **changes)


def frame_of(params: Params, root: Path) -> pd.DataFrame:
    return read_frame(frame_csv(build_frame(params, root)))


SECOND = {**PARAMS["methods"]["simclr"], "method": "simclr", "label": "Second", "recipe": "other"}
MIXED = {"recipes": "mixed", "labels": "refused"}


@pytest.mark.parametrize("name", ["main", "transfer"])
def test_mixed_families_are_named_with_their_rows(name: str, tmp_path: Path) -> None:
    params = params_with(SECOND, comparison=MIXED)
    table = build_table(params, name, frame_of(params, tmp_path), UNPUBLISHED)
    (note,) = [note for note in notes_of(table) if "families" in note]
    assert "digits, tiny" in note
    assert "(tiny: SimCLR, CLSP-SimCLR; another: Second, CLSP-Second)" in note


def test_a_frame_that_mixes_families_is_refused(tmp_path: Path) -> None:
    frame = frame_of(params_with(SECOND, comparison=MIXED), tmp_path)
    message = r"digits with encoder tiny .* families tiny, another; .*recipes: mixed"
    with pytest.raises(ConfigError, match=message):
        build_table(tiny_params(), "main", frame, UNPUBLISHED)


def test_nothing_is_said_where_nothing_is_mixed(tmp_path: Path) -> None:
    params = tiny_params(comparison={"recipes": "mixed", "labels": "marked"})
    table = build_table(params, "main", frame_of(params, tmp_path), UNPUBLISHED)
    assert not [note for note in table.notes if "famil" in note or "labels" in note]


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
        (note,) = [note for note in table.notes if "labels of the training images" in note]
        assert "[labels]" in note
        assert r"\item [" not in table_latex(table, False)  # LaTeX would take it for an option


@pytest.mark.parametrize("column", ["variation", "recipe", "uses_labels"])
def test_a_frame_that_does_not_say_is_refused(column: str, tmp_path: Path) -> None:
    frame = frame_of(tiny_params(), tmp_path).drop(columns=column)
    with pytest.raises(DataError, match=f"the columns {column} are missing"):
        read_frame(frame.to_csv(index=False))
