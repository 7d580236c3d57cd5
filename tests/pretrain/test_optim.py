"""Rates, groups and optimizers against the published values and a plain rewrite."""

import math
from itertools import pairwise

import pytest
import torch
from pretraining import RECIPE
from torch import nn

from clsp.config.recipe import RecipeSpec
from clsp.config.strict import parse
from clsp.pretrain.contract import Group
from clsp.pretrain.optim import Lars, build_optimizer, learning_rate, set_learning_rates
from clsp.runtime.errors import ConfigError

AUTHORS = {  # methods.md 1.4
    0: 0.001, 1: 0.056444, 5: 0.278222, 9: 0.5, 10: 0.5, 100: 0.489873, 500: 0.253966,
    900: 0.012482, 999: 1.26e-6,
}  # fmt: skip
LARS = {"optimizer": "lars", "lars": {"trust": 0.02, "clip": True}}


def recipe(**changes):
    """The CLSP authors' schedule, with weight decay that can be seen."""
    values = {
        **RECIPE, "epochs": 1000, "learning_rate": 0.5, "warmup_epochs": 10,
        "warmup_start": 0.001, "weight_decay": 0.1, **changes,
    }  # fmt: skip
    return RecipeSpec.model_validate(values)


@pytest.mark.parametrize(("epoch", "rate"), AUTHORS.items())
def test_schedule_equals_the_authors(epoch, rate):
    tolerance = 5e-9 if epoch == 999 else 5e-7
    for step in (48 * epoch, 48 * epoch + 47):  # constant within an epoch
        assert learning_rate(recipe(), step, 48) == pytest.approx(rate, abs=tolerance)


def test_a_schedule_by_step_is_the_same_curve_at_steps():
    by_step = recipe(schedule="step", epochs=10, warmup_epochs=2, warmup_start=0.01)
    by_epoch = recipe(epochs=40, warmup_epochs=8, warmup_start=0.01)
    found = [learning_rate(by_step, step, 4) for step in range(40)]
    assert found == [learning_rate(by_epoch, epoch, 1) for epoch in range(40)]
    assert found[0] == 0.01 and found[7:9] == pytest.approx([0.5, 0.5])
    assert all(a > b for a, b in pairwise(found[8:]))
    assert found[-1] == pytest.approx(0.25 * (1 + math.cos(math.pi * 31 / 32)))


def test_scaling_multiplies_the_peak_by_batch_over_256_and_leaves_the_start():
    scaled = recipe(learning_rate_scaling="batch_256", batch_size=512)
    assert scaled.peak == 1.0
    assert learning_rate(scaled, 0, 1) == 0.001 and learning_rate(scaled, 10, 1) == 1.0


def test_without_warmup_the_first_epoch_has_the_peak():
    assert learning_rate(recipe(warmup_epochs=0), 0, 1) == 0.5


def test_one_warmup_epoch_uses_the_start():
    assert [learning_rate(recipe(warmup_epochs=1), e, 1) for e in (0, 1)] == [0.001, 0.5]


class Net(nn.Module):
    """A layer, a norm, a frozen layer, and a layer with a rate of its own."""

    def __init__(self, own=()):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.norm = nn.Linear(2, 2), nn.BatchNorm1d(2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.special, self.own = nn.Linear(2, 2), dict(own)

    def groups(self):
        """The special layer, if it is treated specially."""
        return [Group(self.special.parameters(), **self.own)] if self.own else []


def test_decay_on_all_reaches_biases_and_norms_but_not_frozen_parameters():
    (group,) = build_optimizer(Net(), recipe()).param_groups
    assert len(group["params"]) == 6 and group["weight_decay"] == 0.1


@pytest.mark.parametrize("optimizer", [{}, LARS])
def test_decay_on_weights_leaves_biases_and_norms_out(optimizer):
    net = Net()
    built = build_optimizer(net, recipe(weight_decay_on="weights", **optimizer))
    decayed, bare = built.param_groups
    assert [p.ndim for p in decayed["params"]] == [2, 2] and decayed["weight_decay"] == 0.1
    assert [p.ndim for p in bare["params"]] == [1] * 4 and bare["weight_decay"] == 0
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = [p.clone() for p in bare["params"]]
    built.step()
    assert all(torch.equal(a, b) for a, b in zip(before, bare["params"], strict=True))


def test_a_constant_group_keeps_the_peak_through_warmup_and_decay():
    net = Net({"constant": True})
    optimizer = build_optimizer(net, recipe())
    special = next(g for g in optimizer.param_groups if g["constant"])
    assert {id(p) for p in special["params"]} == {id(p) for p in net.special.parameters()}
    for epoch in (0, 500, 999):
        rate = set_learning_rates(optimizer, recipe(), epoch, 1)
        assert special["lr"] == 0.5
        others = {g["lr"] for g in optimizer.param_groups if not g["constant"]}
        assert others == {rate} and rate == pytest.approx(AUTHORS[epoch], abs=5e-7)


def test_a_group_with_a_rate_of_its_own_is_scheduled_like_the_rest_and_not_scaled():
    scaled = recipe(learning_rate_scaling="batch_256", batch_size=512)
    optimizer = build_optimizer(Net({"rate": 0.1}), scaled)
    set_learning_rates(optimizer, scaled, 505, 1)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([0.5, 0.05])  # half way down from 1.0 and 0.1
    assert len({id(p) for g in optimizer.param_groups for p in g["params"]}) == 6


def _lars(*tensors, decay=1e-4, adapted=True, clip=True, lr=0.4):
    group = {
        "params": list(tensors), "lr": lr, "momentum": 0.9, "weight_decay": decay,
        "adapted": adapted,
    }  # fmt: skip
    return Lars([group], 0.02, clip)


def test_lars_equals_the_reference_on_a_matrix():
    p = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64))
    p.grad = torch.tensor([[0.1, -0.2], [0.3, 0.4]], dtype=torch.float64)
    _lars(p).step()
    expected = torch.tensor([[0.98, 2.03992008], [2.94, 3.92]], dtype=torch.float64)
    assert torch.allclose(p.detach(), expected, rtol=0, atol=5e-9)


def test_lars_equals_the_reference_on_a_vector():
    p = nn.Parameter(torch.tensor([1.0, -1.0], dtype=torch.float64))
    optimizer = _lars(p, decay=0.0, adapted=False)
    for expected in ([0.8, -1.1], [0.42, -1.29]):
        p.grad = torch.tensor([0.5, 0.25], dtype=torch.float64)
        optimizer.step()
        assert p.tolist() == pytest.approx(expected)


def _naive(p, grads, lr, clip):
    """Three steps of the formulas of methods.md 1.3 in plain Python, for one tensor."""
    values, buffer = p.flatten().tolist(), None
    for grad in grads:
        g = grad.flatten().tolist()
        size, slope = (math.sqrt(sum(x * x for x in v)) for v in (values, g))
        change = g
        if size > 0 and slope > 0:
            r = 0.02 * size / (slope + 1e-4 * size + 1e-8)
            r = min(r / lr, 1) if clip else r
            change = [r * (a + 1e-4 * b) for a, b in zip(g, values, strict=True)]
        buffer = change if buffer is None else [0.9 * b + c for b, c in zip(buffer, change, strict=True)]  # fmt: skip
        values = [v - lr * b for v, b in zip(values, buffer, strict=True)]
    return values


@pytest.mark.parametrize("clip", [True, False])
def test_lars_equals_a_plain_rewrite_on_many_tensors(clip):
    draw = torch.Generator().manual_seed(0)
    shapes = [(3, 2), (4, 3, 2), (5, 1)]
    made = [torch.randn(s, generator=draw, dtype=torch.float64) for s in shapes]
    made.append(torch.zeros(2, 2, dtype=torch.float64))  # no norm: plain gradient, no decay
    grads = [[torch.randn(t.shape, generator=draw, dtype=torch.float64) * 10**-k for k in range(3)] for t in made]  # fmt: skip
    grads[2][1] = torch.zeros(5, 1, dtype=torch.float64)
    parameters = [nn.Parameter(t.clone()) for t in made]
    optimizer = _lars(*parameters, clip=clip)
    for step in range(3):
        for parameter, slopes in zip(parameters, grads, strict=True):
            parameter.grad = slopes[step]
        optimizer.step()
    for parameter, start, slopes in zip(parameters, made, grads, strict=True):
        expected = _naive(start, slopes, 0.4, clip)
        assert parameter.detach().flatten().tolist() == pytest.approx(expected, rel=1e-12)


def test_a_parameter_without_gradient_is_left_alone():
    p, q = (nn.Parameter(torch.ones(2, 2)) for _ in range(2))
    optimizer = _lars(p, q)
    p.grad = torch.ones(2, 2)
    optimizer.step()
    assert torch.equal(q, torch.ones(2, 2)) and not torch.equal(p, torch.ones(2, 2))
    assert list(optimizer.state) == [p]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "lars"}, "lars.*belong together, found optimizer lars and none"),
        ({"lars": {"trust": 0.02, "clip": True}}, "belong together, found optimizer sgd and one"),
        ({"optimizer": "adamw"}, "'sgd' or 'lars'.*found 'adamw'"),
        ({"learning_rate_scaling": "linear"}, "'none' or 'batch_256'"),
        ({"schedule": "iteration"}, "'epoch' or 'step'"),
        ({"weight_decay_on": "norms"}, "'all' or 'weights'"),
        ({"momentum": 1.0}, "momentum.*less than 1"),
        ({"warmup_epochs": 3}, "warmup_epochs must be below epochs 3, found 3"),
    ],
)
def test_bad_recipes_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse(RecipeSpec, {**RECIPE, **changes}, "recipe")
