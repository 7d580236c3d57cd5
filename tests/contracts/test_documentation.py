"""docs/pretraining.md names every method, option and source, and where gradient flows."""

import re
from pathlib import Path

import pytest

from clsp.config.schema import METHODS, POSITIVES
from clsp.runtime.registry import load, names, settings_class

PAGE = (Path(__file__).parents[2] / "docs/pretraining.md").read_text(encoding="utf-8")
SHARED = {"hidden", "projection", "forward"}


def _table(heading):
    """Rows of the table under a line that begins with `heading`: names in column 1, all cells."""
    after = PAGE.split(f"\n{heading}", 1)[1].split("\n\n", 1)[0]
    rows = [line.strip("|").split("|") for line in after.splitlines()[2:]]
    return {name: row for row in rows for name in re.findall(r"`(\w+)`", row[0])}


@pytest.mark.parametrize("name", names(METHODS))
def test_every_option_of_a_method_is_in_its_row(name):
    row = _table("| method | paper |")[name]
    listed = set(re.findall(r"`(\w+\*?)`", row[-1]))
    if "momentum_*" in listed:
        listed |= {"momentum_start", "momentum_end"}
    options = set(settings_class(METHODS, name).model_fields) - SHARED
    assert options <= listed
    named_besides = {"momentum_*", "mean_outside_log", "sum_inside_log", "forward"}
    assert listed - named_besides <= options
    assert ("(labels)" in row[0]) == settings_class(METHODS, name).uses_labels


@pytest.mark.parametrize("name", names(METHODS))
def test_where_gradient_flows_is_what_the_method_says(name):
    says = (
        "both sides"
        if "gradient on both sides" in load(METHODS, name, "method").Method.ALIGNED
        else "view 1 only"
    )
    assert _table("| method | of view 1 |")[name][-1].strip() == says


@pytest.mark.parametrize("name", names(POSITIVES))
def test_every_source_has_a_row(name):
    row = _table("| source |")[name]
    settings = settings_class(POSITIVES, name)
    assert ("(labels)" in row[0]) == settings.uses_labels
    assert (f"`{settings.reads}:`" in row[-1]) == (settings.reads is not None)
    assert ("groups" in row[-1]) == settings.uses_groups
