"""Collapse and liveness: what is logged, and when a run warns."""

import logging
import math

import pytest
import torch
from torch import nn

from clsp.models.ema import Teacher
from clsp.pretrain.contract import Step
from clsp.pretrain.watch import Watch, effective_rank, embedding_spread, teacher_distance


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_spread_of_random_embeddings_is_near_one_over_root_d():
    assert embedding_spread(drawn(4096, 64)).item() == pytest.approx(1 / 8, rel=0.02)
    assert embedding_spread(torch.ones(5, 3)).item() == 0


def test_effective_rank_counts_directions():
    assert effective_rank(torch.eye(6)).item() == pytest.approx(6, rel=1e-5)
    line = torch.linspace(1, 2, 9)[:, None] * torch.ones(1, 4)
    assert effective_rank(line).item() == pytest.approx(1, abs=1e-3)
    two = torch.tensor([[1.0, 0, 0], [0, 1, 0]]).repeat(5, 1)
    assert effective_rank(two).item() == pytest.approx(2, rel=1e-5)
    values = torch.linalg.svdvals(nn.functional.normalize(drawn(20, 8), dim=1)).tolist()
    shares = [v / sum(values) for v in values]
    expected = math.exp(-sum(s * math.log(s) for s in shares))
    assert effective_rank(drawn(20, 8)).item() == pytest.approx(expected, rel=1e-5)


def test_teacher_distance_is_zero_for_a_copy_and_relative_otherwise():
    online = nn.Linear(3, 2)
    teacher = Teacher(online, 0.9, 1.0)
    assert teacher_distance(teacher, online).item() == 0
    with torch.no_grad():
        for parameter in online.parameters():
            parameter.mul_(2)
    assert teacher_distance(teacher, online).item() == pytest.approx(0.5, rel=1e-5)


def test_share_of_neighbours_counts_images_and_not_the_random_start():
    labels = torch.tensor([0, 0, 1, 1])
    watch = Watch(nn.Linear(1, 1), labels, 10)
    neighbours = torch.tensor([[1, -1], [2, 0], [-1, -1]])
    done = Step({}, drawn(3, 4), None, None, neighbours)
    values = watch.each_step(done, torch.tensor([0, 1, 2]))
    assert values["neighbour_label_share"].item() == pytest.approx(2 / 3)
    young = Step({}, drawn(3, 4), None, None, torch.full((3, 1), -1))
    assert watch.each_step(young, torch.arange(3))["neighbour_label_share"].item() == 0
    unlabelled = Watch(nn.Linear(1, 1), torch.full((4,), -1), 10)
    assert unlabelled.each_step(done, torch.arange(3))["neighbour_label_share"].item() == 0
    partly = Watch(nn.Linear(1, 1), torch.tensor([0, -1, -1, 0]), 10)
    neighbours = torch.tensor([[3, 1], [2, 0], [2, 1]])  # only image 0 and its neighbour 3 count
    done = Step({}, drawn(3, 4), None, None, neighbours)
    share = partly.each_step(done, torch.tensor([0, 1, 2]))["neighbour_label_share"]
    assert share.item() == 1
    assert "neighbour_label_share" not in watch.each_step(Step({}, drawn(3, 4), None), labels[:3])


def test_a_collapsed_start_is_normal_and_a_collapsed_run_warns_once(caplog):
    """methods.md 5: do not stop a run before roughly epoch 10; nor after it, only warn."""
    watch = Watch(nn.Linear(1, 1), torch.zeros(1), 1000)
    collapsed = {"embedding_std": 0.0001, "effective_rank": 1.2}
    with caplog.at_level(logging.WARNING):
        for epoch in range(99):
            watch.judge(epoch, 256, collapsed)
        assert not caplog.records
        for epoch in range(99, 120):
            watch.judge(epoch, 256, collapsed)
    (record,) = caplog.records
    assert "epoch 100: the embedding has collapsed: spread 0.0001" in record.getMessage()
    assert "effective rank 1.2" in record.getMessage()


def test_a_healthy_run_never_warns(caplog):
    watch = Watch(nn.Linear(1, 1), torch.zeros(1), 20)
    with caplog.at_level(logging.WARNING):
        for epoch in range(20):
            watch.judge(epoch, 256, {"embedding_std": 1 / 17, "effective_rank": 90.0})
    assert not caplog.records
