"""MoCo's queues and step order."""

import pytest
import torch
import torch.nn.functional as F
from pretraining import NOTHING, ROOT, make_prepared, make_spec

from clsp.config.load import load_params, read_yaml
from clsp.pretrain.contract import Batch, Moment
from clsp.pretrain.feed import load_batch
from clsp.pretrain.losses.contrastive import info_nce
from clsp.pretrain.setup import set_up
from clsp.runtime.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture
def setup():
    """A run with a queue of three batches."""
    return set_up(make_spec("moco"), make_prepared(), NOTHING, CPU)


def test_queue_starts_as_unit_rows_drawn_from_the_seed(setup):
    queue = setup.method.queue.rows
    assert queue.shape == (2, 24, 8)
    assert torch.allclose(queue.norm(dim=2), torch.ones(2, 24), atol=1e-6)
    other = set_up(make_spec("moco", seed=1), make_prepared(), NOTHING, CPU).method.queue.rows
    assert not torch.allclose(queue, other)


def test_losses_use_the_other_views_key_and_the_queue_as_it_was(setup):
    method = setup.method
    batch = load_batch(setup, torch.arange(8), 0)
    past = method.queue.past()
    q = [method.online()(view) for view in batch.views]
    k = [method.teacher(view) for view in batch.views]
    temperature = method.config.temperature
    first = info_nce(q[0], k[1], past[1], temperature)
    second = info_nce(q[1], k[0], past[0], temperature)
    expected = (first + second) / 2
    done = method.step(batch)
    assert done.terms["info_nce"].item() == pytest.approx(expected.item(), abs=1e-6)
    stored = method.queue.rows[:, :8]
    assert torch.allclose(stored[0], F.normalize(k[0], dim=1), atol=1e-6)  # queue 0 holds k_1
    assert torch.allclose(stored[1], F.normalize(k[1], dim=1), atol=1e-6)


def test_the_positive_is_no_key(setup):
    batch = load_batch(setup, torch.arange(8), 0)
    state = {k: v.clone() for k, v in setup.method.state_dict().items()}
    setup.method.step(batch)
    with_positive = setup.method.queue.past()
    setup.method.load_state_dict(state)
    setup.method.step(Batch(batch.views, None, batch.index))
    assert torch.equal(with_positive, setup.method.queue.rows)


def test_first_update_changes_nothing_and_tau_lags_one_step(setup):
    method = setup.method
    before = [p.clone() for p in method.teacher.network.parameters()]
    assert method.before_step(Moment(0, 100, 0))["momentum"] == 0.9
    assert all(
        torch.allclose(a, b, atol=1e-7)
        for a, b in zip(before, method.teacher.network.parameters(), strict=True)
    )
    # tau(0), computed after step 0
    assert method.before_step(Moment(1, 100, 0))["momentum"] == 0.9
    assert method.before_step(Moment(51, 100, 1))["momentum"] == pytest.approx(0.945)


def test_queue_that_does_not_fit_the_batch_is_refused_while_params_are_read():
    data = read_yaml(ROOT / "params.yaml")
    data["methods"]["moco"]["queue"] = 1001
    with pytest.raises(
        ConfigError, match=r"methods.moco: queue 1001 is not a multiple of batch_size"
    ):
        load_params(data)
