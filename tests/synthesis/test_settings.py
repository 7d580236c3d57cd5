"""What params.yaml may not ask of a denoiser and its bank: found before anything is trained."""

from pathlib import Path

import pytest

from clsp.config.grid import expand_runs
from clsp.config.load import load_params, read_yaml
from clsp.data.check import Counts, find_problems
from clsp.runtime.errors import ConfigError

PARAMS = Path(__file__).parents[2] / "params.yaml"
CONDITIONAL = {"generator": "conditional", "interpolation_weight": None, "guidance": 1.8}


def params_of(bank=None, denoiser=None, dataset=None, labels="marked"):
    """The demo with some keys changed; None takes a key away."""
    data = read_yaml(PARAMS)
    data["comparison"]["labels"] = labels
    data |= {"quality": None, "tables": ["main"], "figures": []}  # banks alone are looked at
    for entry, changed in (
        (data["banks"]["digits.mix"], bank),
        (data["denoisers"]["digits"], denoiser),
        (data["datasets"]["digits"], dataset),
    ):
        entry.update(changed or {})
        for key in [key for key, value in entry.items() if value is None]:
            del entry[key]
    return load_params(data)


@pytest.mark.parametrize(
    ("bank", "denoiser", "dataset", "message"),
    [
        ({"steps": 30}, {}, {}, r"banks.digits.mix: steps must divide .* 1000, found 30"),
        ({"steps": 30, "scheduler": "ddpm", "eta": 1}, {}, {}, "steps must divide .* found 30"),
        ({"steps": 1001, "scheduler": "dpm_solver", "eta": 0}, {}, {}, "not exceed .* found 1001"),
        ({"scheduler": "dpm_solver"}, {}, {}, "eta must be 0 with scheduler dpm_solver"),
        ({"scheduler": "ddpm"}, {}, {}, "eta must be 1 with scheduler ddpm"),
        ({"scheduler": "euler"}, {}, {}, "banks.digits.mix.*scheduler"),
        ({"mix_at": "up.2"}, {}, {}, r'mix_at: the denoiser has no block "up.2"; it has down.0'),
        ({"guidance": 1.0}, {}, {}, '"guidance" is an option of conditional, not of generator'),
        ({"quirk": "plain_ddim"}, {}, {}, '"quirk" is an option of conditional, unconditional'),
        ({}, {}, {"size": 9}, "denoisers.digits: .* 2 levels .* has size 9"),
        ({}, {"dataset": "dtd-mini"}, {}, "digits.mix: dataset digits has size 8"),
        (CONDITIONAL, {}, {}, "needs a class-conditional denoiser: one with label_drop"),
        (CONDITIONAL | {"guidance": -1}, {}, {}, "banks.digits.mix.*guidance"),
    ],
)
def test_denoiser_and_bank_must_fit(bank, denoiser, dataset, message):
    with pytest.raises(ConfigError, match=message):
        params_of(bank, denoiser, dataset)


def test_quirk_steps_must_fit_too():
    plain = {"generator": "unconditional", "interpolation_weight": None, "quirk": "plain_ddim"}
    params_of(plain)
    with pytest.raises(ConfigError, match=r"steps must divide .* 990, found 100"):
        params_of(plain | {"steps": 10}, {"train_timesteps": 990})


def test_fast_solver_takes_steps_that_divide_nothing():
    params = params_of({"scheduler": "dpm_solver", "eta": 0, "steps": 7, "mix_at": "up.1"})
    assert params.banks["digits.mix"].settings().solver().steps == 7


def test_classes_of_anchors_and_denoiser_must_agree():
    conditional = {"label_drop": 0.1, "dataset": "cifar10-mini"}
    with pytest.raises(ConfigError, match="dataset digits is of kind digits, denoiser digits is"):
        params_of(CONDITIONAL, conditional, {"size": 16})
    params_of(CONDITIONAL, {"label_drop": 0.1})


@pytest.mark.parametrize(
    ("bank", "users"),
    [
        (CONDITIONAL, ('generator "conditional"', 'denoiser "digits"')),
        ({}, ('denoiser "digits"',)),
        ({"generator": "unconditional", "interpolation_weight": None}, ('denoiser "digits"',)),
    ],
)
def test_a_bank_uses_labels_if_its_generator_or_denoiser_does(bank, users):
    runs = expand_runs(params_of(bank, {"label_drop": 0.1}))
    assert runs["digits.tiny.simclr.synthetic.s0.labels"].label_users == users
    assert runs["digits.tiny.simclr.synthetic.s0.labels"].label == "CLSP-SimCLR [labels]"
    assert runs["digits.tiny.simclr.none.s0"].label_users == ()


def test_labels_that_come_with_a_bank_can_be_refused():
    with pytest.raises(ConfigError, match='denoiser "digits" uses labels of training images'):
        params_of({}, {"label_drop": 0.1}, labels="refused")


def test_training_images_without_a_label_are_found_before_drawing():
    params = params_of(CONDITIONAL, {"label_drop": 0.1})
    counts = {"digits": Counts(1347, 450, 10, 10, labelled=1300)}
    problems = find_problems(params, 1, counts)
    assert any(
        line.startswith("banks.digits.mix: generator conditional uses labels, but 47 of the 1347")
        for line in problems
    )
    full = {"digits": Counts(1347, 450, 10, 10, labelled=1347)}
    assert find_problems(params, 1, full) == []
