"""Moving averages of weights."""

import pytest
import torch
from torch import nn

from clsp.models.ema import cosine_decay, frozen_copy, update_average


def test_update_follows_the_formula_and_leaves_buffers_alone():
    online = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average = frozen_copy(online)
    for parameter in online.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    online[1].running_mean.fill_(7)
    before = [p.clone() for p in average.parameters()]
    update_average(average, online, 0.9)
    for old, new, now in zip(before, online.parameters(), average.parameters(), strict=True):
        assert torch.allclose(now, 0.9 * old + 0.1 * new, atol=1e-7)
    assert average[1].running_mean.abs().sum() == 0


def test_decay_one_changes_nothing_and_zero_copies():
    online, average = nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)
    before = average.weight.clone()
    update_average(average, online, 1.0)
    assert torch.equal(average.weight, before)
    update_average(average, online, 0.0)
    assert torch.equal(average.weight, online.weight)


def test_copy_gets_no_gradient_and_shares_nothing():
    online = nn.Linear(2, 2)
    average = frozen_copy(online)
    assert not any(p.requires_grad for p in average.parameters())
    assert average.weight.data_ptr() != online.weight.data_ptr()


@pytest.mark.parametrize(
    ("share", "decay"), [(0, 0.99), (0.25, 0.991318), (0.5, 0.9945), (0.75, 0.997682), (1, 0.999)]
)
def test_cosine_schedule_has_the_published_values(share, decay):
    assert cosine_decay(0.99, 0.999, int(share * 100), 100) == pytest.approx(decay, abs=5e-7)
