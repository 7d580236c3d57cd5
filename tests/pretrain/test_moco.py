"""MoCo's queues and step order."""

import pytest
import torch
import torch.nn.functional as F
from pretraining import ROOT, make_prepared, make_spec

from clsp.config.load import load_params, read_yaml
from clsp.pretrain.losses import info_nce
from clsp.pretrain.run import batch_views, set_up
from clsp.runtime.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def setup():
    """A run with a queue of three batches."""
    return set_up(make_spec("moco"), make_prepared(), [], CPU)


def test_queue_starts_as_unit_columns_drawn_from_the_seed(setup):
    queue = setup.method.queue
    assert queue.shape == (2, 8, 24)
    assert torch.allclose(queue.norm(dim=1), torch.ones(2, 24), atol=1e-6)
    other = set_up(make_spec("moco", seed=1), make_prepared(), [], CPU).method.queue
    assert not torch.allclose(queue, other)


def test_queue_advances_and_wraps(setup):
    method = setup.method
    keys = [torch.full((2, 8, 8), float(i)) for i in range(4)]
    for number, key in enumerate(keys):
        before = method.queue.clone()
        method._enqueue(key)
        slots = slice(number % 3 * 8, number % 3 * 8 + 8)
        assert torch.all(method.queue[:, :, slots] == number)
        untouched = [c for c in range(24) if not slots.start <= c < slots.stop]
        assert torch.equal(method.queue[:, :, untouched], before[:, :, untouched])
        assert int(method.pointer) == (number + 1) * 8 % 24


def test_losses_use_the_other_views_key_and_the_queue_as_it_was(setup):
    method = setup.method
    views, positive = batch_views(setup, torch.arange(8), 0)
    past = method.queue.clone()
    online = torch.nn.Sequential(method.encoder, method.head)
    q = [online(view) for view in views]
    k = [method.average(view) for view in views]
    temperature = method.config.temperature
    first = info_nce(q[0], k[1], past[1], temperature)
    second = info_nce(q[1], k[0], past[0], temperature)
    expected = (first + second) / 2
    done = method.step(views, positive)
    assert done.terms["info_nce"].item() == pytest.approx(expected.item(), abs=1e-6)
    stored = method.queue[:, :, :8]
    assert torch.allclose(stored[0], F.normalize(k[0], dim=1).T, atol=1e-6)  # queue 0 holds k_1
    assert torch.allclose(stored[1], F.normalize(k[1], dim=1).T, atol=1e-6)


def test_the_positive_is_no_key(setup):
    views, positive = batch_views(setup, torch.arange(8), 0)
    state = {k: v.clone() for k, v in setup.method.state_dict().items()}
    setup.method.step(views, positive)
    with_positive = setup.method.queue.clone()
    setup.method.load_state_dict(state)
    setup.method.step(views, None)
    assert torch.equal(with_positive, setup.method.queue)


def test_first_update_changes_nothing_and_tau_lags_one_step(setup):
    method = setup.method
    before = [p.clone() for p in method.average.parameters()]
    assert method.before_step(0, 100)["momentum"] == 0.9
    assert all(
        torch.allclose(a, b, atol=1e-7)
        for a, b in zip(before, method.average.parameters(), strict=True)
    )
    assert method.before_step(1, 100)["momentum"] == 0.9  # tau(0), computed after step 0
    assert method.before_step(51, 100)["momentum"] == pytest.approx(0.945)


def test_queue_that_does_not_fit_the_batch_is_refused_while_params_are_read():
    data = read_yaml(ROOT / "params.yaml")
    data["methods"]["moco"]["queue"] = 1001
    with pytest.raises(
        ConfigError, match=r"methods.moco: queue 1001 is not a multiple of batch_size"
    ):
        load_params(data)
