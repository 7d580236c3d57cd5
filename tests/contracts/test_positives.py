"""What every registered positive source must do."""

import numpy as np
import pytest
import torch
from pretraining import make_prepared, write_bank

from clsp.config.schema import POSITIVES
from clsp.pretrain.anchors import load_anchors
from clsp.runtime.errors import ConfigError
from clsp.runtime.registry import load, names, settings_class

CPU = torch.device("cpu")
every_source = pytest.mark.parametrize("name", names(POSITIVES))


@pytest.fixture
def open_source(tmp_path):
    """Opens a source by name, over 20 anchors with 3 candidates each."""
    prepared = make_prepared()
    bank = write_bank(tmp_path / "toy.mix", prepared)

    def opened(name, seed=0):
        config = settings_class(POSITIVES, name).model_validate({})
        given = bank if name == "bank" else None
        return load(POSITIVES, name, "source").Source(
            config, load_anchors(prepared, CPU), given, seed
        )

    return opened


@every_source
def test_images_have_the_form_of_anchors(open_source, name):
    batch = open_source(name).batch(torch.tensor([3, 0, 19]), 0)
    if name == "none":
        assert batch is None
        return
    assert batch.shape == (3, 8, 8, 3)
    assert batch.dtype == torch.uint8


@every_source
def test_a_positive_depends_on_seed_anchor_and_epoch_alone(open_source, name):
    source, index = open_source(name), torch.arange(20)
    whole = source.batch(index, 4)
    if whole is None:
        return
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(5)
    assert torch.equal(source.batch(order, 4), whole[order])
    assert torch.equal(source.batch(index[7:8], 4), whole[7:8])
    assert torch.equal(open_source(name).batch(index, 4), whole)


def test_bank_gives_candidates_of_its_anchor_and_uses_all(open_source):
    source, index = open_source("bank"), torch.arange(20)
    seen = set()
    for epoch in range(30):
        chosen = source.choose(index, epoch)
        batch = source.batch(index, epoch).numpy()
        assert np.array_equal(batch, source.mapped[np.arange(20), chosen.numpy()])
        seen |= set(zip(index.tolist(), chosen.tolist(), strict=True))
    assert len(seen) == 60  # every candidate of every anchor
    assert not torch.equal(source.choose(index, 0), source.choose(index, 1))
    assert not torch.equal(source.choose(index, 0), open_source("bank", seed=1).choose(index, 0))


def test_candidates_are_drawn_uniformly(open_source):
    source = open_source("bank")
    drawn = torch.cat([source.choose(torch.arange(20), epoch) for epoch in range(300)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    assert torch.all((shares - 1 / 3).abs() < 0.03)


def test_augmentation_gives_the_anchor_itself(open_source):
    source = open_source("augmentation")
    assert torch.equal(source.batch(torch.tensor([2, 5]), 9), source.images[[2, 5]])


@every_source
def test_a_bank_is_demanded_or_refused(tmp_path, name):
    prepared = make_prepared()
    bank = None if name == "bank" else write_bank(tmp_path / "other.mix", prepared)
    config = settings_class(POSITIVES, name).model_validate({})
    with pytest.raises(ConfigError, match="bank"):
        load(POSITIVES, name, "source").Source(config, load_anchors(prepared, CPU), bank, 0)
