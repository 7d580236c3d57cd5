"""The learning-rate schedule against the authors' values."""

import pytest
import torch

from clsp.config.schema import RecipeSpec
from clsp.pretrain.optim import build_optimizer, learning_rate, set_learning_rate

AUTHORS = {  # methods.md 1.4
    0: 0.001, 1: 0.056444, 5: 0.278222, 9: 0.5, 10: 0.5, 100: 0.489873, 500: 0.253966,
    900: 0.012482, 999: 1.26e-6,
}  # fmt: skip


def recipe(**changes):
    """A recipe of which only the schedule matters."""
    values = {
        "epochs": 1000, "learning_rate": 0.5, "warmup_epochs": 10, "warmup_start": 0.001,
        "momentum": 0.9, "weight_decay": 0.1, **changes,
    }  # fmt: skip
    return RecipeSpec.model_construct(**values)


@pytest.mark.parametrize(("epoch", "rate"), AUTHORS.items())
def test_schedule_equals_the_authors(epoch, rate):
    tolerance = 5e-9 if epoch == 999 else 5e-7
    assert learning_rate(recipe(), epoch) == pytest.approx(rate, abs=tolerance)


def test_without_warmup_the_first_epoch_has_the_peak():
    assert learning_rate(recipe(warmup_epochs=0), 0) == 0.5


def test_one_warmup_epoch_uses_the_start():
    assert [learning_rate(recipe(warmup_epochs=1), e) for e in (0, 1)] == [0.001, 0.5]


def test_weight_decay_reaches_biases_and_norms_but_not_frozen_parameters():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    optimizer = build_optimizer(torch.nn.ModuleList([module, frozen]), recipe())
    (group,) = optimizer.param_groups
    assert len(group["params"]) == 4 and group["weight_decay"] == 0.1
    set_learning_rate(optimizer, 0.25)
    assert group["lr"] == 0.25
