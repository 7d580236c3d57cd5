"""Runs that use labels or mix recipe families are refused while params.yaml is read, or marked."""

import copy
from pathlib import Path

import pytest

from clsp.config.grid import expand_runs
from clsp.config.labels import label_users, spec_uses_labels
from clsp.config.load import load_params, read_yaml
from clsp.config.schema import PairsSpec
from clsp.runtime.errors import ConfigError

ROOT = Path(__file__).parents[2]
PLACE = {"dataset": ["digits"], "encoder": ["tiny"], "seed": [0]}
SUPERVISED = {"method": "supervised", "recipe": "demo", "alignment_weight": 1, "forward": "joint"}


@pytest.fixture
def data():
    read = read_yaml(ROOT / "params.yaml")
    read["comparison"] = {"recipes": "single", "labels": "refused"}
    read["methods"]["upper"] = {**SUPERVISED, "label": "Supervised"}
    read["positives"]["oracle"] = {"source": "same_class", "label": "{method}-oracle"}
    read["runs"] = {"free": {**PLACE, "method": ["simclr"], "positives": ["none", "synthetic"]}}
    return read


def _grid(data, method, positives):
    data["runs"]["more"] = {**PLACE, "method": [method], "positives": [positives]}
    return data


@pytest.mark.parametrize(
    ("method", "positives", "named"),
    [
        ("upper", "none", 'method "supervised" uses'),
        ("simclr", "oracle", 'positive source "same_class" uses'),
        ("upper", "oracle", 'method "supervised" and positive source "same_class" use'),
    ],
)
def test_labels_are_refused_by_name_with_the_way_out(data, method, positives, named):
    message = rf'runs\.more: {named} labels .*"comparison: {{labels: marked}}"'
    with pytest.raises(ConfigError, match=message):
        load_params(_grid(data, method, positives))


@pytest.mark.parametrize(
    ("method", "positives", "label"),
    [
        ("upper", "none", "Supervised [labels]"),
        ("simclr", "oracle", "SimCLR-oracle [labels]"),
        ("upper", "synthetic", "CLSP-Supervised [labels]"),
    ],
)
def test_marked_runs_say_it_at_the_end_of_label_and_name(data, method, positives, label):
    data["comparison"]["labels"] = "marked"
    runs = expand_runs(load_params(_grid(data, method, positives)))
    run = runs[f"digits.tiny.{method}.{positives}.s0.labels"]
    assert run.label == label
    assert run.probe.run == run.slug  # and so its folders and its runs in MLflow
    assert any(spec_uses_labels(run.spec).values())
    assert runs["digits.tiny.simclr.none.s0"].label_users == ()


def test_a_variation_is_marked_behind_its_value(data):
    data["comparison"]["labels"] = "marked"
    _grid(data, "upper", "synthetic")["runs"]["more"]["alignment_weight"] = [0.5]
    runs = expand_runs(load_params(data))
    run = runs["digits.tiny.upper.synthetic.s0.lambda0.5.labels"]
    assert run.label == "CLSP-Supervised, λ = 0.5 [labels]"
    assert run.label_beside("alignment_weight") == "CLSP-Supervised [labels]"


def test_labels_come_with_pairs_that_a_labelled_run_judged(data):
    params = load_params(data)
    method, positives = params.methods["simclr"], params.positives["none"]
    judge = "digits.tiny.upper.none.s0"
    spec = {"dataset": "digits", "neighbours": 5, "threshold": 0.5}
    free, labelled = (PairsSpec(run=run, **spec) for run in (judge, f"{judge}.labels"))
    assert label_users(method, positives, None, free) == ()
    (user,) = label_users(method, positives, None, labelled)
    assert judge in user


def test_nothing_but_the_comparison_changes_a_label_free_run(data):
    first = load_params(data)
    second = load_params({**data, "comparison": {"recipes": "mixed", "labels": "marked"}})
    assert expand_runs(first) == expand_runs(second)


def _another_family(data):
    data["recipes"]["other"] = {**copy.deepcopy(data["recipes"]["demo"]), "family": "solo"}
    data["methods"]["moco"]["recipe"] = "other"
    return _grid(data, "moco", "none")


def test_recipe_families_are_not_mixed_unasked(data):
    message = (
        r'runs\.more: on dataset digits the runs .* two families, "demo" \(run '
        r'digits\.tiny\.simclr\.none\.s0\) and "solo" \(run digits\.tiny\.moco\.none\.s0\)'
        r'.*"comparison: \{recipes: mixed\}"'
    )
    with pytest.raises(ConfigError, match=message):
        load_params(_another_family(data))


def test_recipe_families_may_be_mixed_when_asked(data):
    data["comparison"]["recipes"] = "mixed"
    runs = expand_runs(load_params(_another_family(data))).values()
    assert {run.spec.recipe.family for run in runs} == {"demo", "solo"}


@pytest.mark.parametrize("width", [8, 16])
def test_another_encoder_does_not_hide_a_mixture(data, width):
    _another_family(data)
    data["encoders"]["other"] = dict(data["encoders"]["tiny"], width=width)
    data["runs"]["more"]["encoder"] = ["other"]
    with pytest.raises(ConfigError, match=r"digits\.tiny\..*digits\.other\.moco"):
        load_params(data)


def test_families_on_different_datasets_are_no_mixture(data):
    _another_family(data)
    data["datasets"]["figures"] = dict(data["datasets"]["digits"])
    data["runs"]["more"]["dataset"] = ["figures"]
    assert len(expand_runs(load_params(data))) == 3
