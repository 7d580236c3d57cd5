"""Which images share batch statistics."""

import pytest
import torch
from torch import nn

from clsp.pretrain.contract import Batch
from clsp.pretrain.forward import forward_as_four_gpus, forward_batch, forward_views


@pytest.fixture
def network():
    """Convolution and batch norm, small enough to check by hand."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def views(count=3, batch=8):
    """Views with clearly different statistics."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(batch, 3, 6, 6, generator=generator) * (v + 1) + v for v in range(count)]


def statistics(network):
    """Running mean of the batch-norm layer."""
    return network[1].running_mean.clone()


def test_joint_is_one_pass_over_everything(network):
    shown = views()
    expected = network(torch.cat(shown))
    network[1].reset_running_stats()
    embedded = forward_views(network, shown, "joint")
    assert torch.equal(torch.cat(embedded), expected)
    assert int(network[1].num_batches_tracked) == 1


def test_separate_is_one_pass_per_view(network):
    shown = views()
    embedded = forward_views(network, shown, "separate")
    assert int(network[1].num_batches_tracked) == 3
    for z, view in zip(embedded, shown, strict=True):
        assert torch.allclose(z, network(view), atol=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_four_gpu_splits_rows_in_order_and_keeps_the_first_chunks_statistics(network, count):
    shown = views(count)
    rows = torch.cat(shown)
    embedded = torch.cat(forward_views(network, shown, "four_gpu"))
    kept = statistics(network)
    assert int(network[1].num_batches_tracked) == 1
    network[1].reset_running_stats()
    chunks = rows.split(len(rows) // 4)
    first = network(chunks[0])
    assert torch.equal(statistics(network), kept)  # real view-1 images alone
    assert len(chunks[0]) <= len(shown[0])
    rest = [network(chunk) for chunk in chunks[1:]]
    assert torch.allclose(embedded, torch.cat([first, *rest]), atol=1e-6)


def test_gradients_pass_through_all_four_chunks(network):
    rows = torch.cat(views()).requires_grad_()
    forward_as_four_gpus(network, rows).pow(2).sum().backward()
    assert torch.all(rows.grad.abs().sum(dim=(1, 2, 3)) > 0)
    assert network[1].track_running_stats


def test_the_three_ways_differ(network):
    results = [
        torch.cat(forward_views(network, views(), f)) for f in ("joint", "separate", "four_gpu")
    ]
    for i in range(3):
        assert not torch.allclose(results[i], results[i - 1], atol=1e-3)


def test_a_positive_by_itself_leaves_no_trace_in_the_running_statistics(network):
    one, two, positive = views()
    index = torch.arange(8)
    plain, none = forward_batch(network, Batch([one, two], None, index), "separate")
    kept, counted = statistics(network), int(network[1].num_batches_tracked)
    network[1].reset_running_stats()
    seen, embedded = forward_batch(network, Batch([one, two], positive, index), "separate")
    assert none is None and counted == 2
    assert torch.equal(statistics(network), kept)
    assert int(network[1].num_batches_tracked) == counted
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    assert torch.allclose(embedded, network(positive), atol=1e-6)  # by its own batch statistics


def test_a_joint_pass_includes_the_positive(network):
    one, two, positive = views()
    batch = Batch([one, two], positive, torch.arange(8))
    expected = forward_views(network, [one, two, positive], "joint")
    found, embedded = forward_batch(network, batch, "joint")
    assert torch.allclose(torch.cat([*found, embedded]), torch.cat(expected), atol=1e-6)
