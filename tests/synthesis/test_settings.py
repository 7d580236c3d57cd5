"""What params.yaml may not ask of a denoiser and its bank: found before anything is trained."""

from pathlib import Path

import pytest

from clsp.config.load import load_params, read_yaml
from clsp.runtime.errors import ConfigError

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.mark.parametrize(
    ("section", "name", "changed", "message"),
    [
        ("banks", "digits.mix", {"steps": 30}, "banks.digits.mix: steps must divide .* found 30"),
        ("datasets", "digits", {"size": 9}, "denoisers.digits: .* 2 levels .* has size 9"),
        ("denoisers", "digits", {"dataset": "dtd-mini"}, "digits.mix: dataset digits has size 8"),
    ],
)
def test_denoiser_and_bank_must_fit(section, name, changed, message):
    data = read_yaml(PARAMS)
    data[section][name].update(changed)
    with pytest.raises(ConfigError, match=message):
        load_params(data)
