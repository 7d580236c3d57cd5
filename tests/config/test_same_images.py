"""Banks and pairs of another entry that shows the same images; datasets that nobody trains on."""

from pathlib import Path

import pytest

from clsp.config import references
from clsp.config.catalog import dataset_info
from clsp.config.grid import expand_runs
from clsp.config.load import load_params, read_yaml
from clsp.runtime.errors import ConfigError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data():
    """The demo with its bank drawn from an entry of the same images at another size."""
    read = read_yaml(ROOT / "params.yaml")
    read["datasets"]["digits-16"] = {**read["datasets"]["digits"], "size": 16}
    read["datasets"]["digits"]["storage"] = "encoded"
    bank = read["banks"].pop("digits.mix")
    read["banks"]["digits-16.mix"] = {**bank, "dataset": "digits-16"}
    read["denoisers"]["digits"]["dataset"] = "digits-16"
    read["positives"]["synthetic"]["bank"] = "{dataset}-16.mix"
    return read


def test_a_bank_of_the_same_images_at_another_size(data):
    runs = expand_runs(load_params(data)).values()
    assert {run.spec.bank for run in runs} == {None, "digits-16.mix"}
    assert {run.spec.dataset for run in runs} == {"digits"}


@pytest.mark.parametrize("change", [{"seed": 1}, {"test_fraction": 0.4}, {"limit": 500}])
def test_a_bank_of_other_images_is_refused(data, change):
    data["datasets"]["digits-16"].update(change)
    message = 'bank "digits-16.mix" belongs to dataset "digits-16", but the runs train on "digits"'
    with pytest.raises(ConfigError, match=message):
        load_params(data)


def test_a_denoiser_of_another_size_than_its_banks_is_still_refused(data):
    data["denoisers"]["digits"]["dataset"] = "digits"
    with pytest.raises(ConfigError, match=r"banks\.digits-16\.mix: dataset digits-16 has size 16"):
        load_params(data)


def test_runs_do_not_train_on_multilabel_datasets(data, monkeypatch):
    several = dataset_info("digits").model_copy(update={"metric": "map11"})
    monkeypatch.setattr(references, "dataset_info", lambda kind: several)
    with pytest.raises(ConfigError, match=r'\.dataset: "digits" of kind digits is multi-label'):
        load_params(data)
