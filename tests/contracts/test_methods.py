"""What every registered method must do, whatever it is."""

import numpy as np
import pytest
import torch
from pretraining import make_prepared, make_spec

from clsp.config.schema import METHODS
from clsp.pretrain.losses import alignment
from clsp.pretrain.optim import learning_rate, set_learning_rate
from clsp.pretrain.resume import snapshot
from clsp.pretrain.run import batch_views, build_method, objective, set_up, train_step
from clsp.runtime.registry import names

CPU = torch.device("cpu")
FORWARDS = {"simclr": ("joint", "separate", "four_gpu"), "moco": ("separate", "four_gpu")}
CASES = [
    (method, positives, forward)
    for method in names(METHODS)
    for positives in ("none", "augmentation")
    for forward in FORWARDS.get(method, (None,))
]
every_case = pytest.mark.parametrize(("method", "positives", "forward"), CASES)
every_method = pytest.mark.parametrize("method", names(METHODS))


def spec_of(method, positives="augmentation", forward=None, **changes):
    """A small run of one case."""
    options = {"forward": forward} if forward else {}
    return make_spec(method, positives, options=options, **changes)


def run_steps(setup, first, last):
    """Train steps first..last-1 on fixed batches; returns the logged scalars."""
    logged = []
    for step in range(first, last):
        index = torch.arange(8) + step % 5
        set_learning_rate(setup.optimizer, learning_rate(setup.spec.recipe, step % 3))
        known, scalars = train_step(setup, index, step // 2, step)
        logged.append({**known, **{name: float(value.detach()) for name, value in scalars.items()}})
    return logged


def assert_same(left, right):
    """Two states agree bit for bit, key by key."""
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert different == []


def optimizer_state(setup):
    """Momentum buffers by parameter number."""
    state = setup.optimizer.state_dict()["state"]
    return {f"{k}.{n}": v for k, s in state.items() for n, v in s.items() if v is not None}


@every_case
def test_loss_is_finite_and_its_gradient_reaches_everything_trained(method, positives, forward):
    setup = set_up(spec_of(method, positives, forward), make_prepared(), [], CPU)
    views, positive = batch_views(setup, torch.arange(8), 0)
    done = setup.method.step(views, positive)
    assert (done.z_positive is None) == (positives == "none")
    assert done.z_anchor.shape == (8, setup.spec.method_options["projection"])
    parts = objective(done, setup.spec.alignment_weight)
    assert torch.isfinite(parts["loss"])
    parts["loss"].backward()
    for name, parameter in setup.method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            assert parameter.grad.abs().sum() > 0 or name.endswith("bias"), name
        else:
            assert parameter.grad is None, name


@every_case
def test_terms_and_weighted_alignment_sum_to_the_loss(method, positives, forward):
    setup = set_up(spec_of(method, positives, forward), make_prepared(), [], CPU)
    views, positive = batch_views(setup, torch.arange(8), 0)
    done = setup.method.step(views, positive)
    parts = objective(done, 0.7)
    expected = sum(term.item() for term in done.terms.values())
    if positive is not None:
        expected += 0.7 * alignment(done.z_anchor, done.z_positive).item()
    assert parts["loss"].item() == pytest.approx(expected, abs=1e-9)
    assert ("alignment" in parts) == (positive is not None)


@every_case
def test_a_step_moves_the_encoder_and_its_statistics(method, positives, forward):
    setup = set_up(spec_of(method, positives, forward), make_prepared(), [], CPU)
    before = snapshot(setup.method)
    run_steps(setup, 0, 1)
    after = snapshot(setup.method)
    trained = {n for n, p in setup.method.named_parameters() if p.requires_grad}
    assert all(
        not torch.equal(before[n], after[n]) for n in trained if n.startswith("encoder.conv")
    )
    assert not torch.equal(before["encoder.bn1.running_mean"], after["encoder.bn1.running_mean"])


@every_method
def test_alignment_gradient_reaches_both_sides(method):
    setup = set_up(spec_of(method), make_prepared(), [], CPU)
    views, positive = batch_views(setup, torch.arange(8), 0)
    done = setup.method.step(views, positive)
    left, right = torch.autograd.grad(
        alignment(done.z_anchor, done.z_positive), [done.z_anchor, done.z_positive]
    )
    assert left.abs().sum() > 0 and right.abs().sum() > 0


@every_method
def test_only_view_one_is_aligned(method):
    setup = set_up(spec_of(method), make_prepared(), [], CPU)
    setup.method.eval()  # no coupling through batch statistics
    views, positive = batch_views(setup, torch.arange(8), 0)
    other = batch_views(setup, torch.arange(8) + 3, 1)[0]
    state = snapshot(setup.method)
    first = setup.method.step(views, positive)
    setup.method.load_state_dict(state)
    second = setup.method.step([views[0], other[1]], positive)
    assert torch.allclose(first.z_anchor, second.z_anchor, atol=1e-6)
    assert torch.allclose(first.z_positive, second.z_positive, atol=1e-6)


@every_case
def test_resumed_run_equals_the_straight_run(method, positives, forward):
    spec = spec_of(method, positives, forward)
    straight = set_up(spec, make_prepared(), [], CPU)
    logged = run_steps(straight, 0, 6)
    first = set_up(spec, make_prepared(), [], CPU)
    early = run_steps(first, 0, 3)
    second = set_up(spec, make_prepared(), [], CPU)
    second.method.load_state_dict(snapshot(first.method))
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    assert early + run_steps(second, 3, 6) == logged
    assert_same(snapshot(second.method), snapshot(straight.method))
    assert_same(optimizer_state(second), optimizer_state(straight))


@every_method
def test_every_part_of_the_state_matters(method):
    """Leaving out any buffer or parameter group changes the outcome, so the test above sees it."""
    spec = spec_of(method)
    first = set_up(spec, make_prepared(), [], CPU)
    run_steps(first, 0, 3)
    state, fresh = (
        snapshot(first.method),
        set_up(spec, make_prepared(), [], CPU).method.state_dict(),
    )
    groups = {name.split(".")[0] for name in state}
    results = {}
    for left_out in [None, *groups]:
        setup = set_up(spec, make_prepared(), [], CPU)
        kept = {k: fresh[k] if k.split(".")[0] == left_out else v for k, v in state.items()}
        setup.method.load_state_dict(kept)
        setup.optimizer.load_state_dict(first.optimizer.state_dict())
        run_steps(setup, 3, 5)
        results[left_out] = snapshot(setup.method)
    whole = results.pop(None)
    for left_out, result in results.items():
        if left_out != "tau":  # a record of the last decay, written anew in every step
            assert any(not torch.equal(whole[k], result[k]) for k in whole), left_out


@every_method
def test_permuted_labels_change_nothing(method):
    plain = make_prepared()
    permuted = make_prepared(labels=plain.labels[::-1].copy())
    assert not np.array_equal(plain.labels, permuted.labels)
    one = set_up(spec_of(method), plain, [], CPU)
    two = set_up(spec_of(method), permuted, [], CPU)
    run_steps(one, 0, 2)
    run_steps(two, 0, 2)
    assert_same(snapshot(one.method), snapshot(two.method))


@every_method
def test_seed_decides_the_weights_and_global_streams_do_not(method):
    torch.manual_seed(1)
    first = snapshot(build_method(spec_of(method)))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert_same(first, snapshot(build_method(spec_of(method))))
    assert torch.equal(before, torch.get_rng_state())
    other = snapshot(build_method(spec_of(method, seed=1)))
    assert not torch.equal(first["encoder.conv1.weight"], other["encoder.conv1.weight"])


@every_method
def test_moving_average_follows_its_formula_and_is_not_optimised(method):
    setup = set_up(spec_of(method), make_prepared(), [], CPU)
    if not hasattr(setup.method, "before_step"):
        pytest.skip("the method has no moving average")
    optimised = {id(p) for group in setup.optimizer.param_groups for p in group["params"]}
    assert not optimised & {id(p) for p in setup.method.average.parameters()}
    run_steps(setup, 0, 2)
    before = [p.clone() for p in setup.method.average.parameters()]
    online = torch.nn.Sequential(setup.method.encoder, setup.method.head)
    buffers = {n: b.clone() for n, b in setup.method.average.named_buffers()}
    tau = setup.method.before_step(2, setup.steps)["momentum"]
    assert 0.9 <= tau <= 0.99 and float(setup.method.tau) == tau
    for old, new, now in zip(
        before, online.parameters(), setup.method.average.parameters(), strict=True
    ):
        assert torch.allclose(now, tau * old + (1 - tau) * new, atol=1e-6)
    for name, buffer in setup.method.average.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    assert setup.method.counters() == {"ema_updates": 3}
