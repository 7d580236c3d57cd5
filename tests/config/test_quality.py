"""What `quality:` measures: which banks follow, what they are called, and what is refused."""

from pathlib import Path

import pytest

from clsp.config.load import load_params, read_yaml
from clsp.config.measured import bank_label, measured_banks, quality_spec
from clsp.config.plan import banks_needed, denoisers_needed, expected_jobs
from clsp.config.quality import metrics_of
from clsp.runtime.errors import ConfigError

ROOT = Path(__file__).parents[2]
RUN = "digits.tiny.simclr.none.s0"


@pytest.fixture
def data():
    read = read_yaml(ROOT / "params.yaml")
    read["quality"] = {
        "encoder": RUN,
        "anchors": 10,
        "candidates": [1, 4],
        "near_copy": 0.5,
        "label_agreement": True,
        "seed": 0,
    }
    return read


def _vary(data, **vary):
    data["quality"]["vary"] = vary
    return load_params(data)


def test_banks_that_differ_in_one_option(data):
    params = _vary(
        data, interpolation_weight=[0.1, 0.3], steps=[10, 20], share_anchor_noise=[False, True],
        scheduler=["ddim", "ddpm"], mix_at=["mid"],
    )  # fmt: skip
    derived = [
        "digits.mix.w0.3", "digits.mix.steps20", "digits.mix.share_anchor_noise_true",
        "digits.mix.scheduler_ddpm",
    ]  # fmt: skip
    assert measured_banks(params) == banks_needed(params) == ["digits.mix", *derived]
    base = params.banks["digits.mix"].options
    changed = [
        {k: v for k, v in params.banks[n].options.items() if base.get(k) != v} for n in derived
    ]
    assert changed == [
        {"interpolation_weight": 0.3},
        {"steps": 20},
        {"share_anchor_noise": True},
        {"scheduler": "ddpm", "eta": 1.0},
    ]
    stages = [job.stage for job in expected_jobs(params)]
    assert stages.count("measure-bank") == stages.count("gather-bank") == 5
    assert load_params(params.canonical()) == params


def test_a_bank_that_no_run_reads(data):
    data["banks"]["other"] = dict(data["banks"]["digits.mix"], seed=1)
    data["runs"] = {"simclr": {**data["runs"]["simclr"], "positives": ["none"]}}
    data["quality"]["banks"] = ["other"]
    params = _vary(data, steps=[5])
    assert measured_banks(params) == banks_needed(params) == ["other", "other.steps5"]
    assert denoisers_needed(params) == ["digits"]


def test_banks_of_an_ablation_are_measured_but_not_varied(data):
    data["runs"]["simclr"] = {
        **data["runs"]["simclr"], "positives": ["synthetic"], "interpolation_weight": [0.1, 0.5]
    }  # fmt: skip
    data["quality"]["encoder"] = "digits.tiny.simclr.synthetic.s0"
    params = _vary(data, steps=[5])
    assert measured_banks(params) == ["digits.mix", "digits.mix.w0.5", "digits.mix.steps5"]


def test_a_spec_holds_what_decides_numbers_and_no_more(data):
    params = load_params(data)
    spec = quality_spec(params, "digits.mix")
    assert spec.label_agreement == params.evaluation.linear
    assert (spec.network, spec.distance) == (RUN, "frechet_distance")
    assert bank_label(params, "digits.mix") == "digits.mix (w = 0.1, ddim, steps = 10, eta = 0.1)"
    assert "diversity_mse" not in metrics_of(spec, 1) and "diversity_mse" in metrics_of(spec, 2)
    data["quality"]["label_agreement"] = False
    assert quality_spec(load_params(data), "digits.mix").label_agreement is None
    del data["quality"]["encoder"]
    data["quality"]["inception"] = {"path": "inception.pth"}
    spec = quality_spec(load_params(data), "digits.mix")
    assert (spec.network, spec.distance) == ("inception-v3", "fid")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": None}, "quality: give exactly one of encoder and inception"),
        ({"inception": {"path": "x"}}, "quality: give exactly one of encoder and inception"),
        ({"encoder": "digits.tiny.simclr.none.s7"}, r"quality\.encoder: no run and no imported"),
        ({"banks": ["digits.max"]}, r'unknown bank "digits\.max" \(did you mean "digits\.mix"'),
        ({"candidates": [1, 5]}, r"quality\.candidates: 5 exceeds the 4 candidates of bank digits"),
        ({"vary": {"stps": [5]}}, r'quality\.vary\.stps: .* no such option \(did you mean "steps"'),
        ({"vary": {"steps": [7]}}, r"banks\.digits\.mix\.steps7: steps must divide"),
        ({"vary": {"steps": ["many"]}}, r"quality\.vary\.steps: 'many' for bank digits\.mix"),
        ({"vary": {"interpolation_weight": [2]}}, r"quality\.vary\.interpolation_weight: 2 for"),
        ({"near_copy": 1}, "near_copy"),
    ],
)
def test_what_is_refused(data, changes, message):
    data["quality"] |= changes
    with pytest.raises(ConfigError, match=message):
        load_params(data)


def test_nothing_to_measure(data):
    data["runs"] = {"simclr": {**data["runs"]["simclr"], "positives": ["none"]}}
    with pytest.raises(ConfigError, match=r"no run reads a bank and quality\.banks names none"):
        load_params(data)


def test_a_name_that_an_entry_has(data):
    data["banks"]["digits.mix.steps5"] = dict(data["banks"]["digits.mix"], steps=2)
    with pytest.raises(ConfigError, match=r"quality\.vary\.steps gives this name to bank"):
        _vary(data, steps=[5])
