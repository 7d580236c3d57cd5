"""Partners are drawn uniformly, from the right images, by keys alone."""

import pytest
import torch

from clsp.pretrain.partners import ALONE, PairPartners, SetPartners
from clsp.runtime.rng import integers

SETS = torch.tensor([4, 0, 4, ALONE, 2, 4, ALONE, 0, 4])
MEMBERS = [{2, 5, 8}, {7}, {0, 5, 8}, {3}, {4}, {0, 2, 8}, {6}, {1}, {0, 2, 5}]
LEFT, RIGHT = torch.tensor([5, 0, 0]), torch.tensor([6, 2, 6])
PAIRED = [{2, 6}, {1}, {0}, {3}, {4}, {6}, {0, 5}]


def in_sets(key=3):
    return SetPartners(SETS, key), MEMBERS


def in_pairs(key=3):
    return PairPartners(LEFT, RIGHT, len(PAIRED), key), PAIRED


both = pytest.mark.parametrize("make", [in_sets, in_pairs])


@both
def test_every_partner_is_drawn_equally_often_and_nothing_else(make):
    partners, expected = make()
    index, epochs = torch.arange(len(expected)), 600
    drawn = torch.stack([partners.choose(index, epoch) for epoch in range(epochs)])
    for anchor, allowed in enumerate(expected):
        values, counts = drawn[:, anchor].unique(return_counts=True)
        assert set(values.tolist()) == allowed
        assert torch.all((counts / epochs - 1 / len(allowed)).abs() < 0.08)


@both
def test_a_draw_depends_on_key_anchor_and_epoch_alone(make):
    partners, expected = make()
    whole = partners.choose(torch.arange(len(expected)), 7)
    order = torch.randperm(len(expected), generator=torch.Generator().manual_seed(1))
    assert torch.equal(partners.choose(order, 7), whole[order])
    assert torch.equal(make()[0].choose(torch.tensor([0]), 7), whole[:1])
    several = [partners.choose(torch.arange(len(expected)), epoch) for epoch in range(20)]
    others = [make(key=4)[0].choose(torch.arange(len(expected)), epoch) for epoch in range(20)]
    assert any(not torch.equal(several[0], one) for one in several[1:])
    assert any(not torch.equal(a, b) for a, b in zip(several, others, strict=True))


def test_one_set_of_all_images_never_gives_the_anchor():
    partners = SetPartners(torch.zeros(50, dtype=torch.int64), 0)
    index = torch.arange(50)
    drawn = torch.stack([partners.choose(index, epoch) for epoch in range(100)])
    assert not (drawn == index).any()
    assert all(len(drawn[:, anchor].unique()) > 35 for anchor in range(50))


def test_without_any_pair_every_anchor_is_its_own():
    nothing = torch.empty(0, dtype=torch.int64)
    partners = PairPartners(nothing, nothing, 4, 0)
    assert partners.choose(torch.tensor([3, 0]), 5).tolist() == [3, 0]


def test_integers_take_a_bound_of_their_own_for_each_sample():
    index = torch.arange(400)
    bound = index % 5
    drawn = integers(9, index, 2, high=bound, count=3)
    for high in range(5):
        rows = index[bound == high]
        assert torch.equal(drawn[rows], integers(9, rows, 2, high=high, count=3))
    assert drawn[bound == 0].eq(0).all() and (drawn < bound[:, None].clamp(min=1)).all()
