"""Ablations in a grid: what changes in a run, what it is called, and what cannot be varied."""

from pathlib import Path

import pytest

from clsp.config.grid import expand_runs
from clsp.config.load import load_params, read_yaml
from clsp.config.plan import banks_needed, expected_jobs
from clsp.runtime.errors import ConfigError

ROOT = Path(__file__).parents[2]
PLACE = {"dataset": ["digits"], "encoder": ["tiny"], "method": ["simclr"], "seed": [0]}
SLUG = "digits.tiny.simclr.synthetic.s0"


@pytest.fixture
def data():
    read = read_yaml(ROOT / "params.yaml")
    read["runs"] = {"plain": {**PLACE, "positives": ["none", "synthetic"]}}
    read["quality"] = None  # which would have banks of its own
    return read


def _load(data, positives="synthetic", **varied):
    data["runs"]["ablation"] = {**PLACE, "positives": [positives], **varied}
    return load_params(data)


def test_the_weight_of_the_alignment_term(data):
    runs = expand_runs(_load(data, alignment_weight=[0, 0.2, 0.05]))
    assert list(runs)[2:] == [f"{SLUG}.lambda0", f"{SLUG}.lambda0.05"]  # 0.2 is the ordinary run
    control = runs[f"{SLUG}.lambda0"]
    assert (control.spec.alignment_weight, control.spec.bank) == (0, "digits.mix")
    assert control.label == "CLSP-SimCLR, λ = 0"
    assert control.variation == {"alignment_weight": 0}
    assert (control.probe.run, control.transfer.run) == (control.slug, control.slug)
    usual = runs[SLUG]
    assert (usual.variation, usual.label) == ({}, "CLSP-SimCLR")
    assert usual.label_along("alignment_weight") == "CLSP-SimCLR, λ = 0.2"
    assert usual.values == {"alignment_weight": 0.2, "candidates": 4, "interpolation_weight": 0.1}


def test_the_number_of_candidates(data):
    runs = expand_runs(_load(data, candidates=[1, 4]))
    assert list(runs)[1:] == [SLUG, f"{SLUG}.k1"]
    assert runs[f"{SLUG}.k1"].spec.positives_options == {"candidates": 1}
    assert runs[f"{SLUG}.k1"].label == "CLSP-SimCLR, k = 1"
    assert "candidates" not in runs[SLUG].spec.positives_options


def test_candidates_that_the_entry_limits_already(data):
    data["positives"]["synthetic"]["candidates"] = 2
    runs = expand_runs(_load(data, candidates=[2, 4]))
    assert list(runs)[1:] == [SLUG, f"{SLUG}.k4"]
    assert runs[SLUG].spec.positives_options == {"candidates": 2}
    assert runs[f"{SLUG}.k4"].spec.positives_options == {"candidates": 4}


def test_the_interpolation_weight_needs_banks_of_its_own(data):
    params = _load(data, interpolation_weight=[0.1, 0.3, 1])
    assert list(params.banks) == ["digits.mix", "digits.mix.w0.3", "digits.mix.w1"]
    runs = expand_runs(params)
    assert runs[f"{SLUG}.w0.3"].spec.bank == "digits.mix.w0.3"
    assert runs[f"{SLUG}.w0.3"].label == "CLSP-SimCLR, w = 0.3"
    base, derived = params.banks["digits.mix"], params.banks["digits.mix.w0.3"]
    assert derived.options == {**base.options, "interpolation_weight": 0.3}
    assert derived.model_copy(update={"options": base.options}) == base
    assert banks_needed(params) == list(params.banks)
    gathered = [job.name for job in expected_jobs(params) if job.stage == "gather-bank"]
    assert gathered == list(params.banks)


def test_derived_banks_survive_a_round_trip(data):
    params = _load(data, interpolation_weight=[0.1, 0.3])
    again = load_params(params.canonical())
    assert again == params
    assert list(expand_runs(again)) == list(expand_runs(params))


def test_another_bank_may_not_have_the_name_of_a_derived_one(data):
    data["banks"]["digits.mix.w0.3"] = dict(data["banks"]["digits.mix"], interpolation_weight=0.4)
    message = r"banks\.digits\.mix\.w0\.3: runs\.ablation\.interpolation_weight gives this name"
    with pytest.raises(ConfigError, match=message):
        _load(data, interpolation_weight=[0.3])


def test_a_grid_is_the_product_of_all_it_lists(data):
    varied = {"alignment_weight": [0.2, 1], "candidates": [4, 2], "interpolation_weight": [0.1, 0]}
    runs = expand_runs(_load(data, **varied))
    assert list(runs)[1:] == [
        SLUG, f"{SLUG}.w0", f"{SLUG}.k2", f"{SLUG}.k2.w0",
        f"{SLUG}.lambda1", f"{SLUG}.lambda1.w0", f"{SLUG}.lambda1.k2", f"{SLUG}.lambda1.k2.w0",
    ]  # fmt: skip
    last = runs[f"{SLUG}.lambda1.k2.w0"]
    assert last.label == "CLSP-SimCLR, λ = 1, k = 2, w = 0"
    assert (last.spec.alignment_weight, last.spec.bank) == (1, "digits.mix.w0")
    assert last.spec.positives_options == {"candidates": 2}
    assert last.label_beside("candidates") == "CLSP-SimCLR, λ = 1, w = 0"


def test_grids_that_meet_share_their_runs(data):
    data["runs"]["first"] = {**PLACE, "positives": ["synthetic"], "alignment_weight": [0.2, 0.5]}
    runs = expand_runs(_load(data, alignment_weight=[0.5, 0.2]))
    assert list(runs)[1:] == [SLUG, f"{SLUG}.lambda0.5"]


def test_the_grid_wins_over_an_override(data):
    data["overrides"] = [{"positives": "synthetic", "alignment_weight": 0.5}]
    runs = expand_runs(_load(data, alignment_weight=[0.2, 0.5]))
    assert runs[SLUG].spec.alignment_weight == 0.5  # the override makes it the ordinary run
    assert runs[f"{SLUG}.lambda0.2"].spec.alignment_weight == 0.2
    data["overrides"] = [{"positives": "synthetic", "linear_learning_rate": 3}]
    runs = expand_runs(_load(data, alignment_weight=[0.5]))
    assert runs[f"{SLUG}.lambda0.5"].probe.linear.learning_rate == 3


def test_nearly_equal_values_do_not_share_a_folder(data):
    with pytest.raises(ConfigError, match=r'share the folder "digits.*\.lambda0\.3"'):
        expand_runs(_load(data, alignment_weight=[0.3, 0.1 + 0.2]))


def test_a_label_may_not_look_like_an_ablation(data):
    data["methods"]["simclr2"] = dict(data["methods"]["simclr"], method="simclr")
    data["methods"]["simclr2"]["label"] = "SimCLR, λ = 0.5"
    data["runs"]["second"] = {**PLACE, "positives": ["synthetic"], "method": ["simclr2"]}
    with pytest.raises(ConfigError, match=r'would print "CLSP-SimCLR, λ = 0\.5" for method simclr'):
        _load(data, alignment_weight=[0.5])


@pytest.mark.parametrize(
    ("positives", "varied", "message"),
    [
        ("none", {"alignment_weight": [1]}, r'alignment_weight: .*source "none" aligns nothing'),
        ("none", {"candidates": [1]}, r'candidates: .*source "none" reads no bank'),
        ("augmentation", {"candidates": [1]}, r'candidates: .*"augmentation" reads no bank'),
        ("augmentation", {"interpolation_weight": [1]}, r"interpolation_weight: .*reads no bank"),
        ("synthetic", {"candidates": [4, 5]}, r"candidates: 5 exceeds the 4 candidates of bank"),
        ("synthetic", {"candidates": [0]}, r"candidates\.0: .*greater than or equal to 1"),
        ("synthetic", {"candidates": []}, r"candidates: .*at least 1 item"),
        ("synthetic", {"alignment_weight": 0.3}, r"alignment_weight: .*valid list, found 0\.3$"),
        ("synthetic", {"alignment_weight": [-1]}, r"alignment_weight\.0: .*found -1"),
        ("synthetic", {"alignment_weight": [1, 1.0]}, r'alignment_weight: "1\.0" is given twice'),
        ("synthetic", {"interpolation_weight": [2]}, r"interpolation_weight\.0: .*less than or"),
    ],
)
def test_what_cannot_be_varied(data, positives, varied, message):
    with pytest.raises(ConfigError, match=rf"runs\.ablation\.{message}"):
        _load(data, positives, **varied)


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        ([-1], [r"runs.ablation.alignment_weight.0: "]),
        ([-1, "x"], [r"runs.ablation.alignment_weight.0: ", r"runs.ablation.alignment_weight.1: "]),
        ([], [r"runs.ablation.alignment_weight: List should have at least 1 item"]),
    ],
)
def test_every_bad_value_is_told_once_and_nothing_else(data, values, lines):
    with pytest.raises(ConfigError) as caught:
        _load(data, alignment_weight=values)
    told = str(caught.value).removeprefix("params.yaml: ").split("\n  ")
    assert len(told) == len(lines)
    for line, start in zip(told, lines, strict=True):
        assert line.startswith(start)


def test_a_generator_without_an_interpolation_weight(data):
    from clsp.config.variation import check_varied

    params = _load(data, interpolation_weight=[0.1])
    bank = params.banks["digits.mix"]
    options = {k: v for k, v in bank.options.items() if k != "interpolation_weight"}
    bare = {"digits.mix": bank.model_copy(update={"options": options})}
    other = params.model_copy(update={"banks": bare})
    message = r"runs\.ablation\.interpolation_weight: .*generator interpolate, which has no such"
    with pytest.raises(ConfigError, match=message):
        check_varied(other, "ablation", other.runs["ablation"])
